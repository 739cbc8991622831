"""What may stand between a network and a rule: guidance, temperature, truncation, and settings of the rule's choice.

    ProcessedSampler(shape=Guided(scale=1.0), rule=ProcessedSampler(shape=Nucleus(p=0.9),
    rule=LowConfidence(temperature=0.0))) low_confidence+guided:scale=1.0+nucleus:p=0.9         the same by name
    (`repro.samplers.presets`)

A shape is given a rule's state and hands on a changed one; the outermost acts first on what the network says. So
HF's order, temperature before top-k before top-p, is RULE+tempered+top_k+top_p. Everything else, plan, memory and
time, is the rule's own. Forbidden ids stay at -inf through every shape.
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


class Shape(Part):
    """Kind: a change of what a rule is given. `sets`: the setting of the state that it changes, if it is one."""

    sets: ClassVar[Setting | None] = None

    def processes(self) -> frozenset[str]:
        """The noises it makes sense for; positions are chosen under absorbing noise only."""
        return frozenset({"absorbing", "uniform", "left_to_right"} if self.sets is None else {"absorbing"})

    def claim(self, of: Claim) -> Claim:
        """What a rule that claims `of` may claim under this shape."""
        return "mode" if of == "mode" else "biased"

    @abstractmethod
    def apply(self, state: State) -> State:
        """The state that the rule sees."""


class Logits(Shape):
    """Kind: a change of the logits at each position alone. `keeps_best`: no argmax moves."""

    keeps_best: ClassVar[bool] = True

    @abstractmethod
    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        """[N, V] -> [N, V]."""

    def apply(self, state: State) -> State:
        from repro.samplers.processed import Reshaped

        def change(logits: Tensor) -> Tensor:
            return self.change(logits, state.prediction.vocabulary)

        def forward(ids: Tensor, t: Tensor) -> Reshaped:
            return Reshaped(state.forward(ids, t), change)

        return dataclasses.replace(state, prediction=Reshaped(state.prediction, change), _forward=forward)


@part
class ProcessedSampler(Sampler):
    """A rule under a shape. Capabilities, memory and time are the rule's."""

    shape: Shape
    rule: Sampler

    def __post_init__(self) -> None:
        base, shape = self.innermost, self.shape
        name, inner = registry.part_name(type(shape)), registry.part_name(type(base))
        if isinstance(self.rule, ProcessedSampler) and isinstance(self.rule.shape, Guided):
            raise ValueError(f"guided mixes what the network says as it is: write it before {name}")
        if shape.sets is not None and shape.sets not in base.capabilities.follows:
            raise ValueError(f"{name} changes nothing in {inner}, which has no {shape.sets} to set")
        greedy = isinstance(base, Autoregressive | Random) and base.temperature == 0
        if greedy and isinstance(shape, Logits) and shape.keeps_best:
            raise ValueError(f"{name} changes nothing in {inner} at temperature 0: it writes argmaxes")
        if not self.capabilities.processes:
            raise ValueError(
                f"{name} is for {' and '.join(sorted(shape.processes()))} models, {inner} is not"
            )

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
            return state.ids  # nothing to commit, nothing to forward
        after = self.rule.step(inner)
        state.memory = inner.memory
        return after


# --- what the network says ----------------------------------------------------------------------------------


@part
class Guided(Shape):
    """Classifier-free guidance: un + (scale + 1)(cond - un), un with the prompt masked; two forwards
    (docs/method.md#llada-sampling)."""

    scale: float

    def processes(self) -> frozenset[str]:
        return frozenset({"absorbing"})

    def apply(self, state: State) -> State:
        from repro.samplers.processed import Mixed

        mask = mask_id(state.prediction.vocabulary)

        def mixed(of: Prediction, ids: Tensor, t: Tensor) -> Prediction:
            untold = ids if state.prompt is None else ids.masked_fill(state.prompt, mask)
            return Mixed(of, state.forward(untold, t), self.scale)

        return dataclasses.replace(
            state,
            prediction=mixed(state.prediction, state.ids, state.t),
            _forward=lambda ids, t: mixed(state.forward(ids, t), ids, t),
        )


