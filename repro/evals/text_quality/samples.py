"""Statistics of single samples, and naive samples for comparison: functions of token ids only (L ids per sample).

    entropy([3, 1, 3])                    unigram entropy of one sample, nats per token
    distinct([3, 1, 3, 1], 2)             number of different 2-grams divided by the number of its 2-grams
    repetition(row, period=8)             the first 8 ids of a row, repeated
    unigram(rows, keys)                   samples of ids drawn independently by their frequency in `rows`

Entropy is computed per sample, at most ln L, and then averaged (docs/method.md#metrics); computed over a batch it would
grow with the batch. `distinct` is Li et al.'s (arXiv 1510.03055), per sample for the same reason. The naive samples
show why one number is not enough: repetition has a low generative perplexity, unigram draws have a high entropy (arXiv
2606.08417).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Ids = Sequence[int]
Metric = tuple[float, float | None, int]
"""Value of a metric, its standard error (None for a single sample), and the number of samples."""


def entropy(ids: Ids) -> float:
    """Unigram entropy of one sample in nats: -sum over v of (n_v / L) ln(n_v / L), where id v occurs n_v times among
    its L ids. ValueError for an empty sample."""
    if len(ids) == 0:
        raise ValueError("an empty sample has no entropy; leave it out")
    counts = np.unique(np.asarray(ids), return_counts=True)[1]
    if len(counts) == 1:
        return 0.0
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def distinct(ids: Ids, n: int) -> float:
    """Number of different n-grams of one sample (its `ids`) divided by the number of all its n-grams; ValueError if the
    sample has no n-gram."""
    if n < 1 or len(ids) < n:
        raise ValueError(f"a sample of {len(ids)} ids has no {n}-grams; use n from 1 to {len(ids)}")
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams)


def mean(values: Sequence[float]) -> Metric:
    """(mean of `values`, one per independent sample; its standard error, None for one sample; number of samples)."""
    count = len(values)
    spread = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else None
    return float(np.mean(values)), spread, count


def repetition(row: Ids, period: int) -> list[int]:
    """A naive sample: the first `period` ids of `row`, repeated to the row's length; ValueError unless `period` is
    between 1 and this length."""
    if not 1 <= period <= len(row):
        raise ValueError(f"period={period} does not fit a row of {len(row)} ids; give 1 to {len(row)}")
    return [row[i % period] for i in range(len(row))]


def unigram(rows: np.ndarray, keys: Tensor) -> list[list[int]]:
    """Naive samples, n rows of L ids, each id drawn independently with its frequency in `rows` [m, L]; `keys` [n] are
    the random keys, one per sample."""
    ids, counts = np.unique(rows, return_counts=True)
    law = torch.from_numpy(counts.astype(np.float64))
    u = rng.uniform(keys, rows.shape[1]).flatten()
    drawn = rng.choose(law.expand(len(u), -1), u)
    return ids[drawn.numpy()].reshape(len(keys), -1).tolist()
