"""Estimator `levels` of the all-subsets bound (repro.evals.likelihood.likelihood): all masked sets of the levels 1,
L - 1 and L, and a few distinct random sets of every level between (level: number of masked positions).

The levels 1, L - 1 and L take 2 L + 1 forward passes; they weigh most and have the fewest sets. The losses at their
positions also predict f(S) at the levels between, as h(S): the sum over the positions i in S of a value that is linear
in the level, from the loss at i with nothing else masked (level 1) to the loss at i with everything masked (level L).
The random sets estimate the mean of f(S) - h(S), and the mean of h(S) is known (h is a control variate). The estimate
is unbiased, and its standard error is that of a stratified sample (Cochran 1977, Sampling Techniques, ch. 5;
docs/method.md#statistics); sets of a level with at most 5,000 of them (MAX_ENUMERATED) are drawn without replacement.

Symbols: L tokens of the continuation, l of them masked (the level), f(S) the loss (-log p) of a masked set S summed
over its l tokens, n masked sets.
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
from repro.evals.likelihood.likelihood import Masked, SamplingDesign

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENUMERATED = 5000
"""Largest number of masked sets in a level that are enumerated, to be drawn without replacement. Of a level with more
sets each set is drawn independently; a repetition is then rare."""


@part
class Levels(Masked):
    """The all-subsets bound from at most `draws` masked sets of the L positions (level: number of masked positions).

    All sets are forwarded if there are at most `draws`; else all sets of the levels 1, L - 1 and L, and of each level
    between them an equal number (at least two) of distinct random sets. If `draws` is too small for that, neighbouring
    levels are joined to strata, and at least two random sets of each stratum and the one set of level L are forwarded.
    ValueError for draws < 3.
    """

    draws: int
    score_is = "bound"

    def __post_init__(self) -> None:
        if self.draws < 3:
            raise ValueError(
                f"estimator 'levels': draws={self.draws} gives no standard error; give 3 or more"
            )

    def max_forwards(self, length: int) -> int:
        return min(self.draws, 2**length - 1)

    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        if 2**length - 1 <= self.draws:
            return all_sets(length)
        ends = [1, length - 1, length] if 4 * length - 5 <= self.draws else [length]
        between = [level for level in range(1, length) if level not in ends]
        whole = torch.cat([level_sets(length, level) for level in ends])
        strata = _strata(between, self.draws - len(whole), length)
        keys = rng.fold(rng.keys(seed, rng.LIKELIHOOD, 0, row), torch.arange(len(strata)))
        drawn = [_draw(levels, count, length, key) for (levels, count), key in zip(strata, keys, strict=True)]
        masked = torch.cat([whole, *drawn])
        estimate = partial(_estimate, masked=masked, ends=ends, strata=strata)
        return SamplingDesign(masked, masked.sum(1) / length, estimate)


def _strata(levels: Sequence[int], draws: int, length: int) -> list[tuple[list[int], int]]:
    """(levels, number of draws) of each stratum: the numbers of masked positions `levels`, divided into strata of
    neighbouring ones (one level per stratum if `draws` allow two draws in each), and `draws` divided equally among the
    strata. A stratum whose sets of the L = `length` positions are drawn without replacement (`_enumerated`) gets no
    more draws than it has sets."""
    count = min(len(levels), draws // 2)
    if not count:
        return []
    bounds = [number * len(levels) // count for number in range(count + 1)]
    strata = [list(levels[a:b]) for a, b in pairwise(bounds)]
    shares = [draws // count + (number < draws % count) for number in range(count)]
    limits = [
        math.comb(length, stratum[0]) if _enumerated(stratum, length) else sys.maxsize for stratum in strata
    ]
    return [(stratum, min(pair)) for stratum, *pair in zip(strata, shares, limits, strict=True)]


def _enumerated(levels: Sequence[int], length: int) -> bool:
    """Whether the masked sets of a stratum are enumerated, to be drawn without replacement: it has one level l (the
    only element of `levels`), of C(L, l) <= 5,000 sets (MAX_ENUMERATED); L = `length`."""
    return len(levels) == 1 and math.comb(length, levels[0]) <= MAX_ENUMERATED


def _draw(levels: Sequence[int], count: int, length: int, key: Tensor) -> Tensor:
    """`count` random masked sets of the stratum with the numbers of masked positions `levels`, [count, L] bool, drawn
    with the random key `key`: distinct sets if the stratum's sets are enumerated (`_enumerated`), else independent
    sets, each of a random level out of `levels`; L = `length`."""
    if _enumerated(levels, length):
        sets = level_sets(length, levels[0])
        return sets[rng.uniform(key, len(sets)).argsort()[:count]]
    u = rng.uniform(rng.fold(key, -1), count)
    chosen = torch.tensor(levels)[(u * len(levels)).long()]
    return random_sets(rng.fold(key, torch.arange(count)), chosen, length)


def _estimate(
    losses: Tensor, *, masked: Tensor, ends: Sequence[int], strata: Sequence[tuple[list[int], int]]
) -> tuple[float, float, float | None]:
    """(log-likelihood bound in nats, its standard error, degrees of freedom or None) from n masked sets `masked` [n, L]
    bool and their `losses` [n, L] per position, in nats (0 where not masked).

    The bound is minus the sum over the levels l of the mean of f(S) / l over the sets S of the level, f(S) being the
    summed loss of S. Levels in `ends` are enumerated, so their mean is exact; their sets come first in `masked`. A
    stratum of `strata` (its levels, its number of draws) adds the mean of (f - h) / l over its draws, times its number
    of levels, and the known mean of h / l of each of its levels; h(S) predicts f(S) from the losses of the levels 1 and
    L (a control variate). If nothing is random, the error is 0 and the degrees of freedom are None; so they are if the
    loss of a set is infinite, since the bound then is minus infinity whichever sets are drawn."""
    length = masked.shape[1]
    total = losses.sum(1)
    if total.isposinf().any():
        return -math.inf, 0.0, None
    value = 0.0
    start = 0
    for end in ends:
        count = math.comb(length, end)
        value += float(total[start : start + count].mean()) / end
        start += count
    full = losses[start - 1]  # level L is the last of the end levels
    alone = losses[:length].diagonal() if 1 in ends else torch.zeros_like(full)
    level = masked.sum(1).double()
    line = alone + (level[:, None] - 1) / (length - 1) * (full - alone)
    residuals = (total - (line * masked).sum(1)) / level
    variances, freedoms = [], []
    for levels, count in strata:
        own = residuals[start : start + count] * len(levels)
        start += count
        mean_line = sum(float((alone + (k - 1) / (length - 1) * (full - alone)).mean()) for k in levels)
        value += float(own.mean()) + mean_line
        unseen = 1 - count / math.comb(length, levels[0]) if _enumerated(levels, length) else 1.0
        if unseen > 0:
            variances.append(float(own.var()) / count * unseen)
            freedoms.append(count - 1)
    variance = sum(variances)
    if variance == 0:
        return -value, 0.0, None
    # degrees of freedom of a sum of variances: Satterthwaite 1946, Welch 1947
    degrees = variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    return -value, math.sqrt(variance), degrees
