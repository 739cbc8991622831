"""Bootstrap resampling in numpy, with the random numbers of `repro.core.rng` (equal in every bit), but without torch.

    rows = resampled(256, 1000)                     # [1000, 256] row numbers: 1000 resamples of 256 rows
    low, high = band(data[rows].mean(1), 0.95)      # data: [256]

All evaluation records of equally many rows (samples or items) are resampled with the same row numbers: rows with the
same number were decoded with the same random numbers, so that differences between records are paired.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from repro.core.rng import RESAMPLE
from repro.core.stats import Interval

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """Hash of each number, uint64 -> uint64: the last mixing step (finaliser) of the generator SplitMix64 (Steele, Lea,
    Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _fold(keys: np.ndarray, value: np.ndarray) -> np.ndarray:
    return _mix((keys ^ _mix(value.astype(np.uint64) + _GOLDEN)) + _GOLDEN)


def uniform(purpose: int, rows: int, count: int) -> np.ndarray:
    """Uniform draws in (0, 1), float64 [rows, count]. `purpose`: a constant of `repro.core.rng`, such as RESAMPLE;
    draws of different purposes are independent. Equal to `rng.uniform(rng.keys(0, purpose, 0, range(rows)), count)`."""
    keys = np.zeros(rows, np.uint64)
    for value in (0, purpose, 0):
        keys = _fold(keys, np.full(rows, value))
    keys = _fold(keys, np.arange(rows))[:, None]
    hashed = _fold(np.broadcast_to(keys, (rows, count)), np.arange(count))
    return ((hashed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@lru_cache(maxsize=4)
def resampled(count: int, draws: int) -> np.ndarray:
    """`draws` bootstrap resamples of `count` rows, drawn with replacement: row numbers from 0 to count - 1,
    [draws, count] int64."""
    return (uniform(RESAMPLE, draws, count) * count).astype(np.int64)


def band(values: np.ndarray, level: float) -> Interval:
    """Percentile bootstrap interval of coverage `level` in (0, 1). `values`: the statistic on each resample, [draws]
    (Efron and Tibshirani 1993, section 13.3)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
