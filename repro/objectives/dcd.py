"""Discrete consistency distillation (DCD; Sahoo et al. 2025, algorithm 1; docs/method.md#duo-hyperparameters), which
trains a student to sample in fewer steps than its teacher.

    z_t, z_s = noisy ids: argmax of the Gaussian latents A onehot(x) + sqrt(1 - A^2) eps of a clean id x at times t and
               s = t - delta, with one noise eps ~ N(0, I_V) and the signal levels A of the two times
    loss     = KL(student(z_t, t) || teacher(z_s, s))                             nats per token
    delta    = 2^k / grid in round k = 0, 1, ... of training (`round` optimizer steps each); at the end of a round the
               teacher becomes a copy of the student

Three random numbers per token suffice for all levels, instead of V. Divided by sqrt(1 - A^2), the latent has mu + e at
the clean id, e ~ N(0, 1), and standard normal numbers at the other ids. The largest of these normal numbers and the id
that has it are the same at every level: z is the clean id if mu + e exceeds this number, and otherwise the id that has
it. With more signal (larger mu) a clean id stays clean.

Symbols: B rows, L positions, n scored positions, V vocabulary size, D features; mu = A / sqrt(1 - A^2) =
exp(-gamma / 2) at signal level A and gamma = -log SNR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import check_below_one, part
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import Batch, Distillation, Group, Loss
from repro.objectives.soft_tokens import distinct, order_statistics
from repro.processes.prediction import HandDerived

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser, Head
    from repro.processes.process import Process


def path(x0: Tensor, gammas: tuple[Tensor, ...], keys: Tensor, vocab_size: int) -> list[Tensor]:
    """Noisy ids [B, L] of the clean ids x0 [B, L], one tensor for each noise level gamma = -log SNR [B] in `gammas`,
    all from the same noise; `keys` [B]: one random key per row; ids lie below `vocab_size`."""
    u = rng.uniform(keys, x0.shape[1], 3)
    largest = order_statistics(u[..., :1], vocab_size - 1)[..., 0]
    other = distinct(x0, u[..., 1:2], vocab_size)[..., 1]
    own = torch.special.ndtri(u[..., 2])
    return [torch.where((-gamma / 2).exp()[:, None] + own > largest, x0, other) for gamma in gammas]


def reverse_kl(logits: Tensor, features: Tensor, head: Head) -> Tensor:
    """KL(student || teacher) at n positions, [n] in nats. `logits` [n, V]: the student's; `features` [n, D] and output
    layer `head`: the teacher's; V vocabulary size, D features."""
    logp = logits.log_softmax(-1)
    return _divergence(logp, logp.exp(), _teacher_logp(features, head))


def reverse_kl_gradient(logits: Tensor, features: Tensor, head: Head) -> Tensor:
    """KL(student || teacher) at n positions, [n] in nats, from the arguments of `reverse_kl`; also overwrites the
    student's `logits` [n, V] by the gradient p_k (ln p_k - ln q_k - KL) with respect to them, for student probabilities
    p and teacher probabilities q."""
    logp, logq = logits.log_softmax(-1), _teacher_logp(features, head)
    p = torch.exp(logp, out=logits)
    kl = _divergence(logp, p, logq)
    p.mul_(logp.sub_(logq).sub_(kl[:, None]))
    return kl


def _divergence(logp: Tensor, p: Tensor, logq: Tensor) -> Tensor:
    """KL(p || q) in nats, [n], from p, ln p and ln q [n, V]: the sum of p (d + e^-d - 1) over V with d = ln p - ln q.

    This equals the sum of p d, but no term is negative, so that float32 keeps its precision if teacher and student
    nearly agree. For d < -20 a term is computed as p (d - 1) + q.
    """
    d = logp - logq
    near = p * (d + torch.expm1(-d.clamp(min=-20)))
    return torch.where(d > -20, near, p * (d - 1) + logq.exp()).sum(-1)


def _teacher_logp(features: Tensor, head: Head) -> Tensor:
    """The teacher's log-probabilities [n, V] from its features [n, D] and output layer `head`, in the precision of its
    weights even where the student runs under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return head.product(features).log_softmax(-1)


@part
class Dcd(Distillation):
    """Discrete consistency distillation (DCD) loss: KL(student at time t || teacher at the less noisy time t - delta),
    with probabilities over the ids without special ones.

    `window`: gamma = -log SNR at t = 0 and t = 1; `grid`: 1 / delta in the first round; `round`: optimizer steps per
    round, after which delta doubles and the teacher becomes a copy of the student; `eps`: t - delta is drawn uniformly
    from [eps, 1), then t is limited to 1; `group`: mean over all scored tokens of the step (`GlobalBatch`), or over
    those of each group of rows and then over the groups (`RowGroup`). Raises ValueError for `grid` or `round` below 1,
    and for `eps` outside [0, 1)."""

    window: GammaWindow
    grid: int
    round: int
    eps: float
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"uniform"})
    score = "no bound"

    def __post_init__(self) -> None:
        check_below_one(self, "eps")
        for pin in ("grid", "round"):
            if getattr(self, pin) < 1:
                raise ValueError(f"objective dcd: {pin}={getattr(self, pin)} is too small; give 1 or more")

    def delta(self, step: int) -> float:
        """Difference t - s of the student's time t and the teacher's time s at optimizer step `step`, at most 1."""
        return min(1.0, 2.0 ** (step // self.round) / self.grid)

    def renews(self, step: int) -> bool:
        return step > 0 and step % self.round == 0

    def distil(self, denoiser: Denoiser, teacher: Denoiser, process: Process, batch: Batch) -> Loss:
        from functools import partial

        from repro.models.fused_head import fused_loss
        from repro.models.prediction import Prediction
        from repro.processes import gaussian
        from repro.processes.uniform import Uniform

        assert isinstance(process, Uniform)
        vocab_size, where, delta = batch.vocabulary.size, batch.candidates, self.delta(batch.step)
        drawn = rng.low_discrepancy(batch.seed, rng.TIME, batch.step, batch.index, len(batch.step_candidates))
        t = (self.eps + (1 - self.eps) * drawn + delta).clamp(max=1.0)
        span = self.window.high - self.window.low
        gammas = (self.window.low + span * t, self.window.low + span * (t - delta))
        keys = rng.keys(batch.seed, rng.NOISE, batch.step, batch.index)
        z_t, z_s = (
            torch.where(batch.noised, z, batch.ids) for z in path(batch.ids, gammas, keys, vocab_size)
        )
        (alpha_t, _), (alpha_s, _) = (gaussian.transform(gamma, vocab_size) for gamma in gammas)
        with torch.no_grad(), torch.autocast(batch.ids.device.type, enabled=False):
            target = Prediction(teacher, z_s, process.time(alpha_s), batch.attention).features(where)
        features = Prediction(denoiser, z_t, process.time(alpha_t), batch.attention).features(where)
        head = teacher.head().first(vocab_size)
        loss = HandDerived(partial(reverse_kl, head=head), partial(reverse_kl_gradient, head=head))
        weight = self.group.weights(batch.step_candidates, batch.index)[where.nonzero()[:, 0]]
        value, kl = fused_loss(features, denoiser.head().first(vocab_size), loss, weight, target)
        logs = {
            "t": t.sum(),
            "delta": torch.full_like(t, delta).sum(),
            "p_flip": ((1 - alpha_t) * (1 - 1 / vocab_size)).sum(),
        }
        return Loss(value, kl.sum(), int(where.sum()), logs)
