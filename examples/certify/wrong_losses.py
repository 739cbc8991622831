"""Negative controls: losses with one defect each, all of which claim to be a bound.

python -m repro.certify examples/certify/wrong_losses.py:block_means      # does not stand
python -m scripts.controls                                               # all: which test sees which defect
"""

import itertools
import math

import torch


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


def no_weight(space, x0, seed):
    """Cross-entropy at t ~ U(0, 1) without the weight 1/t."""
    return subsets(space, x0, lambda k, n: math.factorial(k) * math.factorial(n - k) / math.factorial(n + 1))


def block_means(space, x0, seed):
    """The mean over blocks of two tokens instead of their sum: right at two tokens, half the bound at four."""
    return subsets(space, x0, bound_weight) / max(1, space.length // 2)


def clamped_weight(space, x0, seed):
    """Sets of more than two masked tokens weigh nothing: right at two tokens."""
    return subsets(space, x0, lambda k, n: bound_weight(k, n) * (k <= 2))


def batch_mean(space, x0, seed):
    """Each row's loss is moved half way to the mean of its batch."""
    nats = subsets(space, x0, bound_weight)
    return 0.5 * nats + 0.5 * nats.mean()


def one_draw(space, x0, seed, low=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    t = low + (1 - low) * torch.rand(len(x0), dtype=torch.float64, generator=generator)
    hidden = torch.rand(x0.shape, dtype=torch.float64, generator=generator) < t[:, None]
    loss = cross_entropy(space, x0.masked_fill(hidden, space.mask), x0)
    return scale * (1 - low) * (loss * hidden).sum(1) / t


def window(space, x0, seed):
    """Levels below .02 are never drawn and nothing stands for them."""
    return one_draw(space, x0, seed, low=0.02)


def scaled(space, x0, seed):
    """One per cent too small."""
    return one_draw(space, x0, seed, scale=0.99)


CONTROLS = (no_weight, block_means, clamped_weight, batch_mean, window, scaled)
for function in CONTROLS:
    function.claims, function.meaning = "bound", "x0_mean"
    function.draws = "random" if function in (window, scaled) else "exact"
