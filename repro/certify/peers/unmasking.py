"""LLaDA, Fast-dLLM and dllm: functions that fill masked positions in an order of confidence or a random one.

Sentences have no prompt and are one block. A number of steps above the length is reduced to it, since these functions
commit at least one token per step (LLaDA and Fast-dLLM refuse more steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from repro.certify.peers.imports import located, peer_module, seeded
from repro.certify.peers.network import masked_model
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.certify.space import Space

Settings = Mapping[str, Any]
FAST_STANDS_IN = ("einops",)
"""Third-party modules that Fast-dLLM's network file imports; the network is not used."""


def llada(folder: Path, settings: Settings) -> Callable[..., Tensor]:
    """LLaDA's `generate`, from the checkout `folder`, as a function f(space, n, steps, seed) that draws n sentences,
    [n, L] ids, of the small language `space` in `steps` steps (at most L). `settings`: further arguments of `generate`.
    """
    module = peer_module(folder, "generate")

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        with seeded(seed):
            return module.generate(
                masked_model(space),
                torch.zeros(n, 0, dtype=torch.int64),
                steps=min(steps, space.length),
                gen_length=space.length,
                block_length=space.length,
                mask_id=space.mask,
                **settings,
            )

    return located(sample, module.generate)


def fast_dllm(folder: Path, settings: Settings) -> Callable[..., Tensor]:
    """Fast-dLLM's `generate` for LLaDA, which takes one row at a time, from the checkout `folder`, as a function
    f(space, n, steps, seed) that draws n sentences, [n, L] ids, of the small language `space` in `steps` steps (at most
    L). `settings`: further arguments of `generate`."""
    module = peer_module(folder / "llada", "generate", FAST_STANDS_IN)

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        model, prompt = masked_model(space), torch.zeros(1, 0, dtype=torch.int64)
        with seeded(seed):
            rows = [
                module.generate(
                    model,
                    prompt,
                    steps=min(steps, space.length),
                    gen_length=space.length,
                    block_length=space.length,
                    mask_id=space.mask,
                    **settings,
                )[0]
                for _ in range(n)
            ]
        return torch.cat(rows)

    return located(sample, module.generate)


def dllm(folder: Path, settings: Settings) -> Callable[..., Tensor]:
    """`sample` of dllm's `MDLMSampler`, from the checkout `folder`, as a function f(space, n, steps, seed) that draws n
    sentences, [n, L] ids, of the small language `space` in `steps` steps. `settings`: fields of the config of
    `MDLMSampler`. With its field `stochastic_transfer` a step may commit no token, so that the number of steps is not
    limited to the length."""
    packages = ("dllm", "dllm.core", "dllm.core.samplers")
    module = peer_module(folder, "dllm.core.samplers.mdlm", packages=packages)

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        tokenizer = SimpleNamespace(mask_token_id=space.mask, bos_token_id=0, eos_token_id=0)
        sampler = module.MDLMSampler(model=masked_model(space), tokenizer=tokenizer)
        empty = torch.zeros(0, dtype=torch.int64)
        with seeded(seed):
            return sampler.sample(
                [empty] * n,
                steps=steps if settings.get("stochastic_transfer") else min(steps, space.length),
                max_new_tokens=space.length,
                block_size=space.length,
                **settings,
            )

    return located(sample, module.MDLMSampler.sample)
