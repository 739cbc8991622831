"""Uniform-state ancestral sampling with Duo's plug-in posterior, given the right and the wrong denoiser output.

python -m repro.certify examples/certify/uniform.py:duo           # stands: p(x_l | xt without l)
python -m repro.certify examples/certify/uniform.py:duo_of_mean   # does not stand: E[x0 | xt], as cross-entropy trains
"""

import torch


def draw(p, generator):
    total = p.cumsum(-1)
    u = torch.rand(len(p), 1, dtype=torch.float64, generator=generator)
    return torch.searchsorted(total, u * total[:, -1:], right=True)[:, 0].clamp_max(p.shape[-1] - 1)


def plug_in(space, n, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for i in range(steps):
        a, b = i / steps, (i + 1) / steps  # alpha at t and at s
        x, z = space.denoise(ids, 1 - a), torch.nn.functional.one_hot(ids, space.vocab)
        here = (x * z).sum(-1, keepdim=True)
        law = space.vocab * a * here * z + (a / b - a) * z + (b - a) * x + (1 - a / b) * (1 - b) / space.vocab
        ids = draw(law.reshape(-1, space.vocab), generator).view(ids.shape)
    return ids


def duo(space, n, steps, seed):
    return plug_in(space, n, steps, seed)


def duo_of_mean(space, n, steps, seed):
    return plug_in(space, n, steps, seed)


duo.claims, duo.meaning = "law", "leave_one_out"
duo_of_mean.claims, duo_of_mean.meaning = "law", "x0_mean"
