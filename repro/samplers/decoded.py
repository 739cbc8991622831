"""The results of the decoding loop: step index, cost, the batch after each step (a frame), and the final ids.

Shapes: B rows of the batch, n rows still decoding, L columns (left padding, prompt, generated tokens), M numbers per
row that a sampler remembers between steps.
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
    """Index of a decoding step: block number and step number within the block, both from 0, and steps per block."""

    block: int
    step: int
    steps: int


@dataclass
class Cost:
    """Cost of decoding each of the B rows of a batch: int64 counts, [B] each.

    `forwards`: forward passes; `rounds`: sequential forward passes (several states of a row that pass in one batch
    count once); `further`: forward passes beyond the first of a step (guidance, correction); `refreshes`: forward
    passes that recomputed the whole KV cache; `token_forwards`: tokens passed through the network, summed over forward
    passes (padding is not counted, so that a row's cost does not depend on the batch); `writes`: tokens written,
    rewritten ones again; `filled`: positions after a stop id that were filled with it because they were undecided.
    """

    forwards: Tensor
    rounds: Tensor
    further: Tensor
    refreshes: Tensor
    token_forwards: Tensor
    writes: Tensor
    filled: Tensor

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> Cost:
        """The cost of `rows` rows before decoding: all counts are 0."""
        return cls(*(torch.zeros(rows, dtype=torch.int64, device=device) for _ in fields(cls)))

    @classmethod
    def of(cls, predictions: Sequence[Prediction], writes: Tensor) -> Cost:
        """The cost of one step for n rows. `predictions`: the network's predictions in this step, in order, each for
        the n rows or for m states (versions of the ids) of each row, [m n]; `writes` [n]: number of tokens that the
        step wrote."""
        cost, n = cls.empty(len(writes), writes.device), len(writes)
        for number, made in enumerate(predictions):
            forwards = made.forwarded.view(-1, n).sum(0)
            cost.forwards += forwards
            cost.rounds += forwards > 0
            cost.further += forwards if number else 0
            cost.refreshes += made.refreshed.view(-1, n).sum(0)
            cost.token_forwards += made.token_forwards().view(-1, n).sum(0)
        cost.writes += writes
        return cost

    def add(self, other: Cost, rows: Tensor) -> None:
        """Add `other`, the cost of one step for n rows, to the counts of these rows, in place; `rows` [n]: their
        indices in the batch."""
        for field in fields(self):
            getattr(self, field.name)[rows] += getattr(other, field.name)


class StepResult(NamedTuple):
    """Result of one step for n rows: ids [n, L], the sampler's memory [n, M] (None: it has none), the cost of the step,
    the network's predictions in the step, in order, and the time t at which the step begins, [n]."""

    ids: Tensor
    memory: Tensor | None
    cost: Cost
    predictions: Sequence[Prediction]
    t: Tensor

    @property
    def prediction(self) -> Prediction:
        """The network's first prediction in the step."""
        return self.predictions[0]


@dataclass(frozen=True)
class Frame:
    """The whole batch after a step, for B rows and L columns.

    `ids` [B, L]; `changed` [B, L] bool, positions that the sampler changed in this step; `filled` [B, L] bool,
    positions after a stop id that were filled with it, as the row ended with this step; `cost` so far (the loop
    updates these counts in place, so copy what must last); `at`, the step's index; `confidence` [B, L] float64,
    probability of each token written at this step, 0 elsewhere (None unless `repro.samplers.decode.steps` has
    confidence=True).
    """

    ids: Tensor
    changed: Tensor
    filled: Tensor
    cost: Cost
    at: StepIndex
    confidence: Tensor | None
    before: Tensor
    """Ids before the step, [B, L]."""
    result: StepResult
    """Result of the step for the rows that were still decoding when it began."""


@dataclass(frozen=True)
class Decoded:
    """Generated ids [B, gen_length] of B rows, the cost of decoding them, and `useful` [B]: number of tokens before the
    first stop id of the plan (before the first EOS if the plan has none)."""

    ids: Tensor
    cost: Cost
    useful: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Decoded]) -> Decoded:
        """The rows of several results, all of one gen_length, one result after the other."""
        ids, useful = torch.cat([part.ids for part in parts]), torch.cat([part.useful for part in parts])
        counts = (torch.cat([getattr(part.cost, count.name) for part in parts]) for count in fields(Cost))
        return cls(ids, Cost(*counts), useful)

    def rows(self, some: slice | Tensor) -> Decoded:
        """The result for the rows `some` alone: a slice, or indices [n], in whose order the rows then are."""
        counts = (getattr(self.cost, count.name)[some] for count in fields(Cost))
        return Decoded(self.ids[some], Cost(*counts), self.useful[some])

    @property
    def committed(self) -> Tensor:
        """Number of generated positions of each row, [B], without positions filled after a stop id; a position counts
        once, however often its token was rewritten."""
        return self.ids.shape[1] - self.cost.filled