@part
class Tempered(Logits):
    """Logits / temperature before anything else is done with them, scores included (HF, Dream)."""

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: give one above 0 (a rule's own may be 0)")

    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return logits.double() / self.temperature


@part
class TopK(Logits):
    """The k most probable ids; what ties with the k-th stays (HF, Dream)."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k}: keep at least 1 id")

    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        least = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@part
class Nucleus(Logits):
    """The most probable ids whose probabilities together are at most p, and always the first (ReMDM, BD3;
    docs/method.md#top-p).

    The id that crosses p is left out.
    """

    p: float

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) <= self.p)


@part
class TopP(Logits):
    """The most probable ids until their probabilities together exceed p (HF, Dream, Duo; docs/method.md#top-p).

    The id that crosses p is kept.
    """

    p: float

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) - sorted_p <= self.p)


@part
class Banned(Logits):
    """Ids that are never written: LLaDA's `logits_eos_inf` with its EOS (docs/method.md#llada-sampling)."""

    ids: tuple[int, ...] | Literal["eos"]
    keeps_best = False

    def change(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(_resolved(self.ids, vocabulary))] = True
        return logits.masked_fill(gone, -torch.inf)


# --- how the rule chooses -----------------------------------------------------------------------------------


@part
class Distrusted(Shape):
    """Ids that are committed last: LLaDA's `confidence_eos_eot_inf` with its EOS and EoT, as it was meant
    (docs/method.md#llada-sampling).

    Tokens are chosen as ever; the confidence is that of a softmax without these ids, and 0 for them.
    """

    ids: tuple[int, ...] | Literal["eos"]
    sets = "confidence"

    def apply(self, state: State) -> State:
        ids = _resolved(self.ids, state.prediction.vocabulary)
        return dataclasses.replace(state, distrusted=(*state.distrusted, *ids))


@part
class OrderTemperature(Shape):
    """Positions are drawn without replacement ~ softmax(score / alg_temp) instead of ranked (Dream;
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


class Quotas(Shape):
    """Kind: how many of a block's positions a step commits. A step of none forwards nothing."""

    sets = "quota"

    @abstractmethod
    def counts(self, length: int, steps: int) -> list[int]:
        """Positions committed at each of a block's steps."""

    def claim(self, of: Claim) -> Claim:
        return of

    def apply(self, state: State) -> State:
        length = int(state.active[0].sum())
        return dataclasses.replace(state, quota=self.counts(length, state.steps)[state.step])


@part
class DreamQuotas(Quotas):
    """floor(left (1 - s/t)) on times from 1 down to `end`, and all that is left in the last step (Dream;
    docs/method.md#dream-rules)."""

    end: float

    def counts(self, length: int, steps: int) -> list[int]:
        found: list[int] = []
        for i in range(steps - 1):
            t, s = (1 - (1 - self.end) * j / steps for j in (i, i + 1))
            found.append(int((length - sum(found)) * (1 - s / t)))
        return [*found, length - sum(found)]


@part
class RoundedQuotas(Quotas):
    """left / (steps left), rounded half to even (dLLM with a linear schedule; docs/method.md#dllm-quotas)."""

    def counts(self, length: int, steps: int) -> list[int]:
        found: list[int] = []
        for i in range(steps):
            found.append(round((length - sum(found)) / (steps - i)))
        return found


# --- helpers ------------------------------------------------------------------------------------------------


def _truncate(logits: Tensor, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits [N, V] where `keep` of the probabilities in falling order says so, -inf elsewhere; the first stays."""
    p, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    kept = keep(p)
    kept[:, 0] = True
    return logits.masked_fill(~torch.zeros_like(kept).scatter(1, order, kept), -torch.inf)


def _check_mass(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"p={p}: give a share of the probability between 0 and 1")


def _resolved(ids: tuple[int, ...] | Literal["eos"], vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids by number, or the vocabulary's EOS; ValueError where there is none."""
    if ids == "eos":
        if vocabulary.eos is None:
            raise ValueError("this data source has no EOS id; give ids by number, ids=[0]")
        return (vocabulary.eos,)
    for wrong in ids:
        if not 0 <= int(wrong) < vocabulary.total:
            raise ValueError(f"no id {wrong}: ids run from 0 to {vocabulary.total - 1}")
    return tuple(int(i) for i in ids)
