"""Upper bound on the negative log-likelihood of held-out rows in nats per token, with its standard error; the same
estimator in training and in evaluation.

A pass over the rows draws one time t and one corruption per row; the times are stratified over the rows in a random
order. The results of `passes` passes are averaged. The estimate is sum(nll) / sum(tokens); its standard error treats
documents (clusters of rows) as the independent units. This error covers sampling of the data and Monte Carlo error
together, and is slightly too large, because it ignores that stratification reduces the Monte Carlo error. An
autoregressive model needs no draws: a single pass gives -log p itself.

Shapes: n rows, B of them in one forward, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from repro.core import rng
from repro.data.corpus import Rows, Vocabulary
from repro.models.attention import Mask
from repro.models.blocks import BlockPrediction
from repro.models.denoiser import Denoiser, ForwardWrapper
from repro.models.prediction import Prediction
from repro.processes.process import Process, diffusion

if TYPE_CHECKING:
    from repro.processes.prediction import Predict

Form = Literal["full", "truncated"]
BATCH = 256
"""Rows per forward; the result does not depend on it."""
EPS = 1e-3
"""Earliest time of `truncated`, as in the evaluations of MDLM and Duo."""
FILLER = 2
"""Number folded into a row's random key to draw the corruption of its filler; the processes fold in 0 and 1."""


@dataclass(frozen=True)
class Bound:
    """Held-out bound of n rows. `nll` [n]: nats of each row, mean over the Monte Carlo passes; `tokens` [n]: number of
    scored tokens of each row; `cluster` [n]: number of the document that each row is from, the unit of independence of
    standard errors; `by_pass` [passes]: nats of all rows together in each pass."""

    nll: np.ndarray
    tokens: np.ndarray
    cluster: np.ndarray
    by_pass: np.ndarray

    @property
    def value(self) -> float:
        """The bound in nats per token, sum(nll) / sum(tokens) over all rows."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def error(self) -> float:
        """Standard error of `value` in nats per token, with documents as independent units (`ratio_error`)."""
        return ratio_error(self.nll, self.tokens, self.cluster)

    @property
    def drawn_error(self) -> float | None:
        """Monte Carlo part of `error` in nats per token, from the spread of the passes; None for a single pass."""
        passes = len(self.by_pass)
        if passes < 2:
            return None
        return float(self.by_pass.std(ddof=1) / np.sqrt(passes) / self.tokens.sum())

    def gap(self, exact: np.ndarray) -> tuple[float, float]:
        """Bound minus the `exact` negative log-likelihood of the same rows ([n], nats), in nats per token, and the
        paired standard error of this difference."""
        difference = self.nll - exact
        return float(difference.sum() / self.tokens.sum()), ratio_error(difference, self.tokens, self.cluster)


def ratio_error(total: np.ndarray, tokens: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of the ratio sum(total) / sum(tokens) of two sums over n rows, by linearisation. `total`, `tokens`
    [n]: values of each row; `cluster` [n]: number of the row's cluster (such as its document): rows of one cluster may
    be dependent, different clusters are independent. NaN for a single cluster."""
    _, group = np.unique(cluster, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return float("nan")
    residual = total - total.sum() / tokens.sum() * tokens
    sums = np.bincount(group, weights=residual, minlength=count)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / tokens.sum())


def attention_of(ids: Tensor, vocabulary: Vocabulary) -> Mask:
    """Attention mask of rows `ids` [B, L] that hides their padding; without a pad id in `vocabulary`, all positions are
    read."""
    return Mask(None if vocabulary.pad is None else ids != vocabulary.pad)


