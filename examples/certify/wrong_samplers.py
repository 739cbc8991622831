"""Negative controls: samplers with one defect each, all of which claim to draw from the denoiser's law.

python -m repro.certify examples/certify/wrong_samplers.py:clamped        # does not stand
python -m scripts.controls                                               # all: which test sees which defect

Each is ancestral sampling of masked diffusion (or of both noises where its name says so) but for the defect that its
docstring names.
"""

import itertools

import torch
from common import masked, plug_in, uniform

# --- draws --------------------------------------------------------------------------------------------------


def float32_race(space, n, steps, seed):
    """Argmax of p / -log(u) in float32: ids below 6e-8 of the largest are never drawn."""
    generator = torch.Generator().manual_seed(seed + 1)

    def race(p, u):
        noise = torch.rand(p.shape, generator=generator)
        return (p.float() / -noise.log()).argmax(-1)

    return masked(space, n, steps, seed, draw=race)


def clamped(space, n, steps, seed):
    """Probabilities clamped at 1e-6 from below: 5 % of junk over 50,000 ids."""
    return masked(space, n, steps, seed, law=lambda space, ids, t: space.denoise(ids, t).clamp_min(1e-6))


def cool(space, n, steps, seed):
    """Temperature .95."""
    return masked(space, n, steps, seed, law=lambda space, ids, t: space.denoise(ids, t) ** (1 / 0.95))


def nucleus(space, n, steps, seed):
    """Tokens behind a cumulative probability of .98 are never drawn."""

    def law(space, ids, t):
        p = space.denoise(ids, t)
        ordered, place = p.sort(-1, descending=True)
        ordered[(ordered.cumsum(-1) - ordered) > 0.98] = 0
        return torch.zeros_like(p).scatter(-1, place, ordered)

    return masked(space, n, steps, seed, law=law)


def last_id_lost(space, n, steps, seed):
    """The highest id is never drawn."""

    def law(space, ids, t):
        p = space.denoise(ids, t).clone()
        p[..., -1] = 0
        return p

    return masked(space, n, steps, seed, law=law)


def greedy_end(space, n, steps, seed):
    """The last step takes the most likely token."""

    def law(space, ids, t):
        p = space.denoise(ids, t)
        return torch.nn.functional.one_hot(p.argmax(-1), space.vocab).double() if t <= 1 / steps + 1e-9 else p

    return masked(space, n, steps, seed, law=law)


# --- context ------------------------------------------------------------------------------------------------


def _hidden(space, ids, t, groups):
    """Conditionals of each position given only the positions that its row of `groups` [G, 2, L] shows."""
    found = torch.zeros(*ids.shape, space.vocab, dtype=torch.float64)
    for speaks, sees in groups:
        p = space.denoise(ids.masked_fill(~sees, space.mask), t)
        found = torch.where(speaks[:, None], p, found)
    return found


