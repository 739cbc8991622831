"""Soft tokens of the Gaussian relaxation, drawn in two ways: all coordinates (dense), or only the largest (sparse).

A token x at signal A and spread s has the latent w = A onehot(x) + s eps; its soft token is softmax(w / tau), its noisy
id z = argmax w (docs/method.md#uniform-script, docs/method.md#sparse-soft-tokens; Sahoo et al. 2025, The Diffusion
Duality, chapter 2). After division of w by s, with mu = A / s and the sharpness S = s / tau, an id with coordinate y
has the weight exp(S y) divided by the sum over all ids, and

    the true id's         y = mu + N(0, 1)
    those of the others   y_1 > y_2 > ... > y_N, the order statistics of N = K - 1 standard normals

At the temperatures used in training, the true id and the few others with the largest y hold all but 1e-4 of the
probability mass. `sparse` draws the k largest y directly, gives them ids without replacement, all orders equally
likely, and replaces the sum over the other N - k ids in the denominator by its mean, (N - k) E[exp(S y) | y < y_k]. So
`sparse` needs of the order of k random numbers per token instead of K, and no tensor [tokens, K]. `dense` draws all
coordinates, as a reference. In both, z = x if and only if the true id's y exceeds y_1.

Symbols: B rows, L positions, K vocabulary size, k other ids that are drawn, N = K - 1; gamma = -log SNR = -log(A^2 /
s^2), tau softmax temperature. All computation is in float64; the returned weights are float32.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Soft

MOST = 128
"""Largest number of other ids in a sparse soft token; if more are needed, dense tokens are the better choice."""
TRIALS = 4096
"""Random draws from which `expected_mass` is estimated, with the same keys at each noise level."""
LEVELS = 9
"""Number of noise levels at which `expected_mass` is estimated."""


class Drawn(NamedTuple):
    """Corrupted tokens of B rows of L positions. `soft`: soft tokens, with weights [B, L, k + 1] of the true id and k
    others in this order, or [B, L, K] of all K ids; `z` [B, L]: noisy ids; `mass` [B, L]: probability mass that the ids
    in `soft` cover (1 if it has all ids)."""

    soft: Soft
    z: Tensor
    mass: Tensor


@dataclass(frozen=True)
class Range:
    """Limits of the soft tokens of a run: `vocab_size` ids, noise level gamma = -log SNR in [low, high], and softmax
    temperature tau at most `hottest`."""

    vocab_size: int
    low: float
    high: float
    hottest: float


# --- the two ways -------------------------------------------------------------------------------------------------


def dense(x0: Tensor, gamma: Tensor, tau: float, keys: Tensor, vocab_size: int) -> Drawn:
    """Soft tokens, [B, L, K] weights over all K = `vocab_size` ids, from the clean ids x0 [B, L].

    gamma [B]: noise level -log SNR; tau: softmax temperature; `keys` [B]: one random key per row.
    """
    from repro.models.denoiser import Soft
    from repro.processes import gaussian

    latent = gaussian.relax(x0, gamma, rng.normal(keys, x0.shape[1], vocab_size), vocab_size)
    weights = (latent / tau).float().softmax(-1)
    return Drawn(Soft(None, weights), latent.argmax(-1), torch.ones_like(x0, dtype=torch.float64))


def sparse(x0: Tensor, gamma: Tensor, tau: float, keys: Tensor, vocab_size: int, others: int) -> Drawn:
    """Corrupted tokens with the weights of the true id and of the k = `others` other ids with the largest weights.

    x0 [B, L]: clean ids; gamma [B]: noise level -log SNR; tau: softmax temperature; `keys` [B]: one random key per row.
    Weights are shares of the sum over all `vocab_size` ids and are not renormalised: they add up to `mass`. The largest
    logit is subtracted, so that the largest weight is representable at any temperature above 0
    (docs/method.md#sparse-soft-tokens trap 2).
    """
    from repro.models.denoiser import Soft

    u = rng.uniform(keys, x0.shape[1], 2 * others + 1)
    largest = order_statistics(u[..., :others], vocab_size - 1)
    ids = distinct(x0, u[..., others:-1], vocab_size)
    mu, sharpness = (-gamma / 2).exp(), torch.sigmoid(gamma).sqrt() / tau
    true = mu[:, None] + torch.special.ndtri(u[..., -1])
    logits = sharpness[:, None, None] * torch.cat([true[..., None], largest], -1)
    rest = tail(sharpness[:, None], largest[..., -1], x0.new_tensor(vocab_size - 1 - others))
    weights = torch.cat([logits, rest[..., None]], -1).softmax(-1)[..., :-1]
    z = torch.where(true > largest[..., 0], x0, ids[..., 1])
    return Drawn(Soft(ids, weights.float()), z, weights.sum(-1))


def order_statistics(u: Tensor, count: int) -> Tensor:
    """The k largest of N = `count` standard normal variables, descending, [..., k], from uniform numbers u [..., k].

    They are the normal quantiles of the k largest of N uniform numbers, U_(1) = u_1^(1/N) and U_(j+1) = U_(j)
    u_(j+1)^(1/(N-j)), computed in logarithms and through 1 - U, which keeps its precision for U near 1.
    """
    left = count - torch.arange(u.shape[-1], dtype=torch.float64, device=u.device)
    return -torch.special.ndtri(-torch.expm1((u.log() / left).cumsum(-1)))


def distinct(first: Tensor, u: Tensor, vocab_size: int) -> Tensor:
    """Ids [..., k + 1] without repetition: `first` [...], then k other ids below `vocab_size`, all orders equally
    likely, from uniform numbers u [..., k].

    The j-th draw is a rank among the ids not yet taken; going back from the last draw, each rank is shifted past the
    ids taken before it (the decoding of a Lehmer code).
    """
    draws = u.shape[-1]
    left = vocab_size - 1 - torch.arange(draws, device=u.device)
    ids = torch.cat([first[..., None], (u * left).long()], -1)
    for j in reversed(range(draws)):
        ids[..., j + 1 :] += (ids[..., j + 1 :] >= ids[..., j : j + 1]).long()
    return ids


def tail(sharpness: Tensor, edge: Tensor, beyond: Tensor) -> Tensor:
    """Log of the expected total weight of the `beyond` ids that are not drawn, `beyond` * E[exp(S y) | y < c].

    y: standard normal; S = `sharpness` = s / tau; c = `edge`, the smallest coordinate drawn. The arguments broadcast.

    E = exp(S^2 / 2) Phi(c - S) / Phi(c) is computed with the scaled complementary error function, because S^2 / 2
    reaches 1e15 when S c is 1e8.
    """
    mills = torch.special.erfcx((sharpness - edge) / math.sqrt(2)) / 2
    mean = sharpness * edge - edge**2 / 2 + mills.log() - torch.special.log_ndtr(edge)
    return mean + beyond.double().log()


# --- how many to keep ---------------------------------------------------------------------------------------------


def expected_mass(limits: Range) -> Tensor:
    """Expected probability mass that a soft token covers with the true id and 1, 2, ... other ids, at the noise level
    (of 9 in `limits`) where it is least: float64 [min(N, 128)], N = `vocab_size` - 1.

    Mean over 4,096 draws (`TRIALS`) from fixed keys. The weight of the remaining ids is replaced by its mean, which by
    Jensen's inequality underestimates the mass.
    """
    rest = limits.vocab_size - 1
    size = min(rest, MOST)
    u = rng.uniform(rng.keys(0, rng.NOISE, 0, torch.arange(TRIALS)), size + 1)
    largest, noise = order_statistics(u[:, :-1], rest), torch.special.ndtri(u[:, -1:])
    beyond = rest - torch.arange(1, size + 1)
    worst = torch.ones(size, dtype=torch.float64)
    for gamma in torch.linspace(limits.low, limits.high, LEVELS, dtype=torch.float64):
        sharpness = torch.sigmoid(gamma).sqrt() / limits.hottest
        true = (-gamma / 2).exp() + noise
        inside = (sharpness * torch.cat([true, largest], -1)).logcumsumexp(-1)[:, 1:]
        mass = torch.sigmoid(inside - tail(sharpness, largest, beyond)).mean(0)
        worst = torch.minimum(worst, mass)
    return worst


@lru_cache(maxsize=16)
def others_for(limits: Range, mass: float) -> int:
    """Smallest number of ids besides the true one with which a soft token covers an expected probability `mass` at
    every noise level of `limits`, at the temperature `limits.hottest`.

    Raises ValueError if more than 128 (`MOST`) are needed.
    """
    expected = expected_mass(limits)
    enough = (expected >= mass).nonzero()
    if not len(enough):
        raise ValueError(
            f"sparse_tokens: {len(expected)} ids besides the true one, of {limits.vocab_size}, cover a probability mass"
            f" of {expected[-1].item():.6g} at temperature {limits.hottest:g}, not {mass}; lower the setting"
            " `temperature` or `mass`, or use dense_tokens"
        )
    return int(enough[0, 0]) + 1


# --- parts --------------------------------------------------------------------------------------------------------


class Relaxation(Part):
    """Base class of the methods that draw, for a clean id, its soft token and noisy id; all draw from the same joint
    distribution."""

    @abstractmethod
    def draw(self, limits: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        """Corrupted tokens of the clean ids x0 [B, L] at noise level gamma = -log SNR [B] and softmax temperature tau,
        both within `limits`; `keys` [B]: one random key per row."""


@part
class Dense(Relaxation):
    """Soft tokens with a weight for every id of the vocabulary (`Sparse` has a few), for small vocabularies."""

    def draw(self, limits: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        return dense(x0, gamma, tau, keys, limits.vocab_size)


@part
class Sparse(Relaxation):
    """Soft tokens with weights of the clean id and of the fewest others whose expected sum of weights is at least
    `mass` at the highest temperature of the run.

    `draw` raises ValueError for a temperature above the highest one, and if more than 128 other ids (`MOST`) are
    needed; the part itself for a `mass` outside (0, 1).
    """

    mass: float

    def __post_init__(self) -> None:
        if not 0 < self.mass < 1:
            raise ValueError(
                f"sparse_tokens: mass={self.mass} is outside (0, 1); give a share such as 0.9999"
            )

    def draw(self, limits: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        if tau > limits.hottest:
            raise ValueError(
                f"temperature {tau:g} is above {limits.hottest:g}, the largest of the objective's setting"
                " `temperature`, for which the number of ids in sparse_tokens was chosen; raise that setting"
            )
        return sparse(x0, gamma, tau, keys, limits.vocab_size, others_for(limits, self.mass))


def hold(soft: Soft, x0: Tensor, where: Tensor) -> Soft:
    """Soft tokens of B rows of L positions: those of `soft` where `where` [B, L] is True, elsewhere the clean ids x0
    [B, L] with weight 1. If `soft` has ids, the first id of each soft token must be that of x0 (see `Drawn`)."""
    slot = x0 if soft.ids is None else torch.zeros_like(x0)
    clean = torch.zeros_like(soft.weights).scatter(-1, slot[..., None], 1.0)
    return soft._replace(weights=torch.where(where[..., None], soft.weights, clean))
