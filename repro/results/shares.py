"""Which metrics are shares (proportions) of items that are each right or wrong, and the 95 % interval of a metric.

Intervals of shares are Wilson's (docs/method.md#statistics): a share of 1 or of a few items has no useful standard
error."""

from __future__ import annotations

import math
import re

from repro.core.stats import NORMAL, wilson
from repro.results.record import Metric

LEVEL = 0.95

NAMES = frozenset({"acc", "acc_norm", "accuracy", "exact_match", "pass@1", "pass_at_1"})
"""Metrics that are shares whatever their standard error is; names without lm-eval's filter (`stem`)."""
OTHER_UNITS = re.compile(r"loss|draws_error|\w+_clusterings")
"""Metrics whose `n` is no number of items: logged steps of training, passes of a bound, clusterings of MAUVE."""
ROUNDING = 1e-6
"""Relative size of what may be due to rounding: a difference of two standard errors, an interval beside its value."""


def stem(metric: str) -> str:
    """Name of a metric without the filter of lm-eval, which follows a full stop in our records and a comma in
    lm-eval's: `exact_match.strict-match` -> `exact_match`."""
    return re.split("[.,]", metric, maxsplit=1)[0]


def counts_items(metric: str) -> bool:
    """Whether the `n` of this metric is a number of items."""
    return OTHER_UNITS.fullmatch(stem(metric)) is None


def is_share(metric: str, value: float, se: float | None, n: int) -> bool:
    """Whether a metric with this value and standard error (None or NaN: unknown) over n items is a share.

    It is one by its name, or if its standard error is sqrt(value (1 - value) / (n - 1)): of all values between 0 and 1
    with that mean, only those that are all 0 or 1 vary as much.
    """
    if not 0 <= value <= 1 or n < 1:
        return False
    if stem(metric) in NAMES:
        return True
    if se is None or n < 2 or value in (0, 1):
        return False
    return math.isclose(se, math.sqrt(value * (1 - value) / (n - 1)), rel_tol=ROUNDING)


def interval(name: str, metric: Metric) -> tuple[float, float] | None:
    """Lower and upper end of the 95 % interval of metric `name`; None if its standard error is unknown, or so small
    that it may be mere rounding: then all items are equal, and their spread is unknown."""
    value, error = metric.value, metric.se
    if is_share(name, value, error, metric.n):
        return wilson(value, metric.n, LEVEL)
    if error is None or NORMAL * error <= max(5e-9, ROUNDING * abs(value)):
        return None
    return value - NORMAL * error, value + NORMAL * error


def shown(name: str, metric: Metric) -> str:
    """Text of the metric `name` with its 95 % interval, `0.40 ± 0.11`, or `0.950 [0.887, 0.978]` for a share of
    items. The half-width of the interval has two significant digits; without an interval the value has four."""
    value, ends = metric.value, interval(name, metric)
    if ends is None:
        return f"{value:.4g}"
    half = (ends[1] - ends[0]) / 2
    digits = min(8, max(0, 1 - math.floor(math.log10(half))))
    if is_share(name, value, metric.se, metric.n):
        return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return f"{value:.{digits}f} ± {half:.{digits}f}"
