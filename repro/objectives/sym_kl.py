"""Symmetric KL between label and prediction on Gaussian-relaxed tokens: the seed document's Duo (spec A.2, A.3).

With logits z, p = softmax(z), label x, c = -ln(floor):

    closed form   L = CE + R_int = sum_i p_i z_i - z_x + c (1 - p_x)
    the script    L = CE + sum_i e^{p_i} (p_i - ln(h_i + floor)): probabilities where log-probabilities belong.
                  Its constant c (V - 1) is subtracted here: same gradient, and a value that can be read.

Neither is a proper score: the minimiser is over-confident, and no likelihood may be read from it without saying so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from repro import rng
from repro.lazy import torch
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.objectives.relaxed import relaxed
from repro.ops.soft_tokens import Relaxation
from repro.parts import Part, part
from repro.processes.process import row_sums
from repro.schedules import Temperature

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser
    from repro.processes.process import Process


@part
class Kappa(Part):
    """Row weight t / (V (1 - t) + t): Duo's kappa taken at the Gaussian level A = 1 - t (spec A.5 row 1)."""

    def scale(self, t: Tensor, count: int) -> Tensor:
        return t / (count * (1 - t) + t)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """-log p_x: logits [N, V], labels [N] -> [N] nats."""
    return logits.logsumexp(-1) - logits.gather(1, x[:, None])[:, 0]


def closed_form(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Cross-entropy plus the reverse KL against the label floored at `floor` (spec A.3, L_int): [N, V], [N] -> [N]."""
    p = logits.softmax(-1)
    z_x, p_x = (v.gather(1, x[:, None])[:, 0] for v in (logits, p))
    return (p * logits).sum(-1) - z_x - math.log(floor) * (1 - p_x)


def script_form(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Cross-entropy plus the script's reverse term (spec A.3, R_scr) minus its constant c (V - 1): [N, V], [N] -> [N].

    Summed as e^p p + c (e^p - 1) over i != x, so that float32 keeps what the constant would drown.
    """
    c = -math.log(floor)
    p = logits.softmax(-1)
    p_x = p.gather(1, x[:, None])[:, 0]
    whole = (p.exp() * p + c * p.expm1()).sum(-1)
    return cross_entropy(logits, x) + whole - c * p_x.expm1()


def relaxed_loss(
    per_token: Tensor, ce: Tensor, scale: Tensor, logs: dict[str, Tensor], group: Group, batch: Batch
) -> Loss:
    weight = group.weights(batch.step_candidates, batch.index) * scale
    value = (row_sums(per_token.double(), batch.candidates) * weight).sum()
    return Loss(value, ce.sum(), int(batch.candidates.sum()), logs)


def corrupted(
    denoiser: Denoiser, batch: Batch, noise: Window, temperature: Temperature, tokens: Relaxation
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits at the candidates [N, V] from soft tokens, the rows' t = 1 - A [B], and what to log (spec A.2)."""
    from repro.processes import gaussian

    u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index))
    t = noise.low + (noise.high - noise.low) * u
    low, high = gaussian.gamma_of(1 - torch.tensor([noise.low, noise.high], dtype=torch.float64)).tolist()
    drawn = relaxed(tokens, temperature, gaussian.gamma_of(1 - t), (low, high), batch)
    features = denoiser.encode(drawn.soft, t=None, attention=batch.attention)[batch.candidates]
    logits = denoiser.head().logits(features)[:, : batch.vocabulary.size]
    return logits.float(), t, {"t": t.sum(), **drawn.logs}


@part
class SymKL(Objective):
    """Symmetric KL in closed form, scaled by view (row) and averaged over a group."""

    noise: Window
    temperature: Temperature
    tokens: Relaxation
    floor: float
    view_scale: Kappa
    group: Group

    version = 2
    meaning = "x0_mean"
    score = "improper score"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        logits, t, logs = corrupted(denoiser, batch, self.noise, self.temperature, self.tokens)
        x = batch.ids[batch.candidates]
        per_token = closed_form(logits, x, self.floor)
        scale = self.view_scale.scale(t, batch.vocabulary.size)
        return relaxed_loss(per_token, cross_entropy(logits.detach(), x), scale, logs, self.group, batch)


@part
class SymKLScript(Objective):
    """The script's loss as written, its constant subtracted."""

    noise: Window
    temperature: Temperature
    tokens: Relaxation
    floor: float
    view_scale: Kappa
    group: Group

    version = 2
    meaning = "x0_mean"
    score = "improper score"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        logits, t, logs = corrupted(denoiser, batch, self.noise, self.temperature, self.tokens)
        x = batch.ids[batch.candidates]
        per_token = script_form(logits, x, self.floor)
        scale = self.view_scale.scale(t, batch.vocabulary.size)
        return relaxed_loss(per_token, cross_entropy(logits.detach(), x), scale, logs, self.group, batch)
