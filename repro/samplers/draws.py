"""Sources of a sampler's random draws: a keyed stream, or a script of given outcomes.

Every draw of a sampler is `draw(probabilities, purpose, rows, positions, index)`. Its key is (seed, purpose, decode
step, row, index, position) and not a count of calls, so it does not depend on the batch or on skipped work. Other
sources replay a decode (`repro.certify.replay`) or enumerate its law (`repro.samplers.law`) through the same code.

Shapes: B rows, N draws, C outcomes of a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from repro.core import rng

Outcome = tuple[int, int, int]
"""(purpose, index, position): identifies a draw within a row and a step."""


class Draw(Protocol):
    """A source of draws within one step."""

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        """Outcomes [N] of probabilities [N, C] float64, for rows [N] (indices in the batch) and positions [N]."""
        ...

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        """Uniform draws in (0, 1) for rows [N] and positions [N]: [N] float64."""
        ...


class Stream:
    """The keyed random stream of `seed`; `names` [B]: each row's number in that stream; `step`: decode step."""

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
    """Draws without an outcome in the script: their identities, rows and probabilities [N, C]."""

    def __init__(self, names: Sequence[Outcome], rows: Sequence[int], probabilities: Tensor) -> None:
        super().__init__("draws without a scripted outcome")
        self.names, self.rows, self.probabilities = names, rows, probabilities


class Script:
    """Draws given by a script of outcomes for each row; raises Unknown where outcomes are missing."""

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
            "a uniform draw has no outcomes to enumerate; the law of this rule exists only for networks without time"
        )