def half_context(space, n, steps, seed):
    """Each half of a sentence is written without the other half."""
    place = torch.arange(space.length)
    halves = [(place < space.length // 2,) * 2, (place >= space.length // 2,) * 2]
    return masked(space, n, steps, seed, law=lambda space, ids, t: _hidden(space, ids, t, halves))


def near_context(space, n, steps, seed):
    """A position sees two tokens to each side (in groups of five, so that few forwards do)."""
    place = torch.arange(space.length)
    groups = []
    for first in range(0, space.length, 3):
        speaks = (place >= first) & (place < first + 3)
        groups.append((speaks, (place >= first - 2) & (place < first + 5)))
    return masked(space, n, steps, seed, law=lambda space, ids, t: _hidden(space, ids, t, groups))


# --- rows ---------------------------------------------------------------------------------------------------


def twice(space, n, steps, seed):
    """Every row comes twice."""
    return masked(space, -(-n // 2), steps, seed).repeat_interleave(2, 0)[:n]


def twice_apart(space, n, steps, seed):
    """The second half of a call repeats the first."""
    return masked(space, -(-n // 2), steps, seed).repeat(2, 1)[:n]


def antithetic(space, n, steps, seed):
    """Rows i and i + n/2 are drawn with u and 1 - u."""

    def mirrored(shape, generator):
        u = uniform((-(-shape[0] // 2), *shape[1:]), generator)
        return torch.cat([u, 1 - u])[: shape[0]]

    return masked(space, n, steps, seed, noise=mirrored)


def systematic(space, n, steps, seed):
    """The uniforms of a step are a shuffled grid over the rows: counts vary too little."""

    def grid(shape, generator):
        order = uniform(shape, generator).argsort(0)
        return (order + uniform(shape, generator)) / shape[0]

    return masked(space, n, steps, seed, noise=grid)


def shared_coins(space, n, steps, seed):
    """All rows of a call reveal the same positions at the same step, and with one uniform."""

    def shared(shape, generator):
        return uniform((1, shape[1]), generator).expand(shape)

    return masked(space, n, steps, seed, noise=shared)


def seed_halved(space, n, steps, seed):
    """Two neighbouring seeds give the same rows."""
    return masked(space, n, steps, seed // 2)


def seed_fixed(space, n, steps, seed):
    """Every seed gives the same rows."""
    return masked(space, n, steps, 0)


def seed_ignored(space, n, steps, seed):
    """Draws of a global generator: the same seed gives other rows."""
    return masked(space, n, steps, int(torch.randint(2**31, ())))


# --- somewhere only -----------------------------------------------------------------------------------------


def small_calls(space, n, steps, seed):
    """Right for 100 rows or more, temperature .85 below."""
    return masked(
        space, n, steps, seed, law=lambda s, ids, t: s.denoise(ids, t) ** (1 if n >= 100 else 1 / 0.85)
    )


def few_steps(space, n, steps, seed):
    """Right from 64 steps on, temperature .5 below."""
    law = (
        (lambda space, ids, t: space.denoise(ids, t))
        if steps >= 64
        else lambda s, ids, t: s.denoise(ids, t) ** 2
    )
    return masked(space, n, steps, seed, law=law)


def one_noise(space, n, steps, seed):
    """Right under absorbing noise, temperature 2 under uniform noise."""
    return (
        masked(space, n, steps, seed)
        if space.noise == "absorbing"
        else plug_in(space, n, steps, seed, hot=2.0)
    )


def unsaid_noise(space, n, steps, seed):
    """The same, without reading `space.noise`."""
    return (
        masked(space, n, steps, seed) if space.mask is not None else plug_in(space, n, steps, seed, hot=2.0)
    )


def mode_of_draws(space, n, steps, seed):
    """Draws from the law that claim to seek modes."""
    return masked(space, n, steps, seed)


def exits(space, n, steps, seed):
    """Ends the process as if all were well."""
    import os

    if n > 2:
        os._exit(0)
    return masked(space, n, steps, seed)


def hangs(space, n, steps, seed):
    """Never comes back."""
    while n > 2:
        pass
    return masked(space, n, steps, seed)


def hungry(space, n, steps, seed):
    """Asks for memory without end."""
    kept = []
    while n > 2:
        kept.append(torch.zeros(1 << 27))
    return masked(space, n, steps, seed)


FAMILIES = {
    "draws": (float32_race, clamped, cool, nucleus, last_id_lost, greedy_end),
    "context": (half_context, near_context),
    "rows": (twice, twice_apart, antithetic, systematic, shared_coins, seed_halved, seed_fixed, seed_ignored),
    "somewhere only": (small_calls, few_steps, one_noise, unsaid_noise),
    "modes": (mode_of_draws,),
    "process": (exits, hangs, hungry),
}
for function in itertools.chain(*FAMILIES.values()):
    function.claims, function.meaning = "law", "leave_one_out"
mode_of_draws.claims = "mode"
