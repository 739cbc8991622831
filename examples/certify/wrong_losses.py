"""Negative controls: losses with one defect each, all of which claim to be a bound.

python -m repro.certify examples/certify/wrong_losses.py:block_means      # does not stand
python -m scripts.controls                                               # all: which test sees which defect
"""

import itertools
import math

import torch
from common import bound_weight, cross_entropy, subsets


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


FAMILIES = {
    "weights": (no_weight, block_means, clamped_weight, scaled),
    "rows": (batch_mean,),
    "times": (window,),
}
for function in itertools.chain(*FAMILIES.values()):
    function.claims, function.meaning = "bound", "x0_mean"
    function.draws = "random" if function in (window, scaled) else "exact"
