"""The relaxed corruption that Duo's losses share: soft tokens and noisy ids at given noise levels.

Each row has one gamma. At every position to be corrupted the true id is replaced by a soft token at the step's
temperature; other positions stay clean (docs/method.md#uniform-script, docs/method.md#duo-curriculum). The noise
depends on seed, step and row, not on the batch.
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
    """The network's input `soft` and what its loss needs: noisy ids `z` [B, L], alpha = T(A) [B] and its derivative
    `slope` [B] by gamma; `logs`: sums over rows of P(flip) and of the probability mass that the soft tokens cover."""

    soft: Soft
    z: Tensor
    alpha: Tensor
    slope: Tensor
    logs: dict[str, Tensor]


def relaxed(
    tokens: Relaxation, temperature: Temperature, gamma: Tensor, ends: tuple[float, float], batch: Batch
) -> Relaxed:
    """Corrupt the positions `batch.noised` at gamma [B], which lies between `ends`."""
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
