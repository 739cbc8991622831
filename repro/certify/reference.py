"""Reference for ancestral sampling on an enumerated law: its output law, and the error of its independent draws.

A step from t to s draws every position from its own marginal of q(xs | xt). As a matrix over all noisy sentences this
gives the exact output law of N steps without the decoding loop, and so checks what `repro.samplers.law` enumerates.
Compared with the true joint reverse step it gives the *path KL*,

    sum over steps of E KL( p(xs | xt) || product over positions of p(xs_l | xt) )  >=  KL(law || sampler).

Symbols: S sentences, Z noisy sentences; `states` [Z, L]: all noisy sentences.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from repro.certify.space import Enumerated, Noise, words
from repro.core.lazy import torch
from repro.processes.bayes import plug_in

if TYPE_CHECKING:
    from torch import Tensor


class Reference(NamedTuple):
    """Result of ancestral sampling with the exact denoiser: its output law [S] over S sentences, and its path KL in
    nats per sentence. The path KL is the sum over steps of the mean KL( p(xs | xt) || product over positions of p(xs_l
    | xt) ), p being the true reverse process; it is an upper bound on KL(law || output law)."""

    law: Tensor
    path_kl: float


@functools.lru_cache
def ancestral(source: Enumerated, noise: Noise, steps: int) -> Reference:
    """Exact output law of ancestral sampling in `steps` evenly spaced steps from t = 1 (pure noise) to t = 0, with the
    exact denoiser of the law `source` under `noise`; and its path KL, the sum over steps of the mean KL(true joint
    reverse step || the sampler's step, which draws each position independently), see `Reference`."""
    symbols = source.vocab + (noise == "absorbing")
    states = words(symbols, source.length)
    clean = (states < source.vocab).all(1)
    found = _start(states, source, noise)
    lost = 0.0
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        step = _independent(source, noise, states, t, s)
        lost += (
            (_marginal(source, noise, states, t) * _losses(source, noise, states, step, t, s)).sum().item()
        )
        found = found @ step
    assert abs(found[clean].sum().item() - 1) < 1e-9
    return Reference(found[clean], lost)


def step_losses(source: Enumerated, noise: Noise, t: float, s: float) -> Tensor:
    """KL( p(xs | xt) || product of its marginals ) of the step from t to s, in nats, for every noisy sentence xt in the
    order of `repro.certify.space.words`, [Z]; 0 where xt has no probability. The mean of these under p(xt), summed over
    steps, is the path KL."""
    states = words(source.vocab + (noise == "absorbing"), source.length)
    return _losses(source, noise, states, _independent(source, noise, states, t, s), t, s)


def written_loss(
    texts: Tensor, weights: Tensor, before: Tensor, where: Tensor, probs: Tensor
) -> float | None:
    """The loss, in nats, from writing several positions A in one step by independent draws from q, when the tokens at
    the positions B are written already: KL( p(x_A | x_B) || product over l in A of q(x_l) ), p being the law. None if
    no text of the law has these tokens at B.

    The law gives `weights` [S] to `texts` [S, L]; `before` [L]: ids before the step, negative where none is written;
    `where` [k]: the positions A; `probs` [k, V]: q, the denoiser's probabilities at A, before any temperature.
    """
    known = before >= 0
    fits = weights * (texts[:, known] == before[known]).all(1)
    if fits.sum() == 0:
        return None
    outcomes, inverse = torch.unique(texts[fits > 0][:, where], dim=0, return_inverse=True)
    joint = torch.zeros(len(outcomes), dtype=torch.float64).index_add(0, inverse, fits[fits > 0] / fits.sum())
    apart = probs.double()[torch.arange(len(where)), outcomes].log().sum(1)
    return (joint * (joint.log() - apart)).sum().item()


def _losses(source: Enumerated, noise: Noise, states: Tensor, step: Tensor, t: float, s: float) -> Tensor:
    later, sooner = _marginal(source, noise, states, t), _marginal(source, noise, states, s)
    joint = sooner * _corruption(source, noise, states, t, s).T / later.clamp_min(1e-300)[:, None]
    return torch.where(joint > 0, joint * (joint / step.clamp_min(1e-300)).log(), 0.0).sum(1)


def _start(states: Tensor, source: Enumerated, noise: Noise) -> Tensor:
    if noise == "absorbing":
        return (states == source.vocab).all(1).double()
    return torch.full((len(states),), 1 / len(states), dtype=torch.float64)


def _independent(source: Enumerated, noise: Noise, states: Tensor, t: float, s: float) -> Tensor:
    """One step of ancestral sampling as a matrix [Z, Z]: probability of each noisy sentence at time s (column) given
    each at time t (row), where every position is drawn independently; s < t."""
    alpha_t, alpha_s = (torch.full((len(states),), 1 - time, dtype=torch.float64) for time in (t, s))
    loo = source.leave_one_out(noise, states, alpha_t)
    if noise == "uniform":
        flat = [alpha[:, None].expand(states.shape).reshape(-1) for alpha in (alpha_t, alpha_s)]
        law = plug_in(loo.reshape(-1, source.vocab), states.reshape(-1), *flat).view(loo.shape)
    else:
        shown = torch.cat([(1 - s / t) * loo, torch.full_like(loo[..., :1], s / t)], -1)
        unchanged = torch.nn.functional.one_hot(states, source.vocab + 1).double()
        law = torch.where((states == source.vocab)[..., None], shown, unchanged)
    return law[:, torch.arange(source.length), states].prod(-1)


def _corruption(source: Enumerated, noise: Noise, states: Tensor, t: float, s: float) -> Tensor:
    """The noise process as a matrix [Z, Z]: probability of each noisy sentence at time t (column) given each at time s
    (row), s < t."""
    ratio = (1 - t) / (1 - s) if s < 1 else 0.0
    symbols = source.vocab + (noise == "absorbing")
    if noise == "uniform":
        fresh = torch.full((symbols,), 1 / symbols, dtype=torch.float64)
    else:
        fresh = torch.nn.functional.one_hot(torch.tensor(source.vocab), symbols).double()
    kernel = ratio * torch.eye(symbols, dtype=torch.float64) + (1 - ratio) * fresh
    return kernel[states[:, None], states[None, :]].prod(-1)


def _marginal(source: Enumerated, noise: Noise, states: Tensor, t: float) -> Tensor:
    """Probability p(xt) of each noisy sentence at time t, [Z], if clean sentences are drawn from the law `source`."""
    clean = (states < source.vocab).all(1)
    start = torch.zeros(len(states), dtype=torch.float64)
    start[clean] = source.law
    return start @ _corruption(source, noise, states, t, 0.0)