def reading(
    denoiser: Denoiser,
    process: Process,
    ids: Tensor,
    candidates: Tensor,
    vocabulary: Vocabulary,
    keys: Tensor,
    form: Form = "full",
) -> Predict:
    """The function (noisy ids [B, L], times t [B]) -> `Prediction` by which `Process.bound` (`form` "full") or
    `truncated` ("truncated") runs the network `denoiser` on noisy versions of the clean `ids` [B, L].

    `candidates` [B, L] bool: scored positions; `keys` [B]: one random key per row. The returned function also corrupts
    filler (padding that is attended to and corrupted like text, but never scored), by random keys derived from `keys`:
    at `Process.filler_time` for the full form, whose t may be a share of masked tokens, else at t itself. Under a
    process that noises block by block, it predicts each block given the clean blocks before it; ValueError if such data
    has filler.
    """
    filler = None if vocabulary.filler is None else ids == vocabulary.filler
    attention, block = attention_of(ids, vocabulary), process.block_length()
    if block is not None and filler is not None:
        raise ValueError(
            "process block_absorbing has no bound on rows with filler (padding read as text), which data of padded"
            " rows has; use packed rows (data part packed or packed_whole)"
        )

    def predict(noisy: Tensor, t: Tensor) -> Prediction:
        if filler is not None and not process.causal:
            time = t if form == "truncated" else diffusion(process).filler_time(t, candidates, keys)
            noisy = diffusion(process).corrupt(noisy, time, rng.fold(keys, FILLER), filler, vocabulary)
        if block is not None:
            return BlockPrediction(denoiser, noisy, ids, t, attention, block)
        return Prediction(denoiser, noisy, t, attention)

    return predict


def truncated(
    process: Process,
    predict: Predict,
    x0: Tensor,
    candidates: Tensor,
    vocabulary: Vocabulary,
    u: Tensor,
    keys: Tensor,
) -> Tensor:
    """Estimate per row, in nats, [B] float64, of the NELBO without its prior and tail terms: the mean of its integrand
    over t in [.001, 1], which is what the published perplexities of MDLM and Duo use (docs/method.md#mdlm). Without the
    KL divergence from the prior at t = 1 and the tail, -log p(x0 | noisy ids at t = .001), the estimate is no bound:
    with an exact denoiser it lies below the entropy.

    `predict` runs the network; `x0` [B, L]: clean ids; `candidates` [B, L] bool: scored positions; `u` [B] in (0, 1)
    determines the time t of each row and `keys` [B] its noise. ValueError for an autoregressive process.
    """
    noise = diffusion(process)
    t = EPS + (1 - EPS) * u
    xt = noise.corrupt(x0, t, keys, candidates, vocabulary)
    return noise.nll(predict(xt, t), x0, xt, t, candidates, vocabulary)


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
    """Held-out bound of `network` on `rows`, from `passes` Monte Carlo draws per row, which `seed` determines, with
    `batch` rows per forward. `rows.example` must hold the document number of each row, for the standard error."""
    everything = slice(0, len(rows))
    nll = row_nll(network, process, vocabulary, rows, everything, passes=passes, seed=seed, batch=batch)
    return bound_of(rows, nll)


def bound_of(rows: Rows, nll: np.ndarray) -> Bound:
    """Held-out bound of n `rows`, from the estimate `nll` [passes, n] in nats of each row in each Monte Carlo pass.
    `rows.example` must hold the document number of each row, for the standard error."""
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
    form: Form = "full",
) -> np.ndarray:
    """Estimated bound on -log p, in nats, of each of the n rows in the slice `some` of `rows` in each Monte Carlo pass,
    [passes, n]; a single pass if the process gives -log p itself.

    `seed` determines all draws; `batch`: rows per forward; `form`: the bound with all its terms ("full"), or without
    its prior and tail terms ("truncated"). Times are stratified over all of `rows`, so the numbers of a row do not
    depend on how rows are split over calls.
    """
    count = len(rows)
    passes = 1 if process.exact else passes
    device = network.denoiser.home
    estimate = process.bound if form == "full" else partial(truncated, process)
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
                    lambda denoiser, part=part, ids=ids, candidates=candidates, u=u, keys=keys: estimate(
                        reading(denoiser, process, ids, candidates, vocabulary, keys[part].to(device), form),
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
