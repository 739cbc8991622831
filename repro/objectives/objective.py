"""The interface of training losses: their inputs and outputs, and what a loss is averaged over.

An objective draws its noise from one random key per row (of seed, purpose, step and row index), so that a step split
into any number of processes and microbatches gives the same loss curve. The weights of its average depend on the token
counts of the whole step, which follow from the keys before any forward.

Shapes: R rows of one optimizer step, B of them in a microbatch, L positions.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.data.corpus import Vocabulary
from repro.processes.prediction import Meaning
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.attention import Mask
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True)
class Batch:
    """A microbatch: B of the R rows of one optimizer step, with clean ids, candidates (positions that may be corrupted
    and are scored) and attention mask, and example ids and numbers of candidates of all R rows of the step."""

    ids: Tensor
    """[B, L] clean ids."""
    candidates: Tensor
    """[B, L] bool: positions that may be corrupted and are scored."""
    attention: Mask
    index: Tensor
    """[B] index of each row within the step, 0..R-1."""
    step: int
    seed: int
    vocabulary: Vocabulary
    step_examples: Tensor
    """[R] example id of every row of the step, the same in every epoch."""
    step_candidates: Tensor
    """[R] number of candidates in each row of the step."""
    step_where: Tensor | None = None
    """[R, L] bool: the candidates of all rows of the step, for losses that depend on the lengths of other rows."""

    @property
    def noised(self) -> Tensor:
        """[B, L] bool: positions to be corrupted: candidates and filler (padding read as text, never scored)."""
        filler = self.vocabulary.filler
        return self.candidates if filler is None else self.candidates | (self.ids == filler)


class Loss(NamedTuple):
    """Loss of one microbatch. `value`: scalar whose sum over all microbatches and processes of a step is the step's
    loss; `nll`: summed cross-entropy or bound of the scored tokens, in nats; `tokens`: number of scored tokens; `logs`:
    name of a logged quantity -> its sum over rows."""

    value: Tensor
    nll: Tensor
    tokens: int
    logs: dict[str, Tensor]


class Group(Part):
    """Base class of ways to average a loss over tokens: over all tokens of a step, or within groups of rows first."""

    @abstractmethod
    def weights(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Weight of each token's loss in the rows with the indices `index` [B], float64 [B]; the sum of all weighted
        token losses is the average. `tokens` [R]: number of scored tokens in each of the R rows of the step."""


@part
class RowGroup(Group):
    """Mean over the scored tokens of `rows` consecutive rows, then over these groups, as under DDP with `rows` rows per
    GPU (docs/method.md#masked-script)."""

    rows: int

    def weights(self, tokens: Tensor, index: Tensor) -> Tensor:
        group = torch.arange(len(tokens), device=tokens.device) // self.rows
        groups = int(group[-1]) + 1
        sums = torch.zeros(groups, dtype=torch.float64, device=tokens.device).index_add(
            0, group, tokens.double()
        )
        return 1 / (groups * sums.clamp_min(1))[group[index]]


@part
class GlobalBatch(Group):
    """Mean over all scored tokens of the step."""

    def weights(self, tokens: Tensor, index: Tensor) -> Tensor:
        return (1 / tokens.double().sum().clamp_min(1)).expand(len(index))


class Objective(Part):
    """Base class of training losses.

    `meaning`: what the output of a network trained by it estimates, "x0_mean" or "leave_one_out"
    (repro.processes.prediction); `processes`: families of noise (`Process.noise`) that it supports; `score`: whether
    its value is a likelihood or a bound on one, as tables state (docs/method.md#symmetric-kl); `in_blocks`: True if it
    is only for processes that noise a row block by block (`Process.block_length`), False if only for others.
    """

    meaning: ClassVar[Meaning]
    processes: ClassVar[frozenset[str]]
    score: ClassVar[Literal["exact", "truncated bound", "no bound", "improper score"]]
    in_blocks: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        """Loss of the network `denoiser` on a microbatch under the noise of `process`."""

    def trained(self, vocab_size: int) -> tuple[float, float]:
        """Smallest and largest alpha (probability that a token is intact) at which this loss trains a network with
        `vocab_size` ids; (0, 1): at any alpha.

        At other alphas the network's output is not trained, though a likelihood bound reads it there.
        """
        return 0.0, 1.0


class Distillation(Objective):
    """Base class of losses against a teacher, a network without gradients that may be replaced by a copy of the
    student."""

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        raise TypeError(
            "a distillation loss needs a teacher; call `distil(denoiser, teacher, process, batch)`"
        )

    @abstractmethod
    def distil(self, denoiser: Denoiser, teacher: Denoiser, process: Process, batch: Batch) -> Loss:
        """Loss of the student `denoiser` on a microbatch under the noise of `process`, against the network `teacher`,
        which is in evaluation mode."""

    @abstractmethod
    def renews(self, step: int) -> bool:
        """Whether the teacher is replaced by a copy of the student before optimizer step `step`."""
