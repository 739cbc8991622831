"""Soft tokens of the Gaussian relaxation, two ways of one law: every coordinate, or only those that carry mass.

A token x at signal A and spread s has the latent w = A onehot(x) + s eps; its soft token is softmax(w / tau), its noisy
id z = argmax w (docs/method.md#uniform-script, docs/method.md#sparse-soft-tokens; Sahoo et al. 2025, The Diffusion
Duality, chapter 2). Divided by s, with mu = A / s and the sharpness S = s / tau, a coordinate y has weight exp(S y)
over the sum of all, and

    the true id's         y = mu + N(0, 1)
    those of the others   y_1 > y_2 > ... > y_N, the order statistics of N = K - 1 standard normals

At the temperatures that are trained a handful of the others holds all but 1e-4 of the mass. `sparse` draws the k
largest directly, gives them ids without replacement, each order alike, and counts the rest in the denominator by
(N - k) E[exp(S y) | y < y_k]. So it needs k numbers a token instead of K, and nothing [tokens, K] exists. `dense` is
the reference. Both compare the true coordinate with the largest other: z = x if and only if it exceeds y_1.

Symbols: B rows, L positions, K ids, k others kept, N = K - 1; everything is float64 but the weights returned.
"""

from __future__ import annotations

import math
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
"""Others that a sparse soft token may keep; where more are needed it is not sparse."""
TRIALS = 4096
"""Keyed draws from which the expected kept mass is estimated, the same at each of `LEVELS` noise levels."""
LEVELS = 9


class Drawn(NamedTuple):
    """A batch of corrupted tokens: `soft` [B, L, k + 1] (true id first) or [B, L, K]; `z` [B, L] noisy ids; `kept`
    [B, L] mass of the ids in `soft` before any rounding (1 when it has them all)."""

    soft: Soft
    z: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Range:
    """What a run asks of its soft tokens: `count` ids, gamma = -log SNR in [low, high], tau at most `hottest`."""

    count: int
    low: float
    high: float
    hottest: float


# --- the two ways -------------------------------------------------------------------------------------------------


def dense(x0: Tensor, gamma: Tensor, tau: float, keys: Tensor, count: int) -> Drawn:
    """All K coordinates: ids x0 [B, L] at gamma [B], one key a row [B]."""
    from repro.models.denoiser import Soft
    from repro.processes import gaussian

    latent = gaussian.relax(x0, gamma, rng.normal(keys, x0.shape[1], count), count)
    weights = (latent / tau).float().softmax(-1)
    return Drawn(Soft(None, weights), latent.argmax(-1), torch.ones_like(x0, dtype=torch.float64))


def sparse(x0: Tensor, gamma: Tensor, tau: float, keys: Tensor, count: int, others: int) -> Drawn:
    """The true coordinate and the k = `others` largest of the rest; arguments as `dense`.

    Weights are shares of the whole sum and not renormalised: they add up to `kept`. The largest logit is subtracted,
    so the greatest weight is representable at any temperature above 0 (docs/method.md#sparse-soft-tokens trap 2).
    """
    from repro.models.denoiser import Soft

    u = rng.uniform(keys, x0.shape[1], 2 * others + 1)
    largest = order_statistics(u[..., :others], count - 1)
    ids = distinct(x0, u[..., others:-1], count)
    mu, sharpness = (-gamma / 2).exp(), torch.sigmoid(gamma).sqrt() / tau
    true = mu[:, None] + torch.special.ndtri(u[..., -1])
    logits = sharpness[:, None, None] * torch.cat([true[..., None], largest], -1)
    rest = tail(sharpness[:, None], largest[..., -1], x0.new_tensor(count - 1 - others))
    weights = torch.cat([logits, rest[..., None]], -1).softmax(-1)[..., :-1]
    z = torch.where(true > largest[..., 0], x0, ids[..., 1])
    return Drawn(Soft(ids, weights.float()), z, weights.sum(-1))


def order_statistics(u: Tensor, count: int) -> Tensor:
    """The k largest of `count` = N standard normals, descending: uniforms [..., k] -> [..., k].

    U_(1) = u_1^(1/N), U_(j+1) = U_(j) u_(j+1)^(1/(N-j)), in logarithms and through the upper tail 1 - U, which a
    uniform near 1 would lose.
    """
    left = count - torch.arange(u.shape[-1], dtype=torch.float64, device=u.device)
    return -torch.special.ndtri(-torch.expm1((u.log() / left).cumsum(-1)))


