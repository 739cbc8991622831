"""What an objective is given and what it returns; what its loss averages over.

An objective draws its own noise from per-row streams (keys of seed, purpose, step and row index), so that a step split
into any number of processes and microbatches gives one loss curve. The weights of its average come from the whole
step's token counts, which the streams give before any forward.
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
    """Some rows of one optimizer step, and what is known of the whole step (R rows) before any forward."""

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
    """[R] stable names of all rows of the step."""
    step_candidates: Tensor
    """[R] number of candidates of all rows of the step."""
    step_where: Tensor | None = None
    """[R, L] bool: the candidates of all rows of the step, for what depends on the lengths of other rows."""

    @property
    def noised(self) -> Tensor:
        """[B, L] bool: positions that may be corrupted, the candidates and filler, which is never scored."""
        filler = self.vocabulary.filler
        return self.candidates if filler is None else self.candidates | (self.ids == filler)


class Loss(NamedTuple):
    """`value`: scalar whose sum over all microbatches and processes of a step is the step's loss; `nll`: summed
    cross-entropy or bound of the scored tokens, nats; `tokens`: their number; `logs`: sums over rows, by name."""

    value: Tensor
    nll: Tensor
    tokens: int
    logs: dict[str, Tensor]


class Group(Part):
    """Kind: what a loss averages over."""

    @abstractmethod
    def weights(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Scored tokens of all rows of the step [R] -> weight of the summed loss of rows `index` [B], float64 [B]."""


@part
class RowGroup(Group):
    """Mean over the tokens of `rows` consecutive rows, then over groups: as on `rows` a GPU under DDP
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

    `meaning`: what a network trained by it says; `processes`: registered names of the noises it is for; `score`: what
    its value is worth, and tables say so where a likelihood read from it may mislead (docs/method.md#symmetric-kl).
    """

    meaning: ClassVar[Meaning]
    processes: ClassVar[frozenset[str]]
    score: ClassVar[Literal["exact", "truncated bound", "no bound", "improper score"]]

    @abstractmethod
    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss: ...


class Distillation(Objective):
    """Kind: a loss against a teacher, a network that no gradient reaches and that the student's weights may renew."""

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        raise TypeError("a distillation compares the network with a teacher; call `distil`")

    @abstractmethod
    def distil(self, denoiser: Denoiser, teacher: Denoiser, process: Process, batch: Batch) -> Loss:
        """The loss of a microbatch; the teacher is in evaluation mode."""

    @abstractmethod
    def renews(self, step: int) -> bool:
        """Whether the teacher takes over the student's weights before this step."""
