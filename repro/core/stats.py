"""Intervals, tests and pooled standard deviations, used wherever a number is printed with an uncertainty.

    interval = prediction_interval(committed, *pooled_spread([committed, others]), level=0.99)
    adjusted = holm([0.001, 0.02, 0.3])

Symbols: n observations, sd sample standard deviation (divisor n - 1), `level` the coverage probability of an interval,
t Student's quantile. No function draws random numbers (docs/method.md#statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

NORMAL = 1.96
"""Half of a 95 % interval in standard errors, where a number is shown as value ± half."""


class Interval(NamedTuple):
    """Lower and upper end of an interval, in the unit of the data."""

    low: float
    high: float


def perplexity(nats: float) -> float:
    """exp of a mean negative log-likelihood in nats; ValueError where it is no finite number."""
    if not nats < 700:  # exp(710) is more than a float holds
        raise ValueError(
            f"a mean of {nats} nats has no finite perplexity; give a checkpoint whose weights fit the text"
        )
    return math.exp(nats)


def two_sided(level: float, degrees: float) -> float:
    """Quantile t of Student's distribution with P(|T| <= t) = level, for `degrees` >= 1 degrees of freedom."""
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level={level} is not strictly between 0 and 1 (for example 0.95)")
    if degrees < 1:
        raise ValueError(
            f"degrees={degrees} of freedom give no interval; give 1 or more (two observations have 1)"
        )
    return float(t.ppf((1 + level) / 2, degrees))


def mean_interval(values: Sequence[float], level: float) -> Interval:
    """Confidence interval, of coverage `level`, of the mean of the normal population from which `values` (two or
    more) are drawn: mean +- t sd / sqrt(n) (Student 1908)."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread; give two values or more")
    half = two_sided(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values) - half, fmean(values) + half)


def pooled_spread(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, assumed the same in all groups, and its degrees of freedom.

    sd^2 = sum over groups of (n_g - 1) sd_g^2 / sum of (n_g - 1); groups of one value are ignored. ValueError where
    every group has one value.
    """
    groups = [group for group in groups if len(group) >= 2]
    degrees = sum(len(group) - 1 for group in groups)
    if degrees == 0:
        raise ValueError("no group has two values, so there is no spread to pool; give two seeds or more")
    return math.sqrt(sum(_squares(group) for group in groups) / degrees), degrees


def _squares(values: Sequence[float]) -> float:
    """Sum of squared differences from the mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def prediction_interval(
    values: Sequence[float], spread: float, degrees: int, level: float, future: int = 1
) -> Interval:
    """Prediction interval of the mean of the next `future` observations, given n earlier ones, `values`: their mean
    +- t spread sqrt(1/n + 1/future).

    `level`: probability with which the interval holds the mean of the next ones; `spread`: standard deviation of one
    observation, with its `degrees` of freedom (`pooled_spread`). Source: Hahn and Meeker, Statistical Intervals (1991),
    section 4.
    """
    half = two_sided(level, degrees) * spread * math.sqrt(1 / len(values) + 1 / future)
    return Interval(fmean(values) - half, fmean(values) + half)


def prediction_t(values: Sequence[float], spread: float, observed: Sequence[float]) -> float:
    """Student's t of the test that `values` and `observed` are from the same normal population: mean of `observed`
    minus mean of `values`, divided by the standard error of this difference. `spread`: standard deviation of one
    observation; if it is 0, t is 0 or infinite."""
    error = spread * math.sqrt(1 / len(values) + 1 / len(observed))
    difference = fmean(observed) - fmean(values)
    if error == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / error


def prediction_p(values: Sequence[float], spread: float, degrees: int, observed: Sequence[float]) -> float:
    """Two-sided p-value of the test that `values` and `observed` are from the same normal population (`prediction_t`).
    `spread`: standard deviation of one observation, with its `degrees` of freedom. p is below 1 - level exactly where
    the mean of `observed` is outside the `prediction_interval` of coverage `level` for the mean of as many
    observations."""
    from scipy.stats import t

    return float(2 * t.sf(abs(prediction_t(values, spread, observed)), degrees))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's method, in the given order; reject those <= alpha for family-wise error alpha (Holm
    1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def wilson(share: float, n: int, level: float) -> Interval:
    """Confidence interval of coverage `level`, within [0, 1], of a proportion that was `share` among n independent
    trials (Wilson 1927)."""
    from scipy.stats import norm

    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"share={share} of n={n} is not a proportion; give 0 <= share <= 1 and n >= 1")
    z = float(norm.ppf((1 + level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(gained: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """(difference, half the width of its confidence interval of coverage `level`) for the shares of `n` items that two
    methods get right: share of the second minus share of the first. `gained` items are right only in the second, `lost`
    only in the first. Both numbers are Wald's, after half an item is added to each of the four counts (right in both,
    only in the first, only in the second, in neither; Agresti and Min, Statistics in Medicine 24, 2005, page 729), so
    that the width is positive even if no item differs."""
    from scipy.stats import norm

    b, c, total = gained + 0.5, lost + 0.5, n + 2
    difference = (b - c) / total
    error = math.sqrt(b + c - (b - c) ** 2 / total) / total
    return difference, float(norm.ppf((1 + level) / 2)) * error


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k draws of an item is right, from `c` right ones of `n` draws:
    1 - C(n - c, k) / C(n, k) (arXiv 2107.03374 eq. 1). ValueError unless 1 <= k <= n and 0 <= c <= n."""
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(
            f"no pass@{k} from {c} right ones of {n} draws; give k from 1 to {n} and 0 to {n} right ones"
        )
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def draws_differ(n: int, c: int) -> float:
    """Unbiased estimate of the probability that of two draws of an item one is right and one is wrong, when `c`
    of `n` draws were right: 2 c (n - c) / (n (n - 1)), the share of such pairs. ValueError unless n >= 2 and 0 <= c <=
    n."""
    if not (n >= 2 and 0 <= c <= n):
        raise ValueError(
            f"{n} draws, {c} of them right, form no pairs; give 2 draws or more and 0 to {n} right ones"
        )
    return 2 * c * (n - c) / (n * (n - 1))
