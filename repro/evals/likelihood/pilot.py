"""`pilot`: as `levels`, but pilot draws decide how many sets each level gets, and fresh draws alone score.

A few sets a stratum are forwarded first; the spread of their residuals (f - h) / l says which levels need more draws
(Neyman 1934). What they say of the sum itself is thrown away: given any allocation the fresh draws are an unbiased
stratified sample with a standard error of its own, and that holds of an allocation drawn independently of them.
Scoring the pilot draws too would bias the sum, since a stratum that looked tame gets few draws to contradict it.

Symbols: L tokens of the continuation, l of them masked (the level), f(S) the summed loss of a masked set S, h its line
(`repro.evals.likelihood.levels`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.estimators import level_sets
from repro.evals.likelihood.levels import (
    draw_sets,
    lines,
    neighbours,
    residuals,
    sets_in,
    shared,
    weigh_levels,
)
from repro.evals.likelihood.likelihood import Design, Estimator, Likelihood, Request, by_length, losses_of
from repro.evals.likelihood.network import Network

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 2
"""Draws that give a stratum a variance."""


@dataclass(frozen=True)
class Begun:
    """What is forwarded first: the levels `ends` whole, `sets` [w, L], then `pilot` sets [p, L] a stratum of levels."""

    ends: list[int]
    sets: Tensor
    strata: list[list[int]]
    pilot: list[Tensor]

    @property
    def masked(self) -> Tensor:
        return torch.cat([self.sets, *self.pilot])

    @property
    def design(self) -> Design:
        """To be forwarded, not to be weighed."""
        masked = self.masked
        return Design(masked, masked.sum(1) / masked.shape[1], _unweighed)

    def spreads(self, losses: Tensor) -> list[float]:
        """Standard deviation of what each stratum adds to the sum, from `losses` [n, L] of `masked`.

        A variance of few draws is a guess: it counts as much as the mean of all strata, and is rounded to a power of
        two, so that last digits (another batch size) do not move an allocation.
        """
        alone, full = lines(losses[: len(self.sets)], self.ends)
        rest = residuals(losses, self.masked, alone, full)[len(self.sets) :]
        each = rest.split([len(sets) for sets in self.pilot])
        variances = [float((mine * len(s)).var()) for mine, s in zip(each, self.strata, strict=True)]
        mean = fmean(variances) if variances else 0.0
        if mean == 0:
            return [0.0] * len(variances)
        return [2 ** (round(math.log2((own + mean) / 2)) / 2) for own in variances]


def _unweighed(losses: Tensor) -> tuple[float, None, None]:
    raise AssertionError("pilot draws are not scored")


def _drawn(strata: Sequence[list[int]], counts: Sequence[int], length: int, key: Tensor) -> list[Tensor]:
    """Sets of each stratum, its own key each."""
    each = zip(strata, counts, rng.fold(key, torch.arange(len(strata))), strict=True)
    return [draw_sets(levels, count, length, own) for levels, count, own in each]


def allocate(spreads: Sequence[float], draws: int, most: Sequence[int]) -> list[int]:
    """Draws a stratum that make the summed variance s^2 / n smallest: FEWEST each, the rest one by one where it falls
    most (Fox 1966; Neyman 1934 in whole numbers), never more than `most`."""
    counts = [min(FEWEST, limit) for limit in most]
    queue = [
        (-_gain(s, n), n, place)
        for place, (s, n) in enumerate(zip(spreads, counts, strict=True))
        if n < most[place]
    ]
    heapq.heapify(queue)
    for _ in range(draws - sum(counts)):
        if not queue:
            break
        _, count, place = heapq.heappop(queue)
        counts[place] = count + 1
        if count + 1 < most[place]:
            heapq.heappush(queue, (-_gain(spreads[place], count + 1), count + 1, place))
    return counts


def _gain(spread: float, count: int) -> float:
    """By how much one draw more lowers s^2 / n."""
    return spread**2 / (count * (count + 1))


@part
class PilotedLevels(Estimator):
    """At most `draws` masked sets, `pilot` of them to allocate the rest; all sets where that suffices.

    The levels 1, L - 1 and L are forwarded whole where `pilot` and fresh sets then still give two a level between;
    else level L alone, and strata of neighbouring levels.
    """

    draws: int
    pilot: int
    processes = frozenset({"absorbing"})
    score_is = "bound"

    def __post_init__(self) -> None:
        least = self.pilot + FEWEST + 1
        if self.pilot < FEWEST:
            raise ValueError(f"pilot={self.pilot} tells no spread; the smallest is {FEWEST}")
        if self.draws < least:
            raise ValueError(
                f"draws={self.draws} leave no two fresh sets behind the pilot; take {least} or more"
            )

    def most(self, length: int) -> int:
        return min(self.draws, 2**length - 1)

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        found: dict[int, Likelihood] = {}
        for some in by_length(requests, lambda request: self.most(len(request.continuation))):
            chosen = [requests[index] for index in some]
            begun = [self._begin(len(request.continuation), request.row, seed) for request in chosen]
            told = losses_of(network, chosen, [each.design for each in begun])
            rest = [
                self._finish(*each, request.row, seed)
                for each, request in zip(zip(begun, told, strict=True), chosen, strict=True)
            ]
            fresh = losses_of(network, chosen, rest)
            for place, index in enumerate(some):
                first, second = begun[place], rest[place]
                kept = torch.cat([told[place][: len(first.sets)], fresh[place]])
                forwards = network.distinct(first.design) + network.distinct(second)
                found[index] = Likelihood(*second.weigh(kept), forwards)
        return [found[index] for index in range(len(requests))]

    def _begin(self, length: int, row: int, seed: int) -> Begun:
        """The end levels and the pilot sets of a continuation; all levels are ends where all sets are to be had."""
        least = FEWEST * (length - 3)
        if 2**length - 1 <= self.draws:
            ends = list(range(1, length + 1))
        elif self.pilot >= least and 2 * length + 1 + self.pilot + least <= self.draws:
            ends = [1, length - 1, length]
        else:
            ends = [length]
        sets = torch.cat([level_sets(length, level) for level in ends])
        between = [level for level in range(1, length) if level not in ends]
        fresh = self.draws - len(sets) - self.pilot
        strata = neighbours(between, min(len(between), self.pilot // FEWEST, fresh // FEWEST))
        counts = shared(strata, self.pilot, length)
        return Begun(ends, sets, strata, _drawn(strata, counts, length, rng.keys(seed, rng.PILOT, 0, row)))

    def _finish(self, begun: Begun, told: Tensor, row: int, seed: int) -> Design:
        """The fresh sets, as many a stratum as the pilot's losses [n, L] say; their `weigh` takes those of the end
        levels in front."""
        length = told.shape[1]
        counts = allocate(
            begun.spreads(told), self.draws - len(told), [sets_in(s, length) for s in begun.strata]
        )
        sets = torch.cat(
            [begun.sets[:0], *_drawn(begun.strata, counts, length, rng.keys(seed, rng.LIKELIHOOD, 0, row))]
        )
        weigh = partial(
            weigh_levels,
            masked=torch.cat([begun.sets, sets]),
            ends=begun.ends,
            strata=list(zip(begun.strata, counts, strict=True)),
        )
        return Design(sets, sets.sum(1) / length, weigh)
