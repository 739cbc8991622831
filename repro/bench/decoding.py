"""Decoding against the loop that the field runs (spec I.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.bench.nets import Sizes, llama
from repro.bench.row import Row, interleaved

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser


def decoding(repeats: int) -> list[Row]:
    """128 tokens in blocks of 32, one a step, V = 32k, against LLaDA's loop with its float64 Gumbel (spec B.4)."""
    from repro import rng
    from repro.lazy import torch
    from repro.processes.absorbing import Absorbing
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    process, rule = Absorbing(), preset("low_confidence")
    sizes = Sizes(ids=32_000, mask=32_000, length=192)
    denoiser = llama(sizes, process, width=512, layers=8, ffn=1376, heads=8)
    prompt = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, 0), 64) * 32_000).long().tolist()
    plan = Plan(gen_length=128, block_length=32, steps=128)

    def ours() -> Tensor:
        return decode(denoiser, process, rule, plan, [prompt], seed=0, names=[0]).ids[0]

    def opponent() -> Tensor:
        with torch.no_grad():
            return _llada_loop(denoiser, prompt, 128, 32)

    equal = (ours() == opponent()).double().mean().item()
    name = "decoding, V=32k, prompt 64, block 32, gen 128, 128 steps, batch 1"
    return [interleaved(name, ours, opponent, 2.0, repeats, f"{equal:.0%} of tokens equal")]


def _llada_loop(denoiser: Denoiser, prompt: list[int], length: int, block: int) -> Tensor:
    """The published loop, step by step as spec B.4 states it: full logits, float64 noise at T = 0, full softmax."""
    from repro.backbones.attention import Mask
    from repro.lazy import torch

    mask = denoiser.vocabulary.mask
    assert mask is not None
    ids = torch.tensor([[*prompt, *[mask] * length]])
    for first in range(len(prompt), len(prompt) + length, block):
        for _ in range(block):
            masked = ids == mask
            logits = denoiser.head().logits(denoiser.encode(ids, t=None, attention=Mask()))
            logits[..., mask] = -torch.inf
            wide = logits.double()
            noise = (-torch.rand_like(wide).log()) ** 0.0
            token = (wide.exp() / noise).argmax(-1)
            confidence = logits.softmax(-1).gather(-1, token[..., None])[..., 0]
            confidence[:, first + block :] = -torch.inf
            confidence = torch.where(masked, confidence, -torch.inf)
            best = confidence[0].topk(1).indices
            ids[0, best] = token[0, best]
    return ids[0, len(prompt) :]
