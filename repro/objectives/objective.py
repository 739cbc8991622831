"""The interface of training losses: their inputs and outputs, and what a loss is averaged over.

An objective draws its noise with per-row keys (of seed, purpose, step and row index), so that a step split into any
number of processes and microbatches gives the same loss curve. The weights of its average depend on the token counts of
the whole step, which follow from the keys before any forward.
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
    """B rows of one optimizer step, and properties of all R rows of the step that are known before any forward."""

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
    """[R] ids of the examples of all rows of the step, stable across epochs."""
    step_candidates: Tensor
    """[R] number of candidates of all rows of the step."""
    step_where: Tensor | None = None
    """[R, L] bool: the candidates of all rows of the step, for losses that depend on the lengths of other rows."""

    @property
    def noised(self) -> Tensor:
        """[B, L] bool: positions to be corrupted, which are the candidates and filler; filler is never scored."""
        filler = self.vocabulary.filler
        return self.candidates if filler is None else self.candidates | (self.ids == filler)


class Loss(NamedTuple):
    """`value`: scalar whose sum over all microbatches and processes of a step is the step's loss; `nll`: summed
    cross-entropy or bound of the scored tokens, in nats; `tokens`: their number; `logs`: sums over rows, by name."""

    value: Tensor
    nll: Tensor
    tokens: int
    logs: dict[str, Tensor]


class Group(Part):
    """Kind: the tokens over which a loss is averaged."""

    @abstractmethod
    def weights(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Weights [B] float64 of the summed losses of the rows `index` [B], given the scored tokens [R] of all rows."""


@part
class RowGroup(Group):
    """Mean over the tokens of `rows` consecutive rows, then over these groups, as under DDP with `rows` rows a GPU
    (docs/method.md#masked-script)."""

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
    """Kind: a training loss.

    `meaning`: what a network trained by it predicts; `processes`: registered names of the processes that it supports;
    `score`: whether a likelihood may be read from its value, which tables show (docs/method.md#symmetric-kl).
    """

    meaning: ClassVar[Meaning]
    processes: ClassVar[frozenset[str]]
    score: ClassVar[Literal["exact", "truncated bound", "no bound", "improper score"]]

    @abstractmethod
    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        """The loss of a microbatch."""


class Distillation(Objective):
    """Kind: a loss against a teacher, a network without gradients that may become a copy of the student."""

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        raise TypeError("a distillation compares the network with a teacher; call `distil`")

    @abstractmethod
    def distil(self, denoiser: Denoiser, teacher: Denoiser, process: Process, batch: Batch) -> Loss:
        """The loss of a microbatch; the teacher is in evaluation mode."""

    @abstractmethod
    def renews(self, step: int) -> bool:
        """Whether the teacher becomes a copy of the student before optimizer step `step`."""