def distinct(first: Tensor, u: Tensor, count: int) -> Tensor:
    """Ids [..., k + 1] without repetition: `first` [...], then k of the other ids, every order alike; u [..., k].

    The j-th draw is a rank among the ids not yet taken. From the last draw back, each rank steps over the ids taken
    before it (the decoding of a Lehmer code).
    """
    draws = u.shape[-1]
    left = count - 1 - torch.arange(draws, device=u.device)
    ids = torch.cat([first[..., None], (u * left).long()], -1)
    for j in reversed(range(draws)):
        ids[..., j + 1 :] += (ids[..., j + 1 :] >= ids[..., j : j + 1]).long()
    return ids


def tail(sharpness: Tensor, edge: Tensor, beyond: Tensor) -> Tensor:
    """log of `beyond` * E[exp(S y) | y < c], y standard normal: S = `sharpness`, c = `edge`; they broadcast.

    E = exp(S^2 / 2) Phi(c - S) / Phi(c), written by the scaled complementary error function, for S^2 / 2 reaches 1e15
    where S c is 1e8.
    """
    mills = torch.special.erfcx((sharpness - edge) / math.sqrt(2)) / 2
    mean = sharpness * edge - edge**2 / 2 + mills.log() - torch.special.log_ndtr(edge)
    return mean + beyond.double().log()


# --- how many to keep ---------------------------------------------------------------------------------------------


def expected_mass(asked: Range) -> Tensor:
    """Expected kept mass with 1, 2, ... others, at the worst noise level of the range, [min(N, MOST)] float64.

    Mean over `TRIALS` keyed draws. The tail stands as its mean, which by Jensen's inequality errs low.
    """
    rest = asked.count - 1
    size = min(rest, MOST)
    u = rng.uniform(rng.keys(0, rng.NOISE, 0, torch.arange(TRIALS)), size + 1)
    largest, noise = order_statistics(u[:, :-1], rest), torch.special.ndtri(u[:, -1:])
    beyond = rest - torch.arange(1, size + 1)
    worst = torch.ones(size, dtype=torch.float64)
    for gamma in torch.linspace(asked.low, asked.high, LEVELS, dtype=torch.float64):
        sharpness = torch.sigmoid(gamma).sqrt() / asked.hottest
        true = (-gamma / 2).exp() + noise
        inside = (sharpness * torch.cat([true, largest], -1)).logcumsumexp(-1)[:, 1:]
        kept = torch.sigmoid(inside - tail(sharpness, largest, beyond)).mean(0)
        worst = torch.minimum(worst, kept)
    return worst


@lru_cache(maxsize=16)
def others_for(asked: Range, mass: float) -> int:
    """The fewest others that keep an expected `mass` at every noise level of the range, at its largest temperature.

    Raises ValueError where not even `MOST` do.
    """
    kept = expected_mass(asked)
    enough = (kept >= mass).nonzero()
    if not len(enough):
        raise ValueError(
            f"sparse tokens keep a mass of {kept[-1].item():.6g} with {len(kept)} of {asked.count} ids at temperature"
            f" {asked.hottest:g}, not {mass}; lower the temperature, or use dense_tokens"
        )
    return int(enough[0, 0]) + 1


# --- parts --------------------------------------------------------------------------------------------------------


class Relaxation(Part):
    """Kind: how the soft token and the noisy id of a clean id are drawn; every way has one law."""

    def draw(self, asked: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        """Ids x0 [B, L] at gamma [B] and temperature tau, one key a row [B]; both within the range asked for."""
        raise AssertionError("a kind has no law of its own")


@part
class Dense(Relaxation):
    """Every coordinate of the latent: for vocabularies that fit."""

    def draw(self, asked: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        return dense(x0, gamma, tau, keys, asked.count)


@part
class Sparse(Relaxation):
    """As many ids as keep an expected `mass` of the soft token at the run's largest temperature."""

    mass: float

    def draw(self, asked: Range, x0: Tensor, gamma: Tensor, tau: float, keys: Tensor) -> Drawn:
        if tau > asked.hottest:
            raise ValueError(
                f"temperature {tau:g} is above {asked.hottest:g}, for which sparse tokens were sized"
            )
        return sparse(x0, gamma, tau, keys, asked.count, others_for(asked, self.mass))


def hold(soft: Soft, x0: Tensor, where: Tensor) -> Soft:
    """Soft tokens of the ids x0 [B, L] that stay clean where `where` [B, L] is false."""
    slot = x0 if soft.ids is None else torch.zeros_like(x0)
    clean = torch.zeros_like(soft.weights).scatter(-1, slot[..., None], 1.0)
    return soft._replace(weights=torch.where(where[..., None], soft.weights, clean))
