"""The unmodified uniform-noise scheduler of diffusers 0.42 (`pip install dlm-repro[certify]`).

python -m repro.certify examples/certify/diffusers_ddim.py:default        # its default, temperature 0
python -m repro.certify examples/certify/diffusers_ddim.py:temperature_1
"""

import torch
from diffusers import DiscreteDDIMScheduler


def run(space, n, steps, seed, **how):
    generator = torch.Generator().manual_seed(seed)
    scheduler = DiscreteDDIMScheduler(num_inference_steps=steps)
    ids = torch.randint(space.vocab, (n, space.length), generator=generator)
    for step in scheduler.timesteps:
        logits = space.denoise(ids, 1 - step.item() / steps).log()
        ids = scheduler.step(logits, step, ids, generator=generator, **how).prev_sample
    return ids


def default(space, n, steps, seed):
    return run(space, n, steps, seed)


def temperature_1(space, n, steps, seed):
    return run(space, n, steps, seed, temperature=1.0)


for function in (default, temperature_1):
    function.claims, function.meaning = "law", "x0_mean"
