"""Uniform-state diffusion: a token is replaced by a uniform one (docs/method.md#duo; Austin et al. 2021, Sahoo et al.
2025).

    alpha(t) = 1 - (1 - alpha_end) t       q(xt | x0) = alpha x0 + (1 - alpha)/K
    q(s | t, x0) by Bayes (docs/method.md#uniform-process), with the network's leave-one-out conditional for x0
    bound = prior KL(q(x1 | x0) || uniform) + integral of the integrand f (docs/method.md#duo-nelbo)
            + tail -log p(x0 | x_eps)

The leave-one-out conditional is the distribution of a clean token given all noisy tokens but the one at its position. A
network trained by cross-entropy estimates E[x0 | xt] instead, which `bayes` turns into it. Exact outputs of either
meaning ("leave_one_out" or "x0_mean") give the same reverse step (docs/method.md#oracle-11).

Shape suffixes: B rows, L positions, N tokens, K = vocab_size ids without special ones, V ids with them. z: noisy id.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import check_below_one, part
from repro.data.corpus import Vocabulary
from repro.processes.bayes import leave_one_out, plug_in
from repro.processes.prediction import HandDerived
from repro.processes.process import Diffusion, Scored, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Meaning, Predict, Prediction, TokenLoss


def integrand(loo_NK: Tensor, x_N: Tensor, z_N: Tensor, alpha_N: Tensor, slope_N: Tensor) -> Tensor:
    """Integrand f >= 0 of the NELBO per token, in nats, [N] float64 (docs/method.md#duo-nelbo).

    `loo` [N, K]: the network's leave-one-out conditional; x clean and z noisy ids; alpha: probability that a token is
    intact, and `slope` = d alpha / dt < 0, [N] each.
    """
    mixed_NK = loo_NK.shape[-1] * alpha_N[:, None] * loo_NK + (1 - alpha_N)[:, None]
    log_NK = mixed_NK.log()
    mixed_z_N = mixed_NK.gather(1, z_N[:, None])[:, 0]
    log_z_N, log_x_N = (log_NK.gather(1, ids_N[:, None])[:, 0] for ids_N in (z_N, x_N))
    constants = _constants((z_N == x_N).double(), alpha_N, loo_NK.shape[-1])
    return _assembled(constants, slope_N, mixed_z_N, log_z_N, log_x_N, log_NK.sum(-1))


class _Constants(NamedTuple):
    """The factors `scaled`, `true_z`, `every`, `label` and `rest`, [N] each, of the NELBO's integrand f below. These
    depend on a token's clean id x, noisy id z and noise level alone, not on the network's leave-one-out probabilities
    loo_j of the K = `vocab_size` ids. With m_j = K alpha loo_j + 1 - alpha and slope = d alpha / dt,

    f = slope / scaled (K / true_z - K / m_z + every (sum_j log m_j - K log m_z) + label (log m_x - log m_z) - rest).
    """

    scaled_N: Tensor
    true_z_N: Tensor
    every_N: Tensor
    label_N: Tensor
    rest_N: Tensor
    vocab_size: int


def _constants(same_N: Tensor, alpha_N: Tensor, vocab_size: int) -> _Constants:
    """The factors of the NELBO's integrand that do not depend on the network's output (`_Constants`), for N tokens.
    `same` [N]: 1 where the noisy id equals the clean id, else 0; alpha [N]: probability that a token is intact; K =
    `vocab_size`."""
    noise_N = 1 - alpha_N
    other_N = 1 - same_N
    kappa_N = noise_N / (vocab_size * alpha_N + noise_N)
    return _Constants(
        vocab_size * alpha_N,
        vocab_size * alpha_N * same_N + noise_N,
        kappa_N * same_N + other_N,
        other_N * vocab_size * alpha_N / noise_N,
        ((vocab_size - 1) * kappa_N * same_N - other_N / kappa_N) * kappa_N.log(),
        vocab_size,
    )


def _assembled(
    of: _Constants, slope_N: Tensor, mixed_z_N: Tensor, log_z_N: Tensor, log_x_N: Tensor, log_sum_N: Tensor
) -> Tensor:
    vocab_size = of.vocab_size
    braces_N = (
        vocab_size / of.true_z_N
        - vocab_size / mixed_z_N
        + of.every_N * (log_sum_N - vocab_size * log_z_N)
        + of.label_N * (log_x_N - log_z_N)
        - of.rest_N
    )
    return slope_N / of.scaled_N * braces_N


def token_nll(
    logits_NV: Tensor,
    x_N: Tensor,
    z_N: Tensor,
    alpha_N: Tensor,
    slope_N: Tensor,
    vocab_size: int,
    meaning: Meaning,
) -> Tensor:
    """Integrand f >= 0 of the NELBO per token, nats, [N] float64, from logits [N, V] of a network whose output has the
    given `meaning`. x, z [N]: clean and noisy ids; alpha [N]: probability that a token is intact; `slope` [N]: d alpha
    / dt < 0. The softmax is over the first K = `vocab_size` of the V ids."""
    probs_NK = logits_NV[:, :vocab_size].double().softmax(-1)
    return integrand(conditional(probs_NK, z_N, alpha_N, meaning), x_N, z_N, alpha_N, slope_N)


def token_nll_gradient(
    logits_NV: Tensor, x_N: Tensor, z_N: Tensor, alpha_N: Tensor, slope_N: Tensor, vocab_size: int
) -> Tensor:
    """Integrand f of the NELBO per token, nats, [N] float64, as from `token_nll` with the same arguments and `meaning`
    "leave_one_out"; also overwrites the logits [N, V] by the gradient of f (docs/method.md#duo-nelbo).

    With p the softmax, u_j = K alpha p_j and m_j = u_j + 1 - alpha, df/dlogit_k = u_k (g_k - sum_j u_j g_j / (K
    alpha)), where g_j is the derivative of f by u_j. It needs four tensors [N, K] in float64; autograd needs twelve.
    """
    row_N = torch.arange(len(x_N), device=x_N.device)
    of = _constants((z_N == x_N).double(), alpha_N, vocab_size)
    u_NK = logits_NV[:, :vocab_size].double().softmax(-1).mul_(of.scaled_N[:, None])
    mixed_NK = u_NK + (1 - alpha_N)[:, None]
    mixed_z_N, mixed_x_N = mixed_NK[row_N, z_N], mixed_NK[row_N, x_N]
    loss_N = _assembled(of, slope_N, mixed_z_N, mixed_z_N.log(), mixed_x_N.log(), _sum_of_logs(mixed_NK))
    scale_N = slope_N / of.scaled_N
    z_term_N = scale_N * (vocab_size / mixed_z_N - vocab_size * of.every_N - of.label_N) / mixed_z_N
    at_z_N, at_x_N = u_NK[row_N, z_N] * z_term_N, u_NK[row_N, x_N] * scale_N * of.label_N / mixed_x_N
    every_NK = torch.div((scale_N * of.every_N)[:, None], mixed_NK, out=mixed_NK)
    sum_N = torch.linalg.vecdot(u_NK, every_NK) + at_z_N + at_x_N
    gradient_NK = every_NK.sub_((sum_N / of.scaled_N)[:, None]).mul_(u_NK)
    gradient_NK[row_N, z_N] += at_z_N
    gradient_NK[row_N, x_N] += at_x_N
    logits_NV[:, :vocab_size] = gradient_NK
    logits_NV[:, vocab_size:] = 0
    return loss_N


def _sum_of_logs(values_NK: Tensor) -> Tensor:
    """Sum over K of the logarithms of `values` [N, K], [N]. The logarithms are taken of products of up to eight values,
    because a logarithm takes as long as ten multiplications; values must lie between 1e-38 and 1e38, so that float64
    can represent the products."""
    rest = []
    for _ in range(3):
        half = values_NK.shape[1] // 2
        rest.append(values_NK[:, 2 * half :])
        values_NK = values_NK[:, :half] * values_NK[:, half : 2 * half]
    return torch.cat([values_NK, *rest], 1).log().sum(-1)


def token_loss(vocab_size: int, meaning: Meaning) -> TokenLoss:
    """The integrand of the NELBO as a loss per token: `token_nll` with K = `vocab_size` ids and a network's `meaning`
    filled in; for the meaning "leave_one_out" it has a hand-written derivative (`HandDerived`)."""
    loss = partial(token_nll, vocab_size=vocab_size, meaning=meaning)
    if meaning != "leave_one_out":
        return loss
    return HandDerived(loss, partial(token_nll_gradient, vocab_size=vocab_size))


def conditional(probs_NK: Tensor, z_N: Tensor, alpha_N: Tensor, meaning: Meaning) -> Tensor:
    """The leave-one-out conditional, [N, K], from probabilities [N, K] of a network whose output has the given
    `meaning`, at noisy ids z [N] of tokens that are intact with probability alpha [N]."""
    return probs_NK if meaning == "leave_one_out" else leave_one_out(probs_NK, z_N, alpha_N)


@part
class Uniform(Diffusion):
    """Uniform noise over K = `vocabulary.size` ids; `alpha_end` = alpha(1), the probability that a token is intact at t
    = 1; `eps`: lower end in t of the bound's integral. Raises ValueError for either outside [0, 1)."""

    alpha_end: float
    eps: float

    noise = "uniform"
    redraws = True

    def __post_init__(self) -> None:
        check_below_one(self, "alpha_end", "eps")

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return tuple(range(vocabulary.size, vocabulary.total))

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - (1 - self.alpha_end) * t

    def time(self, alpha: Tensor) -> Tensor:
        """Times t, of the shape of `alpha`, at which alpha(t) has these values: the inverse of the method `alpha`."""
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
        # one uniform number a position: below alpha the token is intact, else the rescaled remainder chooses the id
        fresh = ((u - intact) / (1 - intact) * vocabulary.size).floor().long().clamp(0, vocabulary.size - 1)
        return torch.where((u >= intact) & candidates, fresh, x0)

    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        rows = where.nonzero()[:, 0]
        alpha_t, alpha_s = (self.alpha(time.double())[rows] for time in (t, s))
        law = plug_in(self.leave_one_out(prediction, xt, t, where), xt[where], alpha_t, alpha_s)
        special = prediction.vocabulary.total - prediction.vocabulary.size
        return torch.nn.functional.pad(law, (0, special)) if special else law

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
        loss = token_loss(vocabulary.size, meaning)
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
        """Estimate per row, nats, [B], of the bound's tail -log p(x0 | x_eps), from one draw of the noisy ids x_eps at
        time eps; p is the distribution of the reverse step from eps to 0 (`posterior`). `predict` runs the network; x0
        [B, L]: clean ids; `candidates` [B, L] bool: scored positions; `keys` [B]: one random key per row. It is 0 for
        `eps` 0, where x_eps is x0 (and no leave-one-out conditional follows from E[x0 | xt])."""
        if self.eps == 0:
            return torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        end = torch.full(x0.shape[:1], self.eps, dtype=torch.float64, device=x0.device)
        xe = self.corrupt(x0, end, rng.fold(keys, 1), candidates, vocabulary)
        law = self.posterior(xe, predict(xe, end), end, torch.zeros_like(end), candidates)
        return -row_sums(law.gather(1, x0[candidates][:, None])[:, 0].log(), candidates)

    def prior_term(self, candidates: Tensor, vocabulary: Vocabulary) -> Tensor:
        """KL(q(x1 | x0) || uniform) summed over the `candidates` [B, L] of each row, nats, [B]; every candidate adds
        the same number."""
        law_K = torch.full((vocabulary.size,), (1 - self.alpha_end) / vocabulary.size, dtype=torch.float64)
        law_K[0] += self.alpha_end
        return candidates.sum(1).double() * (law_K * (law_K * vocabulary.size).log()).sum().item()
