"""Samplers of installed packages: diffusers' discrete schedulers and transformers' diffusion generation."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from repro.certify.peers.imports import located, seeded
from repro.certify.peers.network import log_conditionals
from repro.core.lazy import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from repro.certify.space import Space

Settings = Mapping[str, Any]


def scheduler(folder: Path | None, settings: Settings) -> Callable[..., Tensor]:
    """A discrete scheduler of diffusers as f(space, n, steps, seed), in the loop of its pipelines: any scheduler with
    `timesteps` and `step` will do, and `step` gets those arguments that it accepts.

    `settings`: `class`, arguments of `step` ("step"), all others of the constructor. Timesteps are numbers of steps
    (diffusers 0.42), or times in (0, 1], 1 being pure noise (huggingface/diffusers#14741).
    """
    made = getattr(importlib.import_module("diffusers"), settings["class"])
    takes = inspect.signature(made.step).parameters
    configured = {key: value for key, value in settings.items() if key not in ("class", "step")}

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        own = made(**configured)
        length = {"block_length": space.length} if "block_length" in _named(own.set_timesteps) else {}
        own.set_timesteps(steps, **length)
        given = {"mask_token_id": space.mask, "generator": generator} | settings.get("step", {})
        given = {key: value for key, value in given.items() if key in takes}
        ids = _noise(space, n, generator)
        for index, timestep in enumerate(own.timesteps):
            timed = timestep.is_floating_point()
            t = timestep.item() if timed else 1 - index / steps
            at = timestep if timed else index
            ids = own.step(log_conditionals(space, ids, t), at, ids, **given).prev_sample
            after = 1 - (index + 1) / steps
            for _ in range(configured.get("corrector_steps", 0) if after > 0 else 0):
                logits = log_conditionals(space, ids, after)
                ids = own.step_correct(logits, at, ids, generator=generator).prev_sample
        return ids

    return located(sample, made.step)


def _named(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _noise(space: Space, n: int, generator: torch.Generator) -> Tensor:
    """Pure noise [n, L]."""
    if space.mask is not None:
        return torch.full((n, space.length), space.mask)
    return torch.randint(space.vocab, (n, space.length), generator=generator)


def generation(folder: Path | None, settings: Settings) -> Callable[..., Tensor]:
    """`generate` of transformers' `DiffusionGemmaGenerationMixin` as f(space, n, steps, seed), one canvas without a
    prompt; `settings`: fields of its generation config."""
    name = "transformers.models.diffusion_gemma.generation_diffusion_gemma"
    module = importlib.import_module(name)

    class Model(module.DiffusionGemmaGenerationMixin):
        """What `generate` reads of a model; its network is not told the time, which is counted here."""

        dtype, device = torch.float64, torch.device("cpu")

        def __init__(self, space: Space, steps: int) -> None:
            self.space, self.steps, self.calls = space, steps, 0
            text = SimpleNamespace(vocab_size=space.vocab)
            self.config = SimpleNamespace(canvas_length=space.length, image_token_id=-1, text_config=text)
            self.generation_config = module.DiffusionGemmaGenerationConfig()
            self.model = SimpleNamespace(
                encoder=_Encoder(),
                decoder=SimpleNamespace(
                    create_diffusion_decoder_attention_mask=lambda **unused: None,
                    embed_tokens=SimpleNamespace(weight=torch.zeros(0)),
                ),
            )

        def forward(self, decoder_input_ids: Tensor, **unused: Any) -> SimpleNamespace:
            t = 1 - self.calls / self.steps
            self.calls += 1
            return SimpleNamespace(logits=log_conditionals(self.space, decoder_input_ids, t))

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        with seeded(seed):
            return (
                Model(space, steps)
                .generate(
                    torch.zeros(n, 0, dtype=torch.int64),
                    cache=SimpleNamespace(get_seq_length=lambda: 0, is_compileable=False),
                    max_new_tokens=space.length,
                    max_denoising_steps=steps,
                    **settings,
                )
                .sequences
            )

    return located(sample, module.DiffusionGemmaGenerationMixin.generate)


class _Encoder:
    """An encoder of an empty prompt."""

    def create_masks_for_generate(self, **unused: Any) -> dict[str, Any]:
        return {}

    def __call__(self, cache: Any, **unused: Any) -> SimpleNamespace:
        return SimpleNamespace(cache=cache)
