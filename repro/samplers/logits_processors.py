"""Logits processors, between the network and a sampler: guidance, temperature and truncation.

    low_confidence+guided:scale=1.0+nucleus:p=0.9       by name (`repro.samplers.presets`), which stands for
    ProcessedSampler(
        shape=Guided(scale=1.0),
        rule=ProcessedSampler(shape=Nucleus(p=0.9), rule=LowConfidence(temperature=0.0)),
    )

A logits processor receives the state of a step and passes a changed one to the sampler that it modifies (`rule`). The
processor named first is the outermost and acts first on the network's logits, so transformers' order, temperature
before top-k before top-p, is SAMPLER+tempered+top_k+top_p. Steps, memory and times are those of the sampler. Ids that
may not be generated keep logits of -inf.

Shapes: B rows of the batch, L columns, N positions (True entries of a [B, L] mask), V vocabulary size.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from repro.core import parts
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.absorbing import mask_id
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.ordered import Random
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, Setting, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.corpus import Vocabulary
    from repro.models.prediction import Prediction


class LogitsProcessor(Part):
    """Base class of logits processors, which change the state that a sampler receives in a step: the prediction's
    logits, or how the sampler chooses positions."""

    presets: ClassVar[tuple[Preset, ...]] = ()
    """Settings of the processor that have a name, as in `repro.samplers.sampler.Sampler.presets`."""
    sets: ClassVar[Setting | None] = None
    """Which setting of the state it changes ("quota", "order" or "confidence"); None if it changes the prediction."""

    def processes(self) -> frozenset[str]:
        """Families of noise (`Process.noise`) to which the logits processor applies.

        A processor that changes which positions are chosen is for absorbing noise only, because only there do samplers
        choose positions.
        """
        return frozenset({"absorbing", "uniform", "left_to_right"} if self.sets is None else {"absorbing"})

    def claim(self, of: Claim) -> Claim:
        """What the sampler with this processor claims about its output distribution for an exact denoiser: "law" (it is
        the model's distribution), "mode" (likely sentences are favoured on purpose) or "biased" (neither; see
        `repro.samplers.sampler.Claim`).

        `of`: the claim of the sampler alone.
        """
        return "mode" if of == "mode" else "biased"

    @abstractmethod
    def apply(self, state: State) -> State:
        """A changed copy of the step's `state`, for the sampler that the processor modifies."""


class LogitsTransform(LogitsProcessor):
    """Base class of logits processors that change the logits of each position separately; subclasses give the new
    logits, `transform`."""

    keeps_argmax: ClassVar[bool] = True
    """Whether the most probable id of a position is always the same before and after."""

    @abstractmethod
    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The transformed logits [N, V] of logits [N, V], for N positions and a vocabulary of V ids."""

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
    """A sampler (`rule`) with a logits processor (`shape`); `rule` may have processors itself (`no_eos+top_p+random`).

    Memory, diffusion times and capabilities are those of `rule`, but the noise must be one that the processor supports
    as well. Raises ValueError, with the right name, if the processor would change nothing in `rule`, is for other noise
    processes, or must stand at another place among the processors.
    """

    shape: LogitsProcessor
    rule: Sampler

    def __post_init__(self) -> None:
        base, processor = self.innermost, self.shape
        name, inner = type(processor).presets[0].name, parts.part_name(type(base))  # as a user types it
        if base.capabilities.looks_ahead:
            raise ValueError(
                f"{name} must change the sampler that {inner} runs, not {inner} itself: write +{name} before +{inner}"
            )
        if isinstance(self.rule, ProcessedSampler) and isinstance(self.rule.shape, Guided):
            raise ValueError(
                f"guided combines the network's own logits: write +guided before +{name} in the sampler's name"
            )
        if processor.sets is not None and processor.sets not in base.capabilities.follows:
            raise ValueError(
                f"{name} changes nothing in {inner}: it sets the {processor.sets}, which {inner} does not use;"
                f" leave {name} out"
            )
        if processor.sets == "quota" and any(each.sets == "quota" for each in self.processors[1:]):
            raise ValueError(
                f"{name}: another processor of {inner} sets the quota (positions per step) already; leave one of"
                " them out"
            )
        greedy = isinstance(base, Autoregressive | Random) and base.temperature == 0
        if greedy and isinstance(processor, LogitsTransform) and processor.keeps_argmax:
            raise ValueError(
                f"{name} changes nothing in {inner} at temperature 0, which takes the argmax; leave {name} out"
            )
        if not self.capabilities.processes:
            fits = " and ".join(sorted(processor.processes()))
            raise ValueError(f"{name} is for {fits} models, and the sampler {inner} is not; leave {name} out")

    @property
    def innermost(self) -> Sampler:
        return self.rule.innermost

    @property
    def processors(self) -> list[LogitsProcessor]:
        """All logits processors around the innermost sampler, the outermost first."""
        return [self.shape, *(self.rule.processors if isinstance(self.rule, ProcessedSampler) else [])]

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
    """Classifier-free guidance: the logits become un + (scale + 1)(cond - un), where cond are the network's logits and
    un those with the prompt masked; two forward passes per prediction (docs/method.md#llada-sampling)."""

    scale: float
    presets = (
        Preset(
            "guided",
            {"scale": 0.5},
            "pushes logits away from those without the prompt: LLaDA's cfg_scale (docs/method.md#llada-likelihood)",
            "2410.18514",
        ),
    )

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
    """Divides the logits by a temperature (transformers, Dream).

    Unlike a sampler's own temperature it also affects the scores by which the sampler chooses positions.
    """

    temperature: float
    presets = (
        Preset(
            "tempered",
            {"temperature": 0.7},
            "divides logits by a temperature, before top_k and top_p as in transformers; the value is ours",
            None,
        ),
    )

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"tempered: temperature={self.temperature} must be above 0; for argmax tokens set the sampler's"
                " own temperature to 0"
            )

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return logits.double() / self.temperature


