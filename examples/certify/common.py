"""What the right and the wrong samplers and losses of this folder have in common."""

import itertools
import math

import torch


def invert(p, u):
    """Inverse CDF in float64: p [..., V], u [...] -> ids [...]."""
    total = p.cumsum(-1)
    place = torch.searchsorted(total, (u[..., None] * total[..., -1:]), right=True)[..., 0]
    return place.clamp_max(p.shape[-1] - 1)


def uniform(shape, generator):
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def masked(
    space, n, steps, seed, law=lambda space, ids, t: space.denoise(ids, t), draw=invert, noise=uniform
):
    """Ancestral sampling; `law`, `draw` and `noise` (uniforms of a step, [n, L]) may be replaced."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((n, space.length), space.mask)
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        coin, u = noise((n, space.length), generator), noise((n, space.length), generator)
        shown = (ids == space.mask) & (coin < (t - s) / t)
        ids[shown] = draw(law(space, ids, t)[shown], u[shown])
    return ids


def plug_in(space, n, steps, seed, hot=1.0):
    """Ancestral sampling under uniform noise with the leave-one-out conditional; `hot` is a temperature."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps
        x = space.denoise(ids, 1 - a) ** (1 / hot)
        x, z = x / x.sum(-1, keepdim=True), torch.nn.functional.one_hot(ids, space.vocab)
        here = (x * z).sum(-1, keepdim=True)
        law = space.vocab * a * here * z + (a / b - a) * z + (b - a) * x + (1 - a / b) * (1 - b) / space.vocab
        ids = invert(law, uniform(ids.shape, generator))
    return ids


def cross_entropy(space, ids, x0, t=0.5):
    """-log p(x0 | ids) of each position, [n, L]."""
    return -space.denoise(ids, t).gather(2, x0[:, :, None])[:, :, 0].log()


def subsets(space, x0, weight):
    """Sum over sets of masked positions of weight(size of the set, L) times the loss at them: exact in t."""
    total = torch.zeros(len(x0), dtype=torch.float64)
    for subset in itertools.product([False, True], repeat=space.length):
        hidden, k = torch.tensor(subset), sum(subset)
        if k:
            loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), x0)
            total += weight(k, space.length) * (loss * hidden).sum(1)
    return total


def bound_weight(k, length):
    """Integral of t^(k-1) (1-t)^(L-k) over t in (0, 1)."""
    return math.factorial(k - 1) * math.factorial(length - k) / math.factorial(length)
