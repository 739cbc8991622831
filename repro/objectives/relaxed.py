"""The relaxed corruption that Duo's losses share: noise levels to soft tokens, noisy ids and what is known of them.

Each row has one gamma; at every noised position the true id gives way to a soft token at the step's temperature, other
positions stay clean (docs/method.md#uniform-script, docs/method.md#duo-curriculum). Noise belongs to (seed, step,
row), never to the batch.
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
    """What a network reads (`soft`) and what its loss needs: noisy ids `z` [B, L], alpha = T(A) [B] and its derivative
    by gamma, `slope` [B]; `logs`: sums over rows of P(flip) and of the mass that the soft tokens kept."""

    soft: Soft
    z: Tensor
    alpha: Tensor
    slope: Tensor
    logs: dict[str, Tensor]


def relaxed(
    tokens: Relaxation, temperature: Temperature, gamma: Tensor, ends: tuple[float, float], batch: Batch
) -> Relaxed:
    """Corrupt the noised positions of a batch at gamma [B], which lies between `ends`."""
    from repro.processes import gaussian

    count = batch.vocabulary.size
    asked = Range(count, *ends, temperature.hottest())
    keys = rng.keys(batch.seed, rng.NOISE, batch.step, batch.index)
    drawn = tokens.draw(asked, batch.ids, gamma, temperature.tau(batch.step), keys)
    where = batch.noised
    kept = (drawn.kept * where).sum(1) / where.sum(1).clamp_min(1)
    alpha, slope = gaussian.transform(gamma, count)
    flip = (1 - alpha) * (1 - 1 / count)
    logs = {"p_flip": flip.sum(), "kept_mass": kept.sum()}
    z = torch.where(where, drawn.z, batch.ids)
    return Relaxed(hold(drawn.soft, batch.ids, where), z, alpha, slope, logs)