@part
class TopK(LogitsTransform):
    """Keeps the k most probable ids of each position and those tied with the k-th; forbids all others (transformers,
    Dream)."""

    k: int
    presets = (
        Preset(
            "top_k",
            {"k": 50},
            "keeps the k likeliest ids: transformers' default, dLLM's Dream sampler (docs/method.md#peer-samplers)",
            "1805.04833",
        ),
    )

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"top_k: k={self.k} is no number of ids to keep; give 1 or more")

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        least = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@part
class Nucleus(LogitsTransform):
    """Keeps the most probable ids of each position while their total probability is at most p, and always the most
    probable one; forbids all others (ReMDM, BD3-LM; docs/method.md#top-p).

    The id with which the total exceeds p is forbidden too; `TopP` keeps it.
    """

    p: float
    presets = (
        Preset(
            "nucleus",
            {"p": 0.9},
            "keeps the likeliest ids of mass p, without the id that crosses p: ReMDM, BD3-LM (docs/method.md#top-p)",
            "1904.09751",
        ),
    )

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) <= self.p)


@part
class TopP(LogitsTransform):
    """Keeps the most probable ids of each position until their total probability exceeds p; forbids all others
    (transformers, Dream, Duo; docs/method.md#top-p).

    The id with which the total exceeds p is kept; `Nucleus` forbids it.
    """

    p: float
    presets = (
        Preset(
            "top_p",
            {"p": 0.95},
            "keeps the likeliest ids of mass p, with the id that crosses p: HF, Dream, Duo (docs/method.md#top-p)",
            "1904.09751",
        ),
    )

    def __post_init__(self) -> None:
        _check_mass(self.p)

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        return _truncate(logits, lambda sorted_p: sorted_p.cumsum(-1) - sorted_p <= self.p)


@part
class Banned(LogitsTransform):
    """Forbids the given ids by logits of -inf; "eos" is the vocabulary's EOS id.

    With the EOS id it is LLaDA's option `logits_eos_inf` (docs/method.md#llada-sampling).
    """

    ids: tuple[int, ...] | Literal["eos"]
    keeps_argmax = False
    presets = (
        Preset(
            "no_eos",
            {"ids": "eos"},
            "never writes EOS: LLaDA, logits_eos_inf (docs/method.md#llada-sampling)",
            "2502.09992",
        ),
    )

    def transform(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(resolved_ids(self.ids, vocabulary))] = True
        return logits.masked_fill(gone, -torch.inf)


# --- helpers ------------------------------------------------------------------------------------------------


def _truncate(logits: Tensor, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits [N, V] with -inf at all ids that are not kept; the most probable id of a position is always kept.

    `keep`: function from the probabilities of each position, sorted from high to low, [N, V], to whether each id is
    kept, [N, V] bool in the same order.
    """
    p, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    stays = keep(p)
    stays[:, 0] = True
    return logits.masked_fill(~torch.zeros_like(stays).scatter(1, order, stays), -torch.inf)


def _check_mass(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(
            f"logits processors nucleus and top_p: p={p} must lie between 0 and 1; to keep all ids, leave the processor"
            " out"
        )


def resolved_ids(ids: tuple[int, ...] | Literal["eos"], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The given `ids`, or the vocabulary's EOS id if `ids` is "eos", as a tuple.

    Raises ValueError for an id outside the vocabulary, and for "eos" if the vocabulary has none.
    """
    if ids == "eos":
        if vocabulary.eos is None:
            raise ValueError("the tokenizer has no EOS id; give ids by number, as in no_eos:ids=[0]")
        return (vocabulary.eos,)
    for wrong in ids:
        if not 0 <= int(wrong) < vocabulary.total:
            raise ValueError(
                f"there is no id {wrong}: the ids of this model run from 0 to {vocabulary.total - 1}; give ids in this"
                " range"
            )
    return tuple(int(i) for i in ids)
