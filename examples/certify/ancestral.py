"""Ancestral sampling of masked diffusion, with draws in float64 and in float32.

python -m repro.certify examples/certify/ancestral.py:sample            # its claim stands
python -m repro.certify examples/certify/ancestral.py:single            # does not stand: a float32 Gumbel race
"""

import torch


def by_inversion(p, generator):
    """One draw for each row of p [N, V], by inverse CDF in float64."""
    total = p.cumsum(-1)
    u = torch.rand(len(p), 1, dtype=torch.float64, generator=generator)
    return torch.searchsorted(total, u * total[:, -1:], right=True)[:, 0].clamp_max(p.shape[-1] - 1)


def by_race(p, generator):
    """argmax of log p + Gumbel noise in float32, which never draws ids below about 6e-8 of the largest probability."""
    u = torch.rand(p.shape, generator=generator)
    return (p.float() / -(u.log())).argmax(-1)


def ancestral(space, n, steps, seed, draw):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((n, space.length), space.mask)
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        shown = (ids == space.mask) & (torch.rand(ids.shape, generator=generator) < (t - s) / t)
        ids[shown] = draw(space.denoise(ids, t)[shown], generator)
    return ids


def sample(space, n, steps, seed):
    return ancestral(space, n, steps, seed, by_inversion)


def single(space, n, steps, seed):
    return ancestral(space, n, steps, seed, by_race)


for function in (sample, single):
    function.claims, function.meaning = "law", "x0_mean"
