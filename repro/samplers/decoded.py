"""What the decoding loop yields: step index, cost, a frame after each step, and the final ids.

Shapes: B rows of the batch, n rows still decoding, L columns, M numbers of a rule's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction


class StepIndex(NamedTuple):
    """A step of the plan: block number, step number within the block, and number of steps of each block."""

    block: int
    step: int
    steps: int


@dataclass
class Cost:
    """What a decode cost: int64 counts, [B] each; a forward is that of one row.

    `forwards`: all forwards; `further`: those beyond the first of a step (guidance, correction); `refreshes`: those
    that recomputed a whole KV cache; `token_forwards`: tokens that went through the network; `writes`: tokens written,
    revisions included; `filled`: undecided positions that were filled because they follow a row's stop id.
    """

    forwards: Tensor
    further: Tensor
    refreshes: Tensor
    token_forwards: Tensor
    writes: Tensor
    filled: Tensor

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> Cost:
        """No cost yet, for `rows` rows."""
        return cls(*(torch.zeros(rows, dtype=torch.int64, device=device) for _ in fields(cls)))

    @classmethod
    def of(cls, predictions: Sequence[Prediction], writes: Tensor) -> Cost:
        """The cost of one step: its forwards in order, and the tokens that it wrote in each row, [n]."""
        cost = cls.empty(len(writes), writes.device)
        for number, made in enumerate(predictions):
            cost.forwards += made.forwarded
            cost.further += made.forwarded if number else 0
            cost.refreshes += made.refreshed
            cost.token_forwards += made.token_forwards()
        cost.writes += writes
        return cost

    def add(self, other: Cost, rows: Tensor) -> None:
        """Add the cost of a step of these rows [n]."""
        for field in fields(self):
            getattr(self, field.name)[rows] += getattr(other, field.name)


class StepResult(NamedTuple):
    """After a step: ids [n, L], the rule's memory [n, M], the step's cost, its first prediction, and that one's time t
    [n]."""

    ids: Tensor
    memory: Tensor | None
    cost: Cost
    prediction: Prediction
    t: Tensor


@dataclass(frozen=True)
class Frame:
    """The batch after a step: ids [B, L], changed positions [B, L] bool, cost so far (counts that the loop goes on
    updating), and step index.

    `confidence` [B, L]: probability of each token written at this step, 0 elsewhere; None unless `steps` was asked.
    """

    ids: Tensor
    changed: Tensor
    cost: Cost
    at: StepIndex
    confidence: Tensor | None
    before: Tensor
    """[B, L] ids before the step."""
    result: StepResult
    """The step itself, of the n rows that were still decoding."""


@dataclass(frozen=True)
class Decoded:
    """Generated ids [B, gen_length], their cost, and `useful` [B]: tokens before the first stop id (or EOS)."""

    ids: Tensor
    cost: Cost
    useful: Tensor

    @property
    def committed(self) -> Tensor:
        """[B] positions that the rule decided, each counted once: all but those filled after a stop id."""
        return self.ids.shape[1] - self.cost.filled
