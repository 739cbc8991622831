"""What can be had at best: ancestral sampling on a listed law, by matrices, and what its independent draws lose.

A step from t to s draws every position from its own marginal of q(xs | xt). Written as a matrix over all noisy
sentences it gives the output law of N steps exactly, without the decoding loop (a second way to what
`repro.samplers.law` enumerates). Against the true joint reverse step it gives the *path KL*,

    sum over steps of E KL( p(xs | xt) || product over positions of p(xs_l | xt) )  >=  KL(law || sampler),

for both noises: under absorbing noise it is the KL of groups written at once, and needs no joint step.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from repro.certify.space import Enumerated, Noise, words
from repro.core.lazy import torch
from repro.processes.uniform import plug_in

if TYPE_CHECKING:
    from torch import Tensor


class Reference(NamedTuple):
    """Output law [S] of N ancestral steps with the exact denoiser, and the path KL in nats a sentence."""

    law: Tensor
    path_kl: float


@functools.lru_cache
def ancestral(source: Enumerated, noise: Noise, steps: int) -> Reference:
    """N steps over equal stretches of time, from pure noise to t = 0."""
    symbols = source.vocab + (noise == "absorbing")
    states = words(symbols, source.length)
    clean = (states < source.vocab).all(1)
    found = _start(states, source, noise)
    lost = 0.0
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        step = _independent(source, noise, states, t, s)
        later, sooner = _marginal(source, noise, states, t), _marginal(source, noise, states, s)
        joint = sooner * _corruption(source, noise, states, t, s).T / later.clamp_min(1e-300)[:, None]
        gain = torch.where(joint > 0, joint * (joint / step.clamp_min(1e-300)).log(), 0.0)
        lost += (later * gain.sum(1)).sum().item()
        found = found @ step
    assert abs(found[clean].sum().item() - 1) < 1e-9
    return Reference(found[clean], lost)


def _start(states: Tensor, source: Enumerated, noise: Noise) -> Tensor:
    if noise == "absorbing":
        return (states == source.vocab).all(1).double()
    return torch.full((len(states),), 1 / len(states), dtype=torch.float64)


def _independent(source: Enumerated, noise: Noise, states: Tensor, t: float, s: float) -> Tensor:
    """[Z, Z]: the chance of each state at s from each at t, positions drawn apart."""
    alpha_t, alpha_s = (torch.full((len(states),), 1 - time, dtype=torch.float64) for time in (t, s))
    loo = source.leave_one_out(noise, states, alpha_t)
    if noise == "uniform":
        flat = [alpha[:, None].expand(states.shape).reshape(-1) for alpha in (alpha_t, alpha_s)]
        law = plug_in(loo.reshape(-1, source.vocab), states.reshape(-1), *flat).view(loo.shape)
    else:
        shown = torch.cat([(1 - s / t) * loo, torch.full_like(loo[..., :1], s / t)], -1)
        kept = torch.nn.functional.one_hot(states, source.vocab + 1).double()
        law = torch.where((states == source.vocab)[..., None], shown, kept)
    return law[:, torch.arange(source.length), states].prod(-1)


def _corruption(source: Enumerated, noise: Noise, states: Tensor, t: float, s: float) -> Tensor:
    """[Z, Z]: q(state at t | state at s), s < t."""
    ratio = (1 - t) / (1 - s) if s < 1 else 0.0
    symbols = source.vocab + (noise == "absorbing")
    if noise == "uniform":
        fresh = torch.full((symbols,), 1 / symbols, dtype=torch.float64)
    else:
        fresh = torch.nn.functional.one_hot(torch.tensor(source.vocab), symbols).double()
    kernel = ratio * torch.eye(symbols, dtype=torch.float64) + (1 - ratio) * fresh
    return kernel[states[:, None], states[None, :]].prod(-1)


def _marginal(source: Enumerated, noise: Noise, states: Tensor, t: float) -> Tensor:
    """p(state at t) [Z]."""
    clean = (states < source.vocab).all(1)
    start = torch.zeros(len(states), dtype=torch.float64)
    start[clean] = source.law
    return start @ _corruption(source, noise, states, t, 0.0)
