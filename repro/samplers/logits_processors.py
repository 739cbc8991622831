"""Logits processors, between the network and a rule: guidance, temperature, truncation, and how positions are chosen.

    low_confidence+guided:scale=1.0+nucleus:p=0.9       by name (`repro.samplers.presets`), which stands for
    ProcessedSampler(
        shape=Guided(scale=1.0),
        rule=ProcessedSampler(shape=Nucleus(p=0.9), rule=LowConfidence(temperature=0.0)),
    )

A logits processor receives the state of a step and passes a changed one to the rule. The outermost processor acts first
on the network's logits, so transformers' order, temperature before top-k before top-p, is RULE+tempered+top_k+top_p.
Plan, memory and time are those of the rule. Forbidden ids stay at -inf.

Shapes: B rows, L columns, N positions, V ids.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from repro.core import registry
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.absorbing import mask_id
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.ordered import Random
from repro.samplers.sampler import Capabilities, Claim, Sampler, Setting, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.corpus import Vocabulary
    from repro.models.prediction import Prediction


class LogitsProcessor(Part):
    """Kind: a change of the state that a rule is given."""

    sets: ClassVar[Setting | None] = None
    """The setting of the state that it changes; None if it changes the prediction."""

    def processes(self) -> frozenset[str]:
        """Names of the processes that it applies to; rules choose positions under absorbing noise only."""
        return frozenset({"absorbing", "uniform", "left_to_right"} if self.sets is None else {"absorbing"})

    def claim(self, of: Claim) -> Claim:
        """The claim of the rule with this processor, given the claim `of` the rule alone."""
        return "mode" if of == "mode" else "biased"

    @abstractmethod
    def apply(self, state: State) -> State:
        """The state that the rule is given."""


Shape = LogitsProcessor
"""The name by which the frozen table of part fields (tests/core/surface.json) knows the kind."""


class LogitsTransform(LogitsProcessor):
    """Kind: a function of the logits at each position."""

    keeps_argmax: ClassVar[bool] = True
    """Whether the most probable id of a position always stays the same."""

    @abstractmethod
    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits [N, V] -> logits [N, V]."""

    def apply(self, state: State) -> State:
        from repro.samplers.processed import ProcessedPrediction

        def processed(prediction: Prediction) -> Prediction:
            vocabulary = state.prediction.vocabulary
            return ProcessedPrediction(prediction, lambda logits: self.transform(logits, vocabulary))

        return dataclasses.replace(
            state,
            prediction=processed(state.prediction),
            _forward=lambda ids, t: processed(state.forward(ids, t)),
        )


@part
class ProcessedSampler(Sampler):
    """A rule with a logits processor (`shape`); capabilities, memory and time are those of the rule.

    Raises ValueError for a processor that would change nothing in the rule, or that does not fit it.
    """

    shape: Shape
    rule: Sampler

    def __post_init__(self) -> None:
        base, processor = self.innermost, self.shape
        name, inner = registry.part_name(type(processor)), registry.part_name(type(base))
        if isinstance(self.rule, ProcessedSampler) and isinstance(self.rule.shape, Guided):
            raise ValueError(f"guided combines the network's own logits: write +guided before +{name}")
        if processor.sets is not None and processor.sets not in base.capabilities.follows:
            raise ValueError(
                f"{name} changes nothing in {inner}, which does not use {processor.sets}; leave it out"
            )
        greedy = isinstance(base, Autoregressive | Random) and base.temperature == 0
        if greedy and isinstance(processor, LogitsTransform) and processor.keeps_argmax:
            raise ValueError(
                f"{name} changes nothing in {inner} at temperature 0, which only takes argmaxes; leave it out"
            )
        if not self.capabilities.processes:
            fits = " and ".join(sorted(processor.processes()))
            raise ValueError(f"{name} is for {fits} models, {inner} is not")

    @property
    def innermost(self) -> Sampler:
        return self.rule.innermost

    @property
    def capabilities(self) -> Capabilities:
        of = self.rule.capabilities
        return dataclasses.replace(of, processes=of.processes & self.shape.processes())

    def claim(self) -> Claim:
        return self.shape.claim(self.rule.claim())

    def time(self, step: int, steps: int) -> float:
        return self.rule.time(step, steps)

    def start(self, ids: Tensor) -> Tensor | None:
        return self.rule.start(ids)

    def step(self, state: State) -> Tensor:
        inner = self.shape.apply(state)
        if self.shape.sets == "quota" and inner.quota == 0:
            return state.ids  # saves the forward of a step that commits nothing
        after = self.rule.step(inner)
        state.memory = inner.memory
        return after


# --- processors of the prediction ---------------------------------------------------------------------------


@part
class Guided(LogitsProcessor):
    """Classifier-free guidance: un + (scale + 1)(cond - un), where `un` has the prompt masked; two forwards per
    prediction (docs/method.md#llada-sampling)."""

    scale: float

    def processes(self) -> frozenset[str]:
        return frozenset({"absorbing"})

    def apply(self, state: State) -> State:
        from repro.samplers.processed import GuidedPrediction

        mask = mask_id(state.prediction.vocabulary)

        def guided(conditional: Prediction, ids: Tensor, t: Tensor) -> Prediction:
            masked = ids if state.prompt is None else ids.masked_fill(state.prompt, mask)
            return GuidedPrediction(conditional, state.forward(masked, t), self.scale)

        return dataclasses.replace(
            state,
            prediction=guided(state.prediction, state.ids, state.t),
            _forward=lambda ids, t: guided(state.forward(ids, t), ids, t),
        )


