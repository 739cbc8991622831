"""Uniform-state diffusion: a token is replaced by a uniform one (docs/method.md#duo; Austin et al. 2021, Sahoo et al.
2025).

    alpha(t) = 1 - (1 - alpha_end) t       q(xt | x0) = alpha x0 + (1 - alpha)/K
    q(s | t, x0) by Bayes (docs/method.md#uniform-process), with the network's leave-one-out conditional plugged in
    for x0 NELBO integrand f by docs/method.md#duo-nelbo; prior KL(q(x1 | x0) || uniform) and tail -log p(x0 | x_eps)
    complete the bound

A network trained by cross-entropy says E[x0 | xt]; its leave-one-out conditional follows by dividing out what xt says
of its own position: loo(x) ~ p(x | xt) / (alpha [x = z] + (1 - alpha)/K). Both meanings give the same law
(docs/method.md#oracle-11).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.processes.process import Diffusion, Scored, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction
    from repro.processes.prediction import Meaning
    from repro.processes.process import Predict


def leave_one_out(mean: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
    """E[x0 | xt] [N, K] at noisy ids z [N] and alpha [N] -> p(x0_l | xt without l) [N, K]
    (docs/method.md#uniform-samplers)."""
    return _normalised(mean / _evidence(mean, z, alpha))


def x0_mean(loo: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
    """The inverse of `leave_one_out`: [N, K] -> [N, K]."""
    return _normalised(loo * _evidence(loo, z, alpha))


def _evidence(like: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
    """q(z | x) for every x: alpha [x = z] + (1 - alpha)/K, [N, K]."""
    count = like.shape[-1]
    flat = ((1 - alpha) / count)[:, None].expand_as(like)
    return flat.scatter_add(1, z[:, None], alpha[:, None])


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def plug_in(loo: Tensor, z: Tensor, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """q(xs | xt = z, x) with `loo` [N, K] for x, in numerator and denominator (docs/method.md#uniform-process): [N,
    K]."""
    count = loo.shape[-1]
    ratio = alpha_t / alpha_s
    here = loo.gather(1, z[:, None])[:, 0]
    law = (alpha_s - alpha_t)[:, None] * loo + ((1 - ratio) * (1 - alpha_s) / count)[:, None]
    at_z = count * alpha_t * here + ratio - alpha_t
    return law.scatter_add(1, z[:, None], at_z[:, None]) / (count * alpha_t * here + 1 - alpha_t)[:, None]


def integrand(loo: Tensor, x: Tensor, z: Tensor, alpha: Tensor, slope: Tensor) -> Tensor:
    """NELBO integrand f >= 0 of a token (docs/method.md#duo-nelbo), [N] float64.

    `loo` [N, K] the network's conditional, x [N] clean and z [N] noisy ids, `slope` = d alpha / dt < 0, [N].
    """
    count = loo.shape[-1]
    gap = 1 - alpha
    same = (z == x).double()
    other = 1 - same
    shape = count * alpha[:, None] * loo + gap[:, None]
    log_shape = shape.log()
    shape_z = shape.gather(1, z[:, None])[:, 0]
    log_z, log_x = (log_shape.gather(1, id[:, None])[:, 0] for id in (z, x))
    true_z = count * alpha * same + gap
    kappa = gap / (count * alpha + gap)
    braces = (
        count / true_z
        - count / shape_z
        + (kappa * same + other) * (log_shape.sum(-1) - count * log_z)
        + other * count * alpha / gap * (log_x - log_z)
        - ((count - 1) * kappa * same - other / kappa) * kappa.log()
    )
    return slope / (count * alpha) * braces


def token_nll(
    logits: Tensor, x: Tensor, z: Tensor, alpha: Tensor, slope: Tensor, count: int, meaning: Meaning
) -> Tensor:
    """`integrand` of a network of that meaning over the ids 0..count - 1: logits [N, V] -> [N] float64."""
    probs = logits[:, :count].double().softmax(-1)
    return integrand(conditional(probs, z, alpha, meaning), x, z, alpha, slope)


def conditional(probs: Tensor, z: Tensor, alpha: Tensor, meaning: Meaning) -> Tensor:
    """A network's probabilities [N, K], whatever they mean -> its leave-one-out conditional [N, K]."""
    return probs if meaning == "leave_one_out" else leave_one_out(probs, z, alpha)


@part
class Uniform(Diffusion):
    """Uniform noise over K = `vocabulary.size` ids; `alpha_end` = alpha(1), `eps`: lower end of the time integral."""

    alpha_end: float
    eps: float

    redraws = True

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return tuple(range(vocabulary.size, vocabulary.total))

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - (1 - self.alpha_end) * t

    def time(self, alpha: Tensor) -> Tensor:
        """The t at which a token is intact with probability `alpha`."""
        return (1 - alpha) / (1 - self.alpha_end)

    def prior(self, vocabulary: Vocabulary) -> Tensor:
        law = torch.zeros(vocabulary.total, dtype=torch.float64)
        law[: vocabulary.size] = 1 / vocabulary.size
        return law

    def marginal(self, x0: Tensor, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        alpha = self.alpha(t.double())[:, None, None]
        return alpha * torch.nn.functional.one_hot(x0, vocabulary.total) + (1 - alpha) * self.prior(
            vocabulary
        )

    def corrupt(
        self, x0: Tensor, t: Tensor, keys: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        u = rng.uniform(keys, x0.shape[1])
        intact = self.alpha(t.double())[:, None]
        # one uniform a position: below alpha intact, else its rescaled rest chooses the id
        fresh = ((u - intact) / (1 - intact) * vocabulary.size).floor().long().clamp(0, vocabulary.size - 1)
        return torch.where((u >= intact) & candidates, fresh, x0)

    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        rows = where.nonzero()[:, 0]
        alpha_t, alpha_s = (self.alpha(time.double())[rows] for time in (t, s))
        law = plug_in(self.leave_one_out(prediction, xt, t, where), xt[where], alpha_t, alpha_s)
        special = prediction.vocabulary.total - prediction.vocabulary.size
        return torch.nn.functional.pad(law, (0, special))

    def leave_one_out(self, prediction: Prediction, xt: Tensor, t: Tensor, where: Tensor) -> Tensor:
        alpha = self.alpha(t.double())[where.nonzero()[:, 0]]
        probs = prediction.probs(where)[:, : prediction.vocabulary.size]
        return conditional(probs, xt[where], alpha, prediction.meaning)

    def p_flip(self, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        return (1 - self.alpha(t.double())) * (1 - 1 / vocabulary.size)

    def scored(
        self,
        meaning: Meaning,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Scored:
        alpha = self.alpha(t.double())[candidates.nonzero()[:, 0]]
        slope = torch.full_like(alpha, self.alpha_end - 1)
        loss = partial(token_nll, count=vocabulary.size, meaning=meaning)
        return Scored(candidates, loss, (x0[candidates], xt[candidates], alpha, slope))

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        t = self.eps + (1 - self.eps) * u
        xt = self.corrupt(x0, t, rng.fold(keys, 0), candidates, vocabulary)
        middle = (1 - self.eps) * self.nll(predict(xt, t), x0, xt, t, candidates, vocabulary)
        return (
            middle
            + self.tail(predict, x0, candidates, vocabulary, keys)
            + self.prior_term(candidates, vocabulary)
        )

    def tail(
        self, predict: Predict, x0: Tensor, candidates: Tensor, vocabulary: Vocabulary, keys: Tensor
    ) -> Tensor:
        """One draw of -log p(x0 | x_eps) a row, the step from eps to 0 by the plug-in posterior, [B]."""
        end = torch.full(x0.shape[:1], self.eps, dtype=torch.float64, device=x0.device)
        xe = self.corrupt(x0, end, rng.fold(keys, 1), candidates, vocabulary)
        law = self.posterior(xe, predict(xe, end), end, torch.zeros_like(end), candidates)
        return -row_sums(law.gather(1, x0[candidates][:, None])[:, 0].log(), candidates)

    def prior_term(self, candidates: Tensor, vocabulary: Vocabulary) -> Tensor:
        """KL(q(x1 | x0) || uniform) a row, nats, [B]: the same for every token."""
        count, gap = vocabulary.size, (1 - self.alpha_end) / vocabulary.size
        law = torch.full((count,), gap, dtype=torch.float64)
        law[0] += self.alpha_end
        return candidates.sum(1).double() * (law * (law * count).log()).sum().item()
