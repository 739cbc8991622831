"""Intervals have their stated coverage; pooling, Holm and Wilson agree with values computed by hand."""

import itertools
import math
import random
from statistics import fmean

import pytest

from repro.core.stats import (
    draws_differ,
    holm,
    mean_interval,
    paired_difference,
    pass_at_k,
    perplexity,
    pooled_spread,
    prediction_interval,
    prediction_p,
    wilson,
)


def test_prediction_interval_has_its_stated_coverage():
    """Groups with different means and the same spread; coverage of the mean of `future` new observations."""
    draw = random.Random(0)
    for future, level in ((1, 0.9), (3, 0.95)):
        inside, trials = 0, 3000
        for _ in range(trials):
            groups = [[draw.gauss(centre, 0.3) for _ in range(5)] for centre in (0.0, 10.0, -4.0)]
            spread, degrees = pooled_spread(groups)
            low, high = prediction_interval(groups[0], spread, degrees, level, future)
            inside += low <= fmean(draw.gauss(0.0, 0.3) for _ in range(future)) <= high
        noise = math.sqrt(level * (1 - level) / trials)
        assert abs(inside / trials - level) < 3.5 * noise, (future, inside / trials)


def test_p_value_and_prediction_interval_agree():
    values, spread, degrees = [1.0, 2.0, 3.0], 0.7, 8
    _, high = prediction_interval(values, spread, degrees, 0.95, 2)
    assert prediction_p(values, spread, degrees, [high, high]) == pytest.approx(0.05)
    assert prediction_p(values, spread, degrees, [2.0]) == 1.0
    assert prediction_p([1.0, 1.0], 0.0, 1, [1.1]) == 0.0


def test_pooling_weighs_groups_by_their_degrees_of_freedom():
    """(2 * 1 + 1 * 8) / 3 = 10 / 3; a single value has no spread."""
    assert pooled_spread([[1, 2, 3], [0, 4], [99]]) == (pytest.approx(math.sqrt(10 / 3)), 3)
    with pytest.raises(ValueError, match="no group has two values"):
        pooled_spread([[1.0], [2.0]])


def test_holm_steps_down_and_keeps_the_given_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_student_interval_of_a_known_sample():
    """Mean 3, sd sqrt(2.5), t(4, .975) = 2.776445."""
    low, high = mean_interval([1, 2, 3, 4, 5], 0.95)
    assert (low + high) / 2 == pytest.approx(3) and (high - low) / 2 == pytest.approx(
        2.776445 * math.sqrt(0.5)
    )
    with pytest.raises(ValueError, match="1 values have no spread"):
        mean_interval([1.0], 0.95)
    with pytest.raises(ValueError, match="level=95"):
        mean_interval([1.0, 2.0], 95)


def test_wilson_matches_a_worked_example_and_stays_a_proportion():
    """8 of 10 at 95 %: .490 to .943 (Agresti and Coull 1998 give the formula; z = 1.959964)."""
    assert wilson(0.8, 10, 0.95) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert wilson(1.0, 500, 0.95).high == 1.0 and wilson(0.0, 500, 0.95).low == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"share=1\.2"):
        wilson(1.2, 10, 0.95)


def test_a_perplexity_is_finite():
    assert perplexity(0.0) == 1.0 and perplexity(2.0) == pytest.approx(7.389056098930650)
    for nats in (701.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"a mean of {nats} nats has no finite perplexity"):
            perplexity(nats)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_draw():
    """Literally: all subsets of k of 5 draws, and all pairs of draws."""
    for c in range(6):
        right = [i < c for i in range(5)]
        for k in range(1, 6):
            subsets = [any(each) for each in itertools.combinations(right, k)]
            assert pass_at_k(5, c, k) == pytest.approx(fmean(subsets))
        assert draws_differ(5, c) == pytest.approx(fmean(a != b for a, b in itertools.combinations(right, 2)))


def test_pass_at_k_and_flips_refuse_impossible_counts():
    for n, c, k in ((4, 2, 5), (4, 5, 1), (4, -1, 1), (4, 2, 0)):
        with pytest.raises(ValueError, match="draws; give k from 1 to 4"):
            pass_at_k(n, c, k)
    for n, c in ((1, 0), (4, 5), (4, -1)):
        with pytest.raises(ValueError, match="form no pairs"):
            draws_differ(n, c)


def test_the_interval_of_paired_differences():
    """Agresti and Min 2005: (b + .5 - c - .5) / (n + 2), Wald."""
    difference, half = paired_difference(5, 1, 98, 0.9)
    assert difference == pytest.approx(0.04)
    assert half == pytest.approx(1.6448536 * (7 - 16 / 100) ** 0.5 / 100)
