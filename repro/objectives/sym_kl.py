"""Losses on Gaussian-relaxed tokens: the symmetric KL between label and prediction, which is Duo as in the reference
script, tom-pollak/dllm@43ea9ff (docs/method.md#uniform-script, docs/method.md#symmetric-kl), and cross-entropy.

With logits z, p = softmax(z), clean id (label) x, h its one-hot vector, V vocabulary size, c = -ln(floor):

    closed form   L = CE + R_int = CE - H + c (1 - p_x)    with CE = -ln p_x, H the entropy of p, and R_int the reverse
                  KL(p || h), in which `floor` stands for the zeros of h
    the script    L = CE + sum_i e^{p_i} (p_i - ln(h_i + floor)), with probabilities in place of log-probabilities.
                  Its constant c (V - 1) is subtracted here, which leaves the gradient and makes the value readable.

Neither L is a proper score: the minimiser is over-confident, and a likelihood read from it must be marked as such.
Cross-entropy alone (`RelaxedCE`, L = CE) is a proper score.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.core.schedules import Temperature
from repro.objectives.noise import LinearWindow, MatchedWindow, Window
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.objectives.relaxed import Relaxed, relaxed
from repro.objectives.soft_tokens import Relaxation
from repro.objectives.view_scale import ViewScale
from repro.processes.prediction import HandDerived
from repro.processes.process import row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.models.fused_head import TokenLoss
    from repro.processes.process import Process


def moments(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities p [N, V], and -log p_x, p_x and the entropy of p (nats) of each token, [N] each, from logits [N, V]
    and labels x [N]; N tokens, V vocabulary size."""
    logp = logits.log_softmax(-1)
    ce = -logp.gather(1, x[:, None])[:, 0]
    p = logp.exp()
    return p, ce, (-ce).exp(), -(p * logp).sum(-1)


def closed_form(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], from logits [N, V], labels x [N].

    The loss is cross-entropy plus the reverse KL against the label floored at `floor` (docs/method.md#symmetric-kl,
    L_int), in nats.
    """
    _, ce, p_x, entropy = moments(logits, x)
    return torch.stack([ce - entropy - math.log(floor) * (1 - p_x), ce, p_x, entropy])


def script_form(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], from logits [N, V], labels x [N].

    The loss is cross-entropy plus the reference script's reverse term (docs/method.md#symmetric-kl, R_scr) minus its
    constant c (V - 1), c = -ln(floor). Their difference is computed as the sum of e^{p_i} p_i over all i plus the sum
    of c (e^{p_i} - 1) over i != x, because a subtraction in float32 would lose the small difference of large numbers.
    """
    c = -math.log(floor)
    p, ce, p_x, entropy = moments(logits, x)
    whole = (p.exp() * p + c * p.expm1()).sum(-1)
    return torch.stack([ce + whole - c * p_x.expm1(), ce, p_x, entropy.detach()])


def closed_gradient(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], as from `closed_form`; overwrites
    `logits` [N, V] by the gradient of the loss, dL/dz_k = p_k (1 + ln p_k + H + c p_x) - h_k (1 + c p_x), H the entropy
    of p, h the one-hot label and c = -ln(`floor`) (docs/method.md#symmetric-kl)."""
    c = -math.log(floor)
    logp = logits.log_softmax(-1)
    p = torch.exp(logp, out=logits)
    rows = torch.arange(len(x), device=x.device)
    ce = -logp[rows, x]
    surprise = logp.mul_(p)
    p_x, entropy = (-ce).exp(), -surprise.sum(-1)
    at_label = 1 + c * p_x
    torch.addcmul(surprise, p, (at_label + entropy)[:, None], out=logits)
    logits[rows, x] -= at_label
    return torch.stack([ce - entropy + c * (1 - p_x), ce, p_x, entropy])


def script_gradient(logits: Tensor, x: Tensor, floor: float) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], as from `script_form`; overwrites
    `logits` [N, V] by the gradient of the loss, dL/dz_k = p_k (1 + g_k - sum_j p_j g_j) - h_k, h the one-hot label
    (docs/method.md#symmetric-kl).

    g_j = e^{p_j} (1 + p_j + c [j != x]) is computed without its constant 1 + c, which cancels: with q = e^p - 1 the
    rest is p + q (1 + c + p), from which c (1 + q) is subtracted at the label.
    """
    c = -math.log(floor)
    logp = logits.log_softmax(-1)
    p = torch.exp(logp, out=logits)
    rows = torch.arange(len(x), device=x.device)
    ce = -logp[rows, x]
    p_x, entropy = (-ce).exp(), -logp.mul_(p).sum(-1)
    g = torch.add(p, 1 + c, out=logp)
    q = p.expm1()
    whole = p.sum(-1) + (p * q).sum(-1) + c * q.sum(-1)  # vecdot would round to bfloat16 under autocast
    g.mul_(q).add_(p)
    g[rows, x] -= c * p_x.exp()
    mean = (p * g).sum(-1)
    p.mul_(g.add_((1 - mean)[:, None]))
    p[rows, x] -= 1
    return torch.stack([ce + whole - c * p_x.expm1(), ce, p_x, entropy])


def ce_form(logits: Tensor, x: Tensor) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], from logits [N, V], labels x [N]; the
    loss is the cross-entropy, in nats."""
    _, ce, p_x, entropy = moments(logits, x)
    return torch.stack([ce, ce.detach(), p_x.detach(), entropy.detach()])


def ce_gradient(logits: Tensor, x: Tensor) -> Tensor:
    """Loss, cross-entropy, label probability p_x and entropy of N tokens, [4, N], as from `ce_form`; overwrites
    `logits` [N, V] by the gradient of the loss, p - h, h the one-hot label."""
    p, ce, p_x, entropy = moments(logits, x)
    logits.copy_(p)
    logits[torch.arange(len(x), device=x.device), x] -= 1
    return torch.stack([ce, ce, p_x, entropy])


def corrupted(
    batch: Batch, noise: Window | MatchedWindow | LinearWindow, temperature: Temperature, tokens: Relaxation
) -> tuple[Relaxed, Tensor]:
    """Relaxed corruption of a batch, and the times t [B] of its rows, uniform on the range of `noise`, which also maps
    them to noise levels (docs/method.md#uniform-script). `temperature`: schedule of the softmax temperature of soft
    tokens; `tokens`: method by which they are drawn."""
    u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index))
    t = noise.low + (noise.high - noise.low) * u
    vocab_size = batch.vocabulary.size
    low, high = noise.gamma(torch.tensor([noise.low, noise.high], dtype=torch.float64), vocab_size).tolist()
    return relaxed(tokens, temperature, noise.gamma(t, vocab_size), (low, high), batch), t


