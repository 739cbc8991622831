"""The Gaussian relaxation of uniform noise: argmax of a noisy one-hot vector (docs/method.md#flip-probability,
docs/method.md#transformation-operator; Sahoo et al. 2025, arXiv 2506.10892).

    w = A onehot(x) + s eps,  eps ~ N(0, I_K),  s = sqrt(1 - A^2);   z = argmax w  has law  T(A) x + (1 - T(A))/K
    mu = A / s,  gamma = -log(A^2 / s^2),  so mu = exp(-gamma / 2)

P(argmax = x) is an integral over the coordinate z of x in w / s, P(mu) = Int phi(z - mu) Phi(z)^(K-1) dz. It is
computed by the trapezoid rule, whose error for such integrands falls faster than any power of the step (tested against
16 times as many points). Symbols: A in (0, 1) signal level, T(A) the probability that uniform noise leaves a token
intact (its alpha), w Gaussian latent, x clean and z noisy token; K = `vocab_size`, without special ids; B rows, L
positions, [...] any shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 1001
"""Number of points of the trapezoid rule."""
REACH = 10.0
"""The integral is over z - mu in [-REACH, REACH]."""


def argmax_probability(mu: Tensor, vocab_size: int, points: int = POINTS) -> tuple[Tensor, Tensor]:
    """P(mu) and its derivative dP/dmu, float64 of the shape of `mu` [...]. P(mu) is the probability that the clean id x
    has the largest of the K = `vocab_size` coordinates of its Gaussian latent w = A onehot(x) + s eps, for mu = A / s
    (signal over noise). `points`: number of points of the trapezoid rule that computes the integral."""
    step = 2 * REACH / (points - 1)
    offset = torch.linspace(-REACH, REACH, points, dtype=torch.float64, device=mu.device)
    z = mu.double()[..., None] + offset
    log_integrand = (vocab_size - 1) * torch.special.log_ndtr(z) - offset**2 / 2
    integrand = log_integrand.exp() * (step / math.sqrt(2 * math.pi))
    return integrand.sum(-1), (integrand * offset).sum(-1)


def transform(gamma: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """T(A), the probability that a token is intact at Gaussian signal level A, and the derivative of T by gamma, two
    float64 tensors [...], for gamma = -log of the signal-to-noise ratio A^2 / s^2, [...], and K = `vocab_size` ids
    (docs/method.md#transformation-operator)."""
    mu = (-gamma.double() / 2).exp()
    probability, slope = argmax_probability(mu, vocab_size)
    scale = vocab_size / (vocab_size - 1)
    return scale * (probability - 1 / vocab_size), scale * slope * (-mu / 2)


def gamma_of(signal: Tensor) -> Tensor:
    """gamma = -log(A^2 / (1 - A^2)), float64 [...], of signal levels A = `signal` [...]."""
    signal = signal.double()
    return (1 - signal**2).log() - 2 * signal.log()


def relax(x0: Tensor, gamma: Tensor, noise: Tensor, vocab_size: int) -> Tensor:
    """Gaussian latent w = A onehot(x0) + s noise, [B, L, K], of clean ids x0 [B, L]; gamma = -log(A^2 / s^2) [B]
    determines A and s = sqrt(1 - A^2), `noise` [B, L, K] is standard normal, and K = `vocab_size`."""
    signal, spread = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
    clean = torch.nn.functional.one_hot(x0, vocab_size)
    return signal[:, None, None] * clean + spread[:, None, None] * noise


def invert(level: float, vocab_size: int) -> float:
    """The gamma (negative log signal-to-noise ratio, see the module) in [-40, 40] at which a token is intact with
    probability T(A) = `level` for `vocab_size` ids, by bisection of that interval to 1e-12."""
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        above = transform(torch.tensor(middle, dtype=torch.float64), vocab_size)[0].item() > level
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2
