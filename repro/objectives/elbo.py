"""Negative evidence lower bounds (NELBO) as training losses: for absorbing and uniform noise, and Duo's curriculum.

`Elbo` is the bound itself (docs/method.md#mdlm for absorbing noise, docs/method.md#duo-nelbo for uniform), with one
time t per row, stratified over the rows of the optimizer step. `DuoElbo` starts with the Gaussian relaxation: the
network reads soft tokens, softmaxes of Gaussian latents at a temperature, and the integrand of the bound is evaluated
at the noisy ids, the argmax of the same latents. After `until` steps the network reads noisy ids, and the loss is the
bound (docs/method.md#duo-curriculum). On soft tokens the loss is a biased estimate of the bound; evaluation always uses
noisy ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.parts import check_below_one, part
from repro.core.schedules import Temperature
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.objectives.relaxed import relaxed
from repro.objectives.soft_tokens import Relaxation
from repro.processes.process import Scored, diffusion

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.models.prediction import Prediction
    from repro.processes.process import Process


def stratified(batch: Batch) -> Tensor:
    """Uniform numbers in [0, 1) for the B rows of a batch, [B]; over all R rows of the optimizer step they are
    stratified, one in each interval of length 1 / R."""
    return rng.low_discrepancy(batch.seed, rng.TIME, batch.step, batch.index, len(batch.step_candidates))


def elbo(group: Group, eps: float, u: Tensor, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
    """Loss of a batch: the integrand of the NELBO of `process` for the network `denoiser` at times t = eps + (1 - eps)
    u, in nats per scored token, averaged as `group` says (over the whole step, or within groups of rows). u [B] in [0,
    1): one number per row. The prior term at t = 1 and the tail, -log p(x | noisy ids at t = eps), are left out, since
    their gradients are negligible."""
    from repro.models.prediction import Prediction

    noise = diffusion(process)
    t = eps + (1 - eps) * u
    keys = rng.keys(batch.seed, rng.CORRUPT, batch.step, batch.index)
    noisy = noise.corrupt(batch.ids, t, keys, batch.noised, batch.vocabulary)
    scored = noise.scored(denoiser.meaning, batch.ids, noisy, t, batch.candidates, batch.vocabulary)
    prediction = Prediction(denoiser, noisy, t, batch.attention)
    logs = {"t": t.sum(), "p_flip": noise.p_flip(t, batch.vocabulary).sum()}
    return _loss(group, batch, prediction, scored, logs)


def _loss(
    group: Group, batch: Batch, prediction: Prediction, scored: Scored, logs: dict[str, Tensor]
) -> Loss:
    weight = group.weights(batch.step_candidates, batch.index)[scored.where.nonzero()[:, 0]]
    value, nll = prediction.weighted_loss(scored.loss, scored.where, weight, *scored.each)
    return Loss(value, nll.sum(), int(batch.candidates.sum()), logs)


@part
class Elbo(Objective):
    """Continuous-time NELBO in nats per candidate (token that may be noised); the time t in [eps, 1] of each row is
    stratified over the rows of a step. `group`: mean over all scored tokens of the step (`GlobalBatch`), or over those
    of each group of rows and then over the groups (`RowGroup`)."""

    eps: float
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        check_below_one(self, "eps")

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        return elbo(self.group, self.eps, stratified(batch), denoiser, process, batch)


@part
class IndependentElbo(Objective):
    """Continuous-time NELBO in nats per candidate (token that may be noised), with an independent time t in [eps, 1]
    for each row (LLaDA; docs/method.md#llada-objective). `group`: mean over all scored tokens of the step
    (`GlobalBatch`), or over those of each group of rows and then over the groups (`RowGroup`)."""

    eps: float
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        check_below_one(self, "eps")

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index))
        return elbo(self.group, self.eps, u, denoiser, process, batch)


@part
class DuoElbo(Objective):
    """The loss of the Duo paper: the NELBO of a network that reads soft tokens (weighted mixtures of ids) up to and
    including optimizer step `until`, then noisy ids at times in [eps, 1] (docs/method.md#duo-curriculum).

    `window`: range of the noise level gamma of soft tokens; `temperature`: schedule of their softmax temperature;
    `tokens`: method by which they are drawn; `group`: mean over all scored tokens of the step (`GlobalBatch`), or over
    those of each group of rows and then over the groups (`RowGroup`)."""

    window: GammaWindow
    temperature: Temperature
    tokens: Relaxation
    until: int
    eps: float
    group: Group

    version = 2
    meaning = "leave_one_out"
    processes = frozenset({"uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        check_below_one(self, "eps")

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.prediction import Prediction
        from repro.processes.uniform import Uniform, token_loss

        assert isinstance(process, Uniform)
        if batch.step > self.until:
            return elbo(self.group, self.eps, stratified(batch), denoiser, process, batch)
        vocab_size = batch.vocabulary.size
        t = stratified(batch)
        span = self.window.high - self.window.low
        drawn = relaxed(
            self.tokens,
            self.temperature,
            self.window.low + span * t,
            (self.window.low, self.window.high),
            batch,
        )
        prediction = Prediction(denoiser, drawn.soft, process.time(drawn.alpha), batch.attention)
        where = batch.candidates
        rows = where.nonzero()[:, 0]
        loss = token_loss(vocab_size, denoiser.meaning)
        inputs = (batch.ids[where], drawn.z[where], drawn.alpha[rows], (span * drawn.slope)[rows])
        return _loss(self.group, batch, prediction, Scored(where, loss, inputs), {"t": t.sum(), **drawn.logs})