@part
class _OnSoftTokens(Objective):
    """Base class of losses that compare the network's prediction from soft tokens with the label (the clean id). The
    softmax is over the ids without special ones.

    `noise`: distribution of the times of rows; `temperature`: schedule of the softmax temperature of soft tokens;
    `tokens`: method by which they are drawn; `view_scale`: weight of a row by its noise level; `group`: mean over all
    scored tokens of the step (`GlobalBatch`), or over those of each group of rows and then over the groups
    (`RowGroup`)."""

    noise: Window | MatchedWindow | LinearWindow
    temperature: Temperature
    tokens: Relaxation
    view_scale: ViewScale
    group: Group

    meaning = "x0_mean"
    processes = frozenset({"uniform"})

    @abstractmethod
    def forms(self) -> tuple[TokenLoss, TokenLoss]:
        """The loss of each token as two functions of equal output: a plain one, and one that also overwrites the logits
        by the gradient of the loss."""

    def trained(self, vocab_size: int) -> tuple[float, float]:
        from repro.processes import gaussian

        ends = torch.tensor([self.noise.high, self.noise.low], dtype=torch.float64)
        low, high = gaussian.transform(self.noise.gamma(ends, vocab_size), vocab_size)[0].tolist()
        return low, high

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.fused_head import fused_loss

        drawn, t = corrupted(batch, self.noise, self.temperature, self.tokens)
        where, vocab_size = batch.candidates, batch.vocabulary.size
        features = denoiser.encode(drawn.soft, t=None, attention=batch.attention)[where]
        scale = self.view_scale.scale(t, drawn.alpha, vocab_size)
        weight = self.group.weights(batch.step_candidates, batch.index) * scale
        value, (_, ce, p_true, entropy) = fused_loss(
            features,
            denoiser.head().first(vocab_size),
            HandDerived(*self.forms()),
            weight[where.nonzero()[:, 0]],
            batch.ids[where],
        )
        share = 1 / where.sum(1).clamp_min(1)
        means = {"p_true": p_true, "entropy": entropy}
        logs = {name: (row_sums(each.double(), where) * share).sum() for name, each in means.items()}
        return Loss(value, ce.sum(), int(where.sum()), {"t": t.sum()} | drawn.logs | logs)


@part
class SymKL(_OnSoftTokens):
    """Symmetric KL between label x and prediction p in closed form, CE - H + c (1 - p_x): cross-entropy CE = -ln p_x,
    entropy H of p, and c = -ln(`floor`), where `floor` stands for the zeros of the one-hot label."""

    floor: float

    version = 2
    score = "improper score"

    def forms(self) -> tuple[TokenLoss, TokenLoss]:
        return partial(closed_form, floor=self.floor), partial(closed_gradient, floor=self.floor)


@part
class SymKLScript(_OnSoftTokens):
    """Symmetric KL as the reference script computes it: cross-entropy plus sum_i e^{p_i} (p_i - ln(h_i + `floor`)), p
    the prediction and h the one-hot label, minus the constant c (V - 1), c = -ln(`floor`) (see the module)."""

    floor: float

    version = 2
    score = "improper score"

    def forms(self) -> tuple[TokenLoss, TokenLoss]:
        return partial(script_form, floor=self.floor), partial(script_gradient, floor=self.floor)


@part
class RelaxedCE(_OnSoftTokens):
    """Cross-entropy of the label under the prediction, which is least if the network predicts the posterior of the
    clean token given the soft tokens."""

    score = "no bound"

    def forms(self) -> tuple[TokenLoss, TokenLoss]:
        return ce_form, ce_gradient
