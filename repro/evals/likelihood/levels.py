"""`levels`: the all-subsets bound from its end levels exactly and a few different sets of every level between.

It spends 2 L + 1 forwards on the levels 1, L - 1 and L, the heaviest and the cheapest to list. Their per-position
losses also predict the levels between, h(S) = sum over i in S of a line from the loss with nothing else masked to that
with everything masked; what is drawn is f(S) - h(S), and the mean of h is known. Sets of one level are drawn without
replacement, so the standard error is that of a stratified sample (Cochran 1977, ch. 5), unbiased.

Symbols: L tokens of the continuation, l of them masked (the level), f(S) the summed loss of a masked set S.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.estimators import all_sets, level_sets, random_sets
from repro.evals.likelihood.likelihood import Design, Masked

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 5000
"""Sets of a level that are listed to be drawn without replacement; among more, a repetition is rare."""


@part
class Levels(Masked):
    """At most `draws` masked sets: all of them where that suffices; else the levels 1, L - 1 and L whole and, between,
    different sets in equal numbers (two at least) a level. Where `draws` do not reach that far, only level L whole, and
    two sets each from strata of neighbouring levels."""

    draws: int
    score_is = "bound"

    def __post_init__(self) -> None:
        if self.draws < 3:
            raise ValueError(f"draws={self.draws} gives no standard error; the smallest is 3")

    def most(self, length: int) -> int:
        return min(self.draws, 2**length - 1)

    def design(self, length: int, row: int, seed: int) -> Design:
        if 2**length - 1 <= self.draws:
            return all_sets(length)
        ends = [1, length - 1, length] if 4 * length - 5 <= self.draws else [length]
        between = [level for level in range(1, length) if level not in ends]
        whole = torch.cat([level_sets(length, level) for level in ends])
        strata = strata_of(between, self.draws - len(whole), length)
        keys = rng.fold(rng.keys(seed, rng.LIKELIHOOD, 0, row), torch.arange(len(strata)))
        drawn = [
            draw_sets(levels, count, length, key) for (levels, count), key in zip(strata, keys, strict=True)
        ]
        masked = torch.cat([whole, *drawn])
        weigh = partial(weigh_levels, masked=masked, ends=ends, strata=strata)
        return Design(masked, masked.sum(1) / length, weigh)


def strata_of(levels: Sequence[int], draws: int, length: int) -> list[tuple[list[int], int]]:
    """Neighbouring levels and the sets drawn from them: one level each where two draws each are to be had."""
    groups = neighbours(levels, min(len(levels), draws // 2))
    return list(zip(groups, shared(groups, draws, length), strict=True))


def neighbours(levels: Sequence[int], count: int) -> list[list[int]]:
    """Levels in `count` stretches of nearly equal length."""
    ends = [number * len(levels) // count for number in range(count + 1)] if count else [0]
    return [list(levels[a:b]) for a, b in pairwise(ends)]


def shared(strata: Sequence[Sequence[int]], draws: int, length: int) -> list[int]:
    """`draws` in equal shares, none larger than what its stratum lists."""
    if not strata:
        return []
    shares = [draws // len(strata) + (number < draws % len(strata)) for number in range(len(strata))]
    return [min(share, sets_in(mine, length)) for share, mine in zip(shares, strata, strict=True)]


def sets_in(levels: Sequence[int], length: int) -> int:
    """How many different sets can be drawn from a stratum; no limit where they are not listed."""
    return math.comb(length, levels[0]) if listed(levels, length) else sys.maxsize


def listed(levels: Sequence[int], length: int) -> bool:
    """Whether a stratum's sets are drawn without replacement."""
    return len(levels) == 1 and math.comb(length, levels[0]) <= LISTED


def draw_sets(levels: Sequence[int], count: int, length: int, key: Tensor) -> Tensor:
    """`count` sets of a stratum, [count, L]: different ones of a single level, else a level and a set at a time."""
    if listed(levels, length):
        every = level_sets(length, levels[0])
        return every[rng.uniform(key, len(every)).argsort()[:count]]
    u = rng.uniform(rng.fold(key, -1), count)
    chosen = torch.tensor(levels)[(u * len(levels)).long()]
    return random_sets(rng.fold(key, torch.arange(count)), chosen, length)


def lines(whole: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Ends [L] of the line of each position: its loss with nothing else masked (0 where level 1 was not forwarded), and
    with everything masked; `whole` are the losses of the end levels."""
    full = whole[-1]  # level L stands last
    alone = whole[: len(full)].diagonal() if 1 in ends else torch.zeros_like(full)
    return alone, full


def residuals(losses: Tensor, masked: Tensor, alone: Tensor, full: Tensor) -> Tensor:
    """(f - h) / l of each masked set, [n]."""
    level = masked.sum(1).double()
    line = alone + (level[:, None] - 1) / (masked.shape[1] - 1) * (full - alone)
    return (losses.sum(1) - (line * masked).sum(1)) / level


def weigh_levels(
    losses: Tensor, *, masked: Tensor, ends: Sequence[int], strata: Sequence[tuple[list[int], int]]
) -> tuple[float, float, float | None]:
    """Sum over levels of mean f / l: end levels as they are, strata by their mean of f - h and the known mean of h."""
    length = masked.shape[1]
    total = losses.sum(1)
    found = 0.0
    start = 0
    for end in ends:
        count = math.comb(length, end)
        found += float(total[start : start + count].mean()) / end
        start += count
    alone, full = lines(losses[:start], ends)
    rest = residuals(losses, masked, alone, full)
    variances, freedoms = [], []
    for levels, count in strata:
        mine = rest[start : start + count] * len(levels)
        start += count
        mean_line = sum(float((alone + (k - 1) / (length - 1) * (full - alone)).mean()) for k in levels)
        found += float(mine.mean()) + mean_line
        left = 1 - count / math.comb(length, levels[0]) if listed(levels, length) else 1.0
        if left > 0:
            variances.append(float(mine.var()) / count * left)
            freedoms.append(count - 1)
    variance = sum(variances)
    if variance == 0:
        return -found, 0.0, None
    # Welch (1947), Satterthwaite (1946)
    degrees = variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    return -found, math.sqrt(variance), degrees
