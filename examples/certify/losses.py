"""Losses of masked diffusion that are bounds, and losses that only look like one.

python -m repro.certify examples/certify/losses.py:masked               # stands (one random draw per row)
python -m repro.certify examples/certify/losses.py:masked_exact         # stands (sum over all subsets of positions)
python -m repro.certify examples/certify/losses.py:masked_without_tail  # does not stand: t stops at eps, no tail term
python -m repro.certify examples/certify/losses.py:dependent            # does not stand: other masked tokens leak in
"""

import itertools

import torch

EPS = 0.1  # large, so that few draws show the missing tail; `masked_without_tail` has the usual 1e-3 and is exact


def cross_entropy(space, ids, t, x0):
    """-log p(x0 | ids) of each position, [n, L]."""
    return -space.denoise(ids, t).gather(2, x0[:, :, None])[:, :, 0].log()


def masked(space, x0, seed):
    """One draw: t ~ U(0, 1), weight 1/t."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(len(x0), dtype=torch.float64, generator=generator)
    hidden = torch.rand(x0.shape, dtype=torch.float64, generator=generator) < t[:, None]
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), t, x0)
    return (loss * hidden).sum(1) / t


def cut(space, x0, seed):
    """One draw: t ~ U(eps, 1), without a term for t below eps."""
    generator = torch.Generator().manual_seed(seed)
    t = EPS + (1 - EPS) * torch.rand(len(x0), dtype=torch.float64, generator=generator)
    hidden = torch.rand(x0.shape, dtype=torch.float64, generator=generator) < t[:, None]
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), t, x0)
    return (1 - EPS) * (loss * hidden).sum(1) / t


def by_subsets(space, x0, eps, leak):
    """The integral over t in (eps, 1) of 1/t times the loss of masked positions, summed over subsets of positions."""
    nodes = torch.logspace(0, torch.log10(torch.tensor(max(eps, 1e-9))).item(), 4001, dtype=torch.float64)
    total = torch.zeros(len(x0), dtype=torch.float64)
    for subset in itertools.product([False, True], repeat=space.length):
        hidden = torch.tensor(subset)
        if hidden.any():
            k = int(hidden.sum())
            chance = nodes ** (k - 1) * (1 - nodes) ** (space.length - k)
            weight = torch.trapezoid(chance.flip(0), nodes.flip(0))
            total += weight * leak(space, x0, hidden)
    return total


def apart(space, x0, hidden):
    """The loss of every masked token given the visible ones."""
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), 0.5, x0)
    return (loss * hidden).sum(1)


def leaking(space, x0, hidden):
    """The loss of every masked token given all other tokens, including masked ones."""
    total = torch.zeros(len(x0), dtype=torch.float64)
    for place in hidden.nonzero()[:, 0]:
        alone = torch.arange(space.length) == place
        total += cross_entropy(space, x0.masked_fill(alone, space.mask), 0.5, x0)[:, place]
    return total


def masked_exact(space, x0, seed):
    return by_subsets(space, x0, 0.0, apart)


def masked_without_tail(space, x0, seed):
    return by_subsets(space, x0, 1e-3, apart)


def dependent(space, x0, seed):
    return by_subsets(space, x0, 0.0, leaking)


for function in (masked, cut):
    function.claims, function.meaning, function.draws = "bound", "x0_mean", "random"
for function in (masked_exact, masked_without_tail, dependent):
    function.claims, function.meaning, function.draws = "bound", "x0_mean", "exact"