@part
class Tempered(LogitsTransform):
    """Logits divided by a temperature; it also affects the scores of positions (transformers, Dream)."""

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: give one above 0 (only a rule's own may be 0)")

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return logits.double() / self.temperature


@part
class TopK(LogitsTransform):
    """Keeps the k most probable ids, and those tied with the k-th (transformers, Dream)."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k}: keep at least 1 id")

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        least = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@part
class Nucleus(LogitsTransform):
    """Keeps the most probable ids while their total probability is at most p, and always the first (ReMDM, BD3-LM;
    docs/method.md#top-p).

    The id that crosses p is dropped.
    """

    p: float

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) <= self.p)


@part
class TopP(LogitsTransform):
    """Keeps the most probable ids until their total probability exceeds p (transformers, Dream, Duo;
    docs/method.md#top-p).

    The id that crosses p is kept.
    """

    p: float

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) - sorted_p <= self.p)


@part
class Banned(LogitsTransform):
    """Forbids ids: LLaDA's `logits_eos_inf` with its EOS (docs/method.md#llada-sampling)."""

    ids: tuple[int, ...] | Literal["eos"]
    keeps_argmax = False

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(_resolved(self.ids, vocabulary))] = True
        return logits.masked_fill(gone, -torch.inf)


# --- processors of the choice of positions ------------------------------------------------------------------


@part
class Distrusted(LogitsProcessor):
    """Commits ids last: LLaDA's `confidence_eos_eot_inf` with its EOS and EoT, as intended there
    (docs/method.md#llada-sampling).

    Tokens are chosen as without it; the confidence is that of a softmax without these ids, and 0 for these ids.
    """

    ids: tuple[int, ...] | Literal["eos"]
    sets = "confidence"

    def apply(self, state: State) -> State:
        ids = _resolved(self.ids, state.prediction.vocabulary)
        return dataclasses.replace(state, distrusted=(*state.distrusted, *ids))


@part
class OrderTemperature(LogitsProcessor):
    """Draws positions without replacement from softmax(score / alg_temp) instead of ranking them (Dream;
    docs/method.md#dream-rules)."""

    alg_temp: float
    sets = "order"

    def __post_init__(self) -> None:
        if not self.alg_temp > 0:
            raise ValueError(f"alg_temp={self.alg_temp}: give one above 0, or leave order_temperature out")

    def claim(self, of: Claim) -> Claim:
        return of

    def apply(self, state: State) -> State:
        return dataclasses.replace(state, order_temperature=self.alg_temp)


class QuotaProcessor(LogitsProcessor):
    """Kind: the number of positions that each step of a block commits. A step that commits none takes no forward."""

    sets = "quota"

    @abstractmethod
    def counts(self, length: int, steps: int) -> list[int]:
        """Number of positions to commit at each of the `steps` of a block of `length` positions."""

    def claim(self, of: Claim) -> Claim:
        return of

    def apply(self, state: State) -> State:
        length = int(state.active[0].sum())
        return dataclasses.replace(state, quota=self.counts(length, state.steps)[state.step])


@part
class DreamQuotas(QuotaProcessor):
    """floor(remaining (1 - s/t)) on even times from 1 to `end`, and all remaining positions at the last step (Dream;
    docs/method.md#dream-rules)."""

    end: float

    def counts(self, length: int, steps: int) -> list[int]:
        found: list[int] = []
        for i in range(steps - 1):
            t, s = (1 - (1 - self.end) * j / steps for j in (i, i + 1))
            found.append(int((length - sum(found)) * (1 - s / t)))
        return [*found, length - sum(found)]


@part
class RoundedQuotas(QuotaProcessor):
    """Remaining positions / remaining steps, rounded half to even (dLLM with a linear schedule;
    docs/method.md#dllm-quotas)."""

    def counts(self, length: int, steps: int) -> list[int]:
        found: list[int] = []
        for i in range(steps):
            found.append(round((length - sum(found)) / (steps - i)))
        return found


# --- helpers ------------------------------------------------------------------------------------------------


def _truncate(logits: Tensor, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits [N, V] with -inf at ids that `keep`, given the probabilities [N, V] in falling order, drops; the most
    probable id always stays."""
    p, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    stays = keep(p)
    stays[:, 0] = True
    return logits.masked_fill(~torch.zeros_like(stays).scatter(1, order, stays), -torch.inf)


def _check_mass(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"p={p}: give a probability between 0 and 1")


def _resolved(ids: tuple[int, ...] | Literal["eos"], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids themselves, or the vocabulary's EOS id; ValueError for an unknown id or a missing EOS."""
    if ids == "eos":
        if vocabulary.eos is None:
            raise ValueError("this data source has no EOS id; give ids by number, as in ids=[0]")
        return (vocabulary.eos,)
    for wrong in ids:
        if not 0 <= int(wrong) < vocabulary.total:
            raise ValueError(f"no id {wrong}: ids run from 0 to {vocabulary.total - 1}")
    return tuple(int(i) for i in ids)
