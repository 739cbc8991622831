"""Sources of a sampler's random draws: a random stream with keys, or a script of given outcomes.

Every draw of a sampler is `draw(probabilities, purpose, rows, positions, index)`. The random key of a draw is (seed,
purpose, decoding step, row, index, position) and not a count of calls, so the draw does not depend on the batch or on
skipped work. Other sources replay a decode (`repro.certify.replay`) or enumerate all its outcomes
(`repro.samplers.law`) through the same code.

Arguments of a draw: `purpose`, what is drawn (a constant of `repro.core.rng`); `index`, which separates draws with the
same purpose at the same position. Shapes: B rows of the batch, N draws, C possible outcomes of a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from repro.core import rng

Outcome = tuple[int, int, int]
"""(purpose, index, position): identifies a draw within one row and one decoding step."""
Name = tuple[int, ...]
"""Identifies a draw within one row: an `Outcome`, or the decoding step followed by an `Outcome`."""


class Draw(Protocol):
    """Interface of a source of random draws for one decoding step."""

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        """Categorical draws, [N] int64 from 0 to C - 1, from probabilities [N, C] float64.

        A draw is identified by its row (`rows` [N], indices in the batch), its position (`positions` [N]), `purpose`
        (what is drawn, a constant of `repro.core.rng`) and `index`, which separates draws that agree in the other
        three.
        """
        ...

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        """Uniform draws in (0, 1), [N] float64.

        A draw is identified by its row (`rows` [N], indices in the batch), its position (`positions` [N]), `purpose`
        (what is drawn, a constant of `repro.core.rng`) and `index`, which separates draws that agree in the other
        three.
        """
        ...

    def ahead(self, rows: Tensor, steps: Tensor) -> Draw:
        """The source of draws for a batch of n rows in which row i draws what row `rows[i]` of the present batch will
        draw `steps[i]` decoding steps later; both arguments [n] int64."""
        ...


class Stream:
    """Source of pseudo-random draws, each a function of `seed` and the key of the draw (see the module).

    `names` [B]: a number per row of the batch, part of the row's keys; rows with different numbers have independent
    draws. `step`: number of the decoding step, one for all rows or [B] one per row.
    """

    def __init__(self, seed: int, names: Tensor, step: int | Tensor) -> None:
        self.seed, self.names, self.step = seed, names, step

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        return rng.choose(probabilities, self.uniform(purpose, rows, positions, index))

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        step = self.step if isinstance(self.step, int) else self.step[rows]
        keys = rng.keys(self.seed, purpose, step, self.names[rows])
        return rng.uniform(rng.fold(rng.fold(keys, index), positions))

    def ahead(self, rows: Tensor, steps: Tensor) -> Stream:
        return Stream(self.seed, self.names[rows], self.step + steps)


class Unknown(Exception):
    """Raised by `Script` and `Intervals`, which replay given outcomes of draws (scripts), for draws whose outcomes the
    scripts do not determine.

    `names`: the draws; `rows`: for each draw, the index of its script; `choices`: for each draw, all entries by which
    the script can be extended (outcomes, or intervals of the uniform number), each with its conditional probability.
    """

    def __init__(
        self, names: Sequence[Name], rows: Sequence[int], choices: Sequence[Sequence[tuple[Any, float]]]
    ) -> None:
        super().__init__("draws without a scripted outcome")
        self.names, self.rows, self.choices = names, rows, choices


class Script:
    """Source of draws with fixed outcomes: `scripts[row]` maps each draw of a row to its outcome.

    Raises Unknown, with the draws concerned, where a script has no outcome.
    """

    def __init__(self, scripts: Sequence[dict[Name, Any]]) -> None:
        self.scripts = scripts

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        names: list[Outcome] = [(purpose, index, int(p)) for p in positions]
        known = [self.scripts[r].get(name) for r, name in zip(rows.tolist(), names, strict=True)]
        missing = [n for n, outcome in enumerate(known) if outcome is None]
        if missing:
            laws = [probabilities[n] / probabilities[n].sum() for n in missing]
            choices = [list(enumerate(law.tolist())) for law in laws]
            raise Unknown([names[n] for n in missing], [int(rows[n]) for n in missing], choices)
        return torch.tensor(known, dtype=torch.int64)

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        raise ValueError(
            "this sampler draws uniform numbers, whose outcomes cannot be listed; compute its exact distribution for a"
            " network that does not read the time, with which the sampler draws none"
        )

    def ahead(self, rows: Tensor, steps: Tensor) -> Draw:
        raise ValueError(
            "`Script` holds the draws of one step, and a sampler with lookahead needs later ones; use `Intervals`"
        )


class Intervals:
    """Source of draws by inverse CDF whose uniform numbers are known only up to an interval, by which a decoder's exact
    distribution is enumerated. A sampler with lookahead drafts the tokens of later steps, which then draw again with
    other probabilities but the same uniform number; an interval of this number gives the outcomes of both draws.

    Each entry of `scripts`, one for a branch of the enumeration, maps draws, named (step, purpose, index, position), to
    intervals (low, high) of the uniform number; a missing draw gets (0, 1). `rows` [n]: index in `scripts` of each row
    of the batch; `steps` [n]: decoding step of each row.

    Raises Unknown, with the draws concerned, where an interval leaves several outcomes possible.
    """

    def __init__(
        self, scripts: Sequence[dict[Name, tuple[float, float]]], rows: Tensor, steps: Tensor
    ) -> None:
        self.scripts, self.rows, self.steps = scripts, rows, steps

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        sources = self.rows[rows].tolist()
        steps = self.steps[rows].tolist()
        names = [(k, purpose, index, p) for k, p in zip(steps, positions.tolist(), strict=True)]
        ends = (probabilities.cumsum(-1) / probabilities.sum(-1, keepdim=True)).tolist()
        found = [
            _pieces(self.scripts[row].get(name, (0.0, 1.0)), each)
            for row, name, each in zip(sources, names, ends, strict=True)
        ]
        several = {(sources[n], names[n]): n for n, pieces in enumerate(found) if len(pieces) > 1}
        if several:
            choices = []
            for n in several.values():
                total = sum(high - low for _, low, high in found[n])
                choices.append([((low, high), (high - low) / total) for _, low, high in found[n]])
            raise Unknown([name for _, name in several], [row for row, _ in several], choices)
        return torch.tensor([pieces[0][0] for pieces in found], dtype=torch.int64)

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        raise ValueError(
            "a uniform number has no list of outcomes; enumerate a sampler that makes categorical draws only"
        )

    def ahead(self, rows: Tensor, steps: Tensor) -> Intervals:
        return Intervals(self.scripts, self.rows[rows], self.steps[rows] + steps)


def _pieces(interval: tuple[float, float], ends: Sequence[float]) -> list[tuple[int, float, float]]:
    """The outcomes of a draw whose uniform number lies in `interval`, each as (outcome, low, high) with the part of the
    interval that gives it; `ends`: cumulative probabilities of the outcomes. Parts no wider than `ROUNDING` are left
    out."""
    found, start = [], 0.0
    for outcome, end in enumerate(ends):
        low, high = max(interval[0], start), min(interval[1], end)
        if high - low > ROUNDING:
            found.append((outcome, low, high))
        start = end
    return found


ROUNDING = 1e-13
"""Intervals up to this wide come from rounding of the cumulative probabilities, and are left out."""
