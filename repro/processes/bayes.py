"""Bayes' rule for a token under uniform noise (docs/method.md#uniform-process, docs/method.md#uniform-samplers).

A network trained by cross-entropy estimates E[x0 | xt], the distribution p(x0_l | xt) of the clean token at a position
l given all noisy tokens. The *leave-one-out* conditional p(x0_l | xt without z), given all noisy tokens but z, the one
at l, follows by Bayes' rule: it is proportional to p(x0_l = x | xt) / q(z | x) with q(z | x) = alpha [x = z] + (1 -
alpha)/K.

Shape suffixes: N tokens, K ids. z: noisy id; alpha: probability that a token is intact, at time t or s < t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leave_one_out(mean_NK: Tensor, z_N: Tensor, alpha_N: Tensor) -> Tensor:
    """Leave-one-out conditional of N tokens, [N, K] (see the module): probabilities of the clean token given all noisy
    tokens but the one at its own position. `mean` [N, K]: E[x0 | xt]; z [N]: noisy ids; alpha [N]: probability that a
    token is intact (docs/method.md#uniform-samplers)."""
    return _normalised(mean_NK / _evidence(mean_NK, z_N, alpha_N))


def x0_mean(loo_NK: Tensor, z_N: Tensor, alpha_N: Tensor) -> Tensor:
    """E[x0 | xt], [N, K], from the leave-one-out conditional [N, K] at noisy ids z [N], where a token is intact with
    probability alpha [N]: the inverse of `leave_one_out`."""
    return _normalised(loo_NK * _evidence(loo_NK, z_N, alpha_N))


def _evidence(like_NK: Tensor, z_N: Tensor, alpha_N: Tensor) -> Tensor:
    """Probability q(z | x) of the noisy id z [N] under each of the K clean ids x, [N, K]: alpha [x = z] + (1 -
    alpha)/K, where alpha [N] is the probability that a token is intact. `like` [N, K]: a tensor that gives the
    shape."""
    vocab_size = like_NK.shape[-1]
    flat_NK = ((1 - alpha_N) / vocab_size)[:, None].expand_as(like_NK)
    return flat_NK.scatter_add(1, z_N[:, None], alpha_N[:, None])


def _normalised(weights_NK: Tensor) -> Tensor:
    return weights_NK / weights_NK.sum(-1, keepdim=True)


def plug_in(loo_NK: Tensor, z_N: Tensor, alpha_t_N: Tensor, alpha_s_N: Tensor) -> Tensor:
    """Distribution of N tokens at time s < t, q(xs | xt = z, x), [N, K], with the leave-one-out probabilities `loo`
    [N, K] in place of the one-hot vector of the unknown clean token x (docs/method.md#uniform-process). z [N]: noisy
    ids at time t; alpha_t, alpha_s [N]: probability that a token is intact at time t and at time s."""
    vocab_size = loo_NK.shape[-1]
    ratio_N = alpha_t_N / alpha_s_N
    loo_z_N = loo_NK.gather(1, z_N[:, None])[:, 0]
    elsewhere_N = (1 - ratio_N) * (1 - alpha_s_N) / vocab_size
    law_NK = ((alpha_s_N - alpha_t_N)[:, None] * loo_NK).add_(elsewhere_N[:, None])
    at_z_N = vocab_size * alpha_t_N * loo_z_N + ratio_N - alpha_t_N
    total_N = vocab_size * alpha_t_N * loo_z_N + 1 - alpha_t_N
    return law_NK.scatter_add_(1, z_N[:, None], at_z_N[:, None]).div_(total_N[:, None])
