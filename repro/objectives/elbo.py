"""Negative evidence lower bounds as training losses: both noises in discrete form, and Duo's curriculum.

`Elbo` is the bound itself (spec C for absorbing noise, D.3 for uniform), one low-discrepancy t a row over the whole
step. `DuoElbo` starts with the Gaussian relaxation: soft tokens at a temperature, the integrand taken at the argmax of
the same latent; after `until` steps it is the bound (spec D.4). For a temperature above 0 it is biased: evaluation
always uses hard tokens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from repro import rng
from repro.lazy import torch
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.parts import part
from repro.processes.process import Diffusion, Scored
from repro.schedules import Temperature

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser
    from repro.backbones.prediction import Prediction
    from repro.processes.process import Process


def elbo(group: Group, eps: float, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
    """The discrete bound at t = eps + (1 - eps) u with low-discrepancy u, without prior and tail (they have no gradient
    worth having)."""
    from repro.backbones.prediction import Prediction

    assert isinstance(process, Diffusion)
    rows = len(batch.step_candidates)
    t = eps + (1 - eps) * rng.low_discrepancy(batch.seed, rng.TIME, batch.step, batch.index, rows)
    keys = rng.keys(batch.seed, rng.CORRUPT, batch.step, batch.index)
    noisy = process.corrupt(batch.ids, t, keys, batch.candidates, batch.vocabulary)
    scored = process.scored(denoiser.meaning, batch.ids, noisy, t, batch.candidates, batch.vocabulary)
    prediction = Prediction(denoiser, noisy, t, batch.attention)
    return _loss(group, batch, prediction, scored, t, process.p_flip(t, batch.vocabulary))


def _loss(
    group: Group, batch: Batch, prediction: Prediction, scored: Scored, t: Tensor, flip: Tensor
) -> Loss:
    weight = group.weights(batch.step_candidates, batch.index)[scored.where.nonzero()[:, 0]]
    value, nll = prediction.weighted_loss(scored.loss, scored.where, weight, *scored.each)
    logs = {"t": t.sum(), "p_flip": flip.sum()}
    return Loss(value, nll.sum(), int(batch.candidates.sum()), logs)


@part
class Elbo(Objective):
    """The NELBO of the process in continuous time, per candidate token; t in [eps, 1]."""

    eps: float
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        return elbo(self.group, self.eps, denoiser, process, batch)


@part
class DuoElbo(Objective):
    """Duo's paper loss: relaxed up to and including step `until`, then the discrete bound (spec D.4)."""

    window: GammaWindow
    temperature: Temperature
    until: int
    eps: float
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"uniform"})
    score = "truncated bound"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.backbones.denoiser import Soft
        from repro.backbones.prediction import Prediction
        from repro.processes import gaussian
        from repro.processes.uniform import token_nll

        if batch.step > self.until:
            return elbo(self.group, self.eps, denoiser, process, batch)
        count = batch.vocabulary.size
        t = rng.low_discrepancy(batch.seed, rng.TIME, batch.step, batch.index, len(batch.step_candidates))
        span = self.window.high - self.window.low
        gamma = self.window.low + span * t
        keys = rng.keys(batch.seed, rng.NOISE, batch.step, batch.index)
        latent = gaussian.relax(batch.ids, gamma, rng.normal(keys, batch.ids.shape[1], count), count)
        clean = torch.nn.functional.one_hot(batch.ids, count).double()
        latent = torch.where(batch.candidates[..., None], latent, clean)
        z = latent.argmax(-1)
        weights = (latent / self.temperature.tau(batch.step)).float().softmax(-1)
        prediction = Prediction(denoiser, Soft(None, weights), t, batch.attention)
        alpha, slope = gaussian.transform(gamma, count)
        rows = batch.candidates.nonzero()[:, 0]
        where = batch.candidates
        loss = partial(token_nll, count=count, meaning=denoiser.meaning)
        scored = Scored(where, loss, (batch.ids[where], z[where], alpha[rows], (span * slope)[rows]))
        return _loss(self.group, batch, prediction, scored, t, (1 - alpha) * (1 - 1 / count))
