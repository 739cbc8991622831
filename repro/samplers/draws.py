"""Sources of a sampler's random draws: a random stream with keys, or a script of given outcomes.

Every draw of a sampler is `draw(probabilities, purpose, rows, positions, index)`. Its random key is (seed, purpose,
decode step, row, index, position) and not a count of calls, so it does not depend on the batch or on skipped work.
Other sources replay a decode (`repro.certify.replay`) or enumerate all its outcomes (`repro.samplers.law`) through the
same code.

Arguments of a draw: `purpose`, what is drawn (a constant of `repro.core.rng`); `index`, which separates draws with the
same purpose at the same position. Shapes: B rows of the batch, N draws, C possible outcomes of a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from repro.core import rng

Outcome = tuple[int, int, int]
"""(purpose, index, position): identifies a draw within one row and one decoding step."""


class Draw(Protocol):
    """Interface of a source of random draws for one decoding step."""

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        """Categorical draws, [N] int64 from 0 to C - 1, from probabilities [N, C] float64.

        `rows` [N] (indices in the batch), `positions` [N], `purpose` and `index` identify each draw.
        """
        ...

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        """Uniform draws in (0, 1), [N] float64.

        `rows` [N] (indices in the batch), `positions` [N], `purpose` and `index` identify each draw.
        """
        ...


class Stream:
    """Source of pseudo-random draws, each a function of `seed` and its key.

    `names` [B]: a number per row of the batch, part of the row's keys; rows with different numbers have independent
    draws. `step`: number of the decoding step.
    """

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
    """Raised by `Script` for N draws that have no scripted outcome.

    `names`: which draws they are; `rows`: their rows in the batch; `probabilities`: of their outcomes, [N, C].
    """

    def __init__(self, names: Sequence[Outcome], rows: Sequence[int], probabilities: Tensor) -> None:
        super().__init__("draws without a scripted outcome")
        self.names, self.rows, self.probabilities = names, rows, probabilities


class Script:
    """Source of draws with fixed outcomes: `scripts[row]` maps each draw of a row to its outcome.

    Raises Unknown, with the draws concerned, where a script has no outcome.
    """

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
            "this sampler draws uniform numbers, which have no outcomes to enumerate; its exact distribution"
            " can only be computed for a network that does not read the time"
        )
