"""Masked decoding in several orders: one position per step is exact if the order is independent of the drawn token.

python -m repro.certify examples/certify/orders.py:random           # stands
python -m repro.certify examples/certify/orders.py:greedy           # stands: it claims modes
python -m repro.certify examples/certify/orders.py:low_confidence   # does not stand: it commits the likelier draws
python -m repro.certify examples/certify/orders.py:off_by_one       # does not stand: it commits one too many per step
"""

import torch


def decode(space, n, steps, seed, score, extra=0, greedy=False):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((n, space.length), space.mask)
    steps = min(steps, space.length)  # at least one position per step
    for i in range(steps):
        open = ids == space.mask
        quota = space.length // steps + (i < space.length % steps) + extra
        p = space.denoise(ids, 1 - i / steps)
        total = p.cumsum(-1)
        u = torch.rand(*ids.shape, 1, dtype=torch.float64, generator=generator)
        drawn = (total < u * total[..., -1:]).sum(-1).clamp_max(space.vocab - 1)
        tokens = p.argmax(-1) if greedy else drawn
        rank = (
            score(p, tokens, generator)
            .masked_fill(~open, -torch.inf)
            .argsort(-1, descending=True)
            .argsort(-1)
        )
        ids = torch.where(open & (rank < quota), tokens, ids)
    return ids


def at_random(p, tokens, generator):
    return torch.rand(tokens.shape, dtype=torch.float64, generator=generator)


def confidence(p, tokens, generator):
    return p.gather(-1, tokens[..., None])[..., 0]


def random(space, n, steps, seed):
    return decode(space, n, steps, seed, at_random)


def off_by_one(space, n, steps, seed):
    return decode(space, n, steps, seed, at_random, extra=1)


def one_short(space, n, steps, seed):
    return decode(space, n, steps, seed, at_random, extra=-1)


def low_confidence(space, n, steps, seed):
    return decode(space, n, steps, seed, confidence)


def greedy(space, n, steps, seed):
    return decode(space, n, steps, seed, confidence, greedy=True)


for function in (random, off_by_one, one_short, low_confidence):
    function.claims, function.meaning = "law", "x0_mean"
greedy.claims, greedy.meaning = "mode", "x0_mean"
