"""The held-out bound: nats a token with its standard error, the same estimator in training and in evaluation.

Each row gets `passes` independent draws of (t, corruption); within a pass the times are stratified over the rows in a
random order. The point estimate is sum(nll) / sum(tokens); its standard error treats clusters (documents) as the
independent units, which covers data error and Monte Carlo error together and is a little too large, since
stratification only helps. AR needs no draws: its one pass is exact.
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
"""Rows of one forward; no draw depends on it."""
FILLER = 2
"""Fold of a row's key that noises its filler; 0 and 1 are the processes' own."""


@dataclass(frozen=True)
class Bound:
    """Nats a row `nll` [n] (mean over passes), scored `tokens` [n], each row's `cluster` [n], and the nats of all rows
    in each pass, `by_pass`."""

    nll: np.ndarray
    tokens: np.ndarray
    cluster: np.ndarray
    by_pass: np.ndarray

    @property
    def value(self) -> float:
        """Nats a token."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def error(self) -> float:
        """Standard error of `value`."""
        return ratio_error(self.nll, self.tokens, self.cluster)

    @property
    def drawn_error(self) -> float | None:
        """The part of `error` that more passes would remove, by the spread of these (None for one pass: exact)."""
        passes = len(self.by_pass)
        if passes < 2:
            return None
        return float(self.by_pass.std(ddof=1) / np.sqrt(passes) / self.tokens.sum())

    def gap(self, exact: np.ndarray) -> tuple[float, float]:
        """Bound minus exact nll [n] of the same rows, nats a token, and its paired standard error."""
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
    """Padding is what holds the pad id; a vocabulary without one pads nothing."""
    return Mask(None if vocabulary.pad is None else ids != vocabulary.pad)


def reading(
    denoiser: Denoiser,
    process: Process,
    ids: Tensor,
    candidates: Tensor,
    vocabulary: Vocabulary,
    keys: Tensor,
) -> Predict:
    """How the network reads noisy rows of clean `ids` [B, L]; filler is noised at their time by streams of its own."""
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
    """Estimate the bound on every row of `rows` (all of them: slice before), `batch` of them a forward."""
    every = slice(0, len(rows))
    nll = row_nll(network, process, vocabulary, rows, every, passes=passes, seed=seed, batch=batch)
    return bound_of(rows, nll)


def bound_of(rows: Rows, nll: np.ndarray) -> Bound:
    """The bound on rows whose nats in each pass [passes, n] are known."""
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
    """Nats of the rows `some` of `rows` in each pass [passes, len(some)] (one pass where they are exact); `batch` rows
    a forward. Draws are stratified over all rows, so the rows of two calls are those of one."""
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
