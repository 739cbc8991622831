"""What the decoding loop yields: the step it is at, what it cost, each frame, and the final ids."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction


class StepIndex(NamedTuple):
    """A step of the plan: its block, its number within the block, and the block's steps."""

    block: int
    step: int
    steps: int


@dataclass
class Cost:
    """What a decode cost, [B] each; forwards are of single rows.

    `further`: those of them beyond the first of a step (guidance, correction); `refreshes`: those that renewed a cache;
    `token_forwards`: tokens that went through the network; `writes`: tokens written, revisions too; `filled`: positions
    behind the end of a row that no rule had decided.
    """

    forwards: Tensor
    further: Tensor
    refreshes: Tensor
    token_forwards: Tensor
    writes: Tensor
    filled: Tensor

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> Cost:
        return cls(*(torch.zeros(rows, dtype=torch.int64, device=device) for _ in fields(cls)))

    def add(self, other: Cost, rows: Tensor) -> None:
        """Add the costs of a step of some rows [n]."""
        for field in fields(self):
            getattr(self, field.name)[rows] += getattr(other, field.name)


class Advanced(NamedTuple):
    """After a step: ids [B, L], the rule's memory [B, M], its cost, and the prediction that it began with, at t [B]."""

    ids: Tensor
    memory: Tensor | None
    cost: Cost
    prediction: Prediction
    t: Tensor


@dataclass(frozen=True)
class Frame:
    """What the loop shows after each step: ids [B, L], what changed [B, L], costs so far (a live count), moment.

    `confidence` [B, L]: what the network gave to each token that was written at this step, else 0; None: not asked.
    """

    ids: Tensor
    changed: Tensor
    cost: Cost
    at: StepIndex
    confidence: Tensor | None
    before: Tensor
    """[B, L] ids that the step began with."""
    advanced: Advanced
    """The step of the rows that were still being decoded, [n] of the B."""


@dataclass(frozen=True)
class Decoded:
    """Generated ids [B, gen_length], what they cost, and `useful` [B]: tokens before the first that ends a row."""

    ids: Tensor
    cost: Cost
    useful: Tensor

    @property
    def committed(self) -> Tensor:
        """[B] positions that a rule decided, each once: all but those filled behind the end of a row."""
        return self.ids.shape[1] - self.cost.filled
