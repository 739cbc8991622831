"""The relaxed corruption that Duo's losses share: soft tokens and noisy ids at given noise levels.

Each row has one noise level gamma = -log SNR. At every position to be corrupted the true id is replaced by a soft
token, the softmax of a Gaussian latent at the step's temperature; other positions stay clean
(docs/method.md#uniform-script, docs/method.md#duo-curriculum). The noise depends on seed, step and row, not on how rows
are batched. Shapes: B rows, L positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from repro.core import rng
from repro.core.lazy import torch
from repro.core.schedules import Temperature
from repro.objectives.objective import Batch
from repro.objectives.soft_tokens import Range, Relaxation, hold

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Soft


class Relaxed(NamedTuple):
    """Relaxed corruption of B rows. `soft`: soft tokens, the network's input; `z` [B, L]: noisy ids; `alpha` [B]: the
    probability T(A) that a token is intact at signal level A (docs/method.md#transformation-operator); `slope` [B]: its
    derivative by gamma; `logs`: sums over rows of the probability that z differs from the clean id (`p_flip`) and of
    the mean probability mass of the ids that a soft token holds, below 1 if it is sparse (`kept_mass`)."""

    soft: Soft
    z: Tensor
    alpha: Tensor
    slope: Tensor
    logs: dict[str, Tensor]


def relaxed(
    tokens: Relaxation, temperature: Temperature, gamma: Tensor, ends: tuple[float, float], batch: Batch
) -> Relaxed:
    """Relaxed corruption of a batch at the positions `batch.noised`, at noise levels gamma [B] (-log SNR), one per row.

    `tokens`: method by which soft tokens are drawn; `temperature`: schedule of their softmax temperature; `ends`:
    lowest and highest gamma of the run, for which the number of ids in a sparse soft token is chosen.
    """
    from repro.processes import gaussian

    vocab_size = batch.vocabulary.size
    limits = Range(vocab_size, *ends, temperature.hottest())
    keys = rng.keys(batch.seed, rng.NOISE, batch.step, batch.index)
    drawn = tokens.draw(limits, batch.ids, gamma, temperature.tau(batch.step), keys)
    where = batch.noised
    mass = (drawn.mass * where).sum(1) / where.sum(1).clamp_min(1)
    alpha, slope = gaussian.transform(gamma, vocab_size)
    flip = (1 - alpha) * (1 - 1 / vocab_size)
    logs = {"p_flip": flip.sum(), "kept_mass": mass.sum()}
    z = torch.where(where, drawn.z, batch.ids)
    return Relaxed(hold(drawn.soft, batch.ids, where), z, alpha, slope, logs)
