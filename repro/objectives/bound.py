"""The held-out bound in nats per token, with its standard error; the same estimator in training and in evaluation.

Each row gets `passes` independent draws of (t, corruption); within a pass the times are stratified over the rows in a
random order. The estimate is sum(nll) / sum(tokens). Its standard error treats clusters (documents) as the independent
units. That covers sampling of the data and Monte Carlo error together, and is slightly too large, because
stratification only reduces the error. Autoregression needs no draws: its one pass is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from repro.core import rng
from repro.data.corpus import Rows, Vocabulary
from repro.models.attention import Mask
from repro.models.denoiser import Denoiser, ForwardWrapper
from repro.models.prediction import Prediction
from repro.processes.process import Process, diffusion

if TYPE_CHECKING:
    from repro.processes.prediction import Predict

BATCH = 256
"""Rows of one forward; the result does not depend on it."""
FILLER = 2
"""Fold of a row's key from which its filler is corrupted; the processes use folds 0 and 1."""


@dataclass(frozen=True)
class Bound:
    """Nats of each row, `nll` [n] (mean over passes), its number of scored `tokens` [n] and its `cluster` [n], and the
    nats of all rows together in each pass, `by_pass`."""

    nll: np.ndarray
    tokens: np.ndarray
    cluster: np.ndarray
    by_pass: np.ndarray

    @property
    def value(self) -> float:
        """Nats per token."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def error(self) -> float:
        """Standard error of `value`."""
        return ratio_error(self.nll, self.tokens, self.cluster)

    @property
    def drawn_error(self) -> float | None:
        """The part of `error` that more passes would reduce, from the spread of the passes (None for a single pass)."""
        passes = len(self.by_pass)
        if passes < 2:
            return None
        return float(self.by_pass.std(ddof=1) / np.sqrt(passes) / self.tokens.sum())

    def gap(self, exact: np.ndarray) -> tuple[float, float]:
        """Bound minus the `exact` nll [n] of the same rows in nats per token, and its paired standard error."""
        difference = self.nll - exact
        return float(difference.sum() / self.tokens.sum()), ratio_error(difference, self.tokens, self.cluster)


def ratio_error(total: np.ndarray, tokens: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of sum(total)/sum(tokens) over independent clusters, by linearisation (NaN for one cluster)."""
    _, group = np.unique(cluster, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return float("nan")
    residual = total - total.sum() / tokens.sum() * tokens
    sums = np.bincount(group, weights=residual, minlength=count)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / tokens.sum())


def attention_of(ids: Tensor, vocabulary: Vocabulary) -> Mask:
    """The mask that hides positions with the pad id, if the vocabulary has one."""
    return Mask(None if vocabulary.pad is None else ids != vocabulary.pad)


def reading(
    denoiser: Denoiser,
    process: Process,
    ids: Tensor,
    candidates: Tensor,
    vocabulary: Vocabulary,
    keys: Tensor,
) -> Predict:
    """A function that runs the network on noisy rows of clean `ids` [B, L].

    Filler, the padding that the vocabulary treats as text, is corrupted too, at the rows' times but with keys of its
    own.
    """
    filler = None if vocabulary.filler is None else ids == vocabulary.filler
    attention = attention_of(ids, vocabulary)

    def predict(noisy: Tensor, t: Tensor) -> Prediction:
        if filler is not None and not process.causal:
            time = diffusion(process).filler_time(t, candidates, keys)
            noisy = diffusion(process).corrupt(noisy, time, rng.fold(keys, FILLER), filler, vocabulary)
        return Prediction(denoiser, noisy, t, attention)

    return predict


def heldout_bound(
    network: ForwardWrapper,
    process: Process,
    vocabulary: Vocabulary,
    rows: Rows,
    *,
    passes: int,
    seed: int,
    batch: int = BATCH,
) -> Bound:
    """The bound on all of `rows`, `batch` rows a forward."""
    everything = slice(0, len(rows))
    nll = row_nll(network, process, vocabulary, rows, everything, passes=passes, seed=seed, batch=batch)
    return bound_of(rows, nll)


def bound_of(rows: Rows, nll: np.ndarray) -> Bound:
    """The bound on rows from their nats in each pass [passes, n]."""
    mean = np.zeros(nll.shape[1])
    for each in nll:
        mean += each / len(nll)
    tokens = np.asarray(rows.candidates).sum(1).astype(np.int64)
    return Bound(mean, tokens, np.asarray(rows.example), nll.sum(1))


def row_nll(
    network: ForwardWrapper,
    process: Process,
    vocabulary: Vocabulary,
    rows: Rows,
    some: slice,
    *,
    passes: int,
    seed: int,
    batch: int,
) -> np.ndarray:
    """Nats of the rows `some` of `rows` in each pass, [passes, n] (one pass if the process is exact).

    `batch`: rows a forward. Times are stratified over all of `rows`, so results do not depend on how rows are split
    over calls.
    """
    count = len(rows)
    passes = 1 if process.exact else passes
    device = network.denoiser.home
    found: list[np.ndarray] = []
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for number in range(passes):
            order = rng.permutation(seed, rng.BOUND, 2 * number, count)
            u = torch.empty(count, dtype=torch.float64)
            u[order] = rng.low_discrepancy(seed, rng.BOUND, 2 * number + 1, torch.arange(count), count)
            keys = rng.keys(seed, rng.BOUND, -1 - number, torch.arange(count))
            nll = []
            for start in range(some.start, some.stop, batch):
                part = slice(start, min(start + batch, some.stop))
                ids = torch.from_numpy(rows.ids[part].astype(np.int64)).to(device)
                candidates = torch.from_numpy(np.array(rows.candidates[part])).to(device)
                of_part = network(
                    lambda denoiser, part=part, ids=ids, candidates=candidates, u=u, keys=keys: process.bound(
                        reading(denoiser, process, ids, candidates, vocabulary, keys[part].to(device)),
                        ids,
                        candidates,
                        vocabulary,
                        u[part].to(device),
                        keys[part].to(device),
                    )
                )
                nll.append(of_part.cpu().double().numpy())
            found.append(np.concatenate(nll))
    network.train(was_training)
    return np.stack(found)
