"""Where a sampler's randomness comes from: a keyed stream, an enumeration of all outcomes, or a replay.

Every draw of a sampler is `draw(probabilities, purpose, rows, positions, index)`; its key is (seed, purpose, decode
step, row, index, position), never a count of calls, so neither the batch nor skipped work can shift it. Replacing the
handler replays a decode or enumerates its exact law through the very same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from repro.core import rng

Outcome = tuple[int, int, int]
"""(purpose, index, position): names a draw within a row and a step."""


class Draw(Protocol):
    """A handler of draws within one step."""

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        """Probabilities [N, C] float64 for rows [N] (indices in the batch) and positions [N] -> outcomes [N]."""
        ...

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        """Uniform float64 in (0, 1) for rows [N] and positions [N]: [N]."""
        ...


class Stream:
    """Draws by the suite's stream: `names` [B] are the rows' numbers in the global stream."""

    def __init__(self, seed: int, names: Tensor, step: int) -> None:
        self.seed, self.names, self.step = seed, names, step

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        return rng.choose(probabilities, self.uniform(purpose, rows, positions, index))

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        keys = rng.keys(self.seed, purpose, self.step, self.names[rows])
        return rng.uniform(rng.fold(rng.fold(keys, index), positions))


class Unknown(Exception):
    """An enumeration met draws whose outcomes are not fixed yet: their names, rows and probabilities."""

    def __init__(self, names: Sequence[Outcome], rows: Sequence[int], probabilities: Tensor) -> None:
        super().__init__("draws to enumerate")
        self.names, self.rows, self.probabilities = names, rows, probabilities


class Script:
    """Draws read from a script of outcomes a row; the first call with one missing raises Unknown."""

    def __init__(self, scripts: Sequence[dict[Outcome, int]]) -> None:
        self.scripts = scripts

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        names = [(purpose, index, int(p)) for p in positions]
        known = [self.scripts[r].get(name) for r, name in zip(rows.tolist(), names, strict=True)]
        missing = [n for n, outcome in enumerate(known) if outcome is None]
        if missing:
            raise Unknown(
                [names[n] for n in missing], [int(rows[n]) for n in missing], probabilities[missing]
            )
        return torch.tensor(known, dtype=torch.int64)

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        raise ValueError(
            "a uniform draw has no outcomes to enumerate; this rule's law is listed for networks without time only"
        )
