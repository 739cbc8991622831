"""Samplers of installed packages: diffusers' discrete schedulers and transformers' diffusion generation."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from repro.certify.foreign import Guard
from repro.certify.peers.imports import located, seeded
from repro.certify.peers.network import log_conditionals
from repro.certify.verdict import ALPHA
from repro.core.lazy import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from repro.certify.space import Space

Settings = Mapping[str, Any]
TRIAL, TRIALS = (0.5, 0.3, 0.2), 4_000
"""Distribution of the tokens, and number of positions, in the trial step that shows a scheduler's interface."""


def _module(folder: Path | None, name: str) -> Any:
    """The module `name` of an installed package (`folder` None) or of the checkout `folder` of a package, whose
    subfolder src then stays in `sys.path`; ValueError if the module cannot be imported."""
    if folder is not None:
        sys.path.insert(0, str(folder / "src"))
    with Guard(f"import of {name}", ""):
        return importlib.import_module(name)


def scheduler(folder: Path | None, settings: Settings) -> Callable[..., Tensor]:
    """A discrete scheduler of diffusers (from the checkout `folder`; None: as installed), as a function
    f(space, n, steps, seed) that draws n sentences, [n, L] ids, of the small language `space` in `steps` steps, in the
    loop of diffusers' pipelines. Any scheduler with `set_timesteps`, `timesteps` and `step` will do; `step` gets those
    arguments that it accepts.

    `settings`: `class`, the scheduler's name; the others are arguments of its constructor, or of `step` if the
    constructor does not have them (diffusers 0.42 takes the temperature in `step`; with huggingface/diffusers#14741 all
    settings that shape the logits belong to the constructor). Timesteps are numbers of steps (diffusers 0.42), or times
    in (0, 1], 1 being pure noise (#14741). The `notes` of the returned function say which of the two, and whether
    `pred_logits` of a step is the law that its tokens are drawn from, as #14741 defines it. ValueError if there is no
    such class, and for a setting that neither constructor nor `step` has.
    """
    package, name = _module(folder, "diffusers"), settings["class"]
    with Guard(f"import of diffusers.{name}", ""):  # diffusers imports its modules when they are asked for
        made = getattr(package, name, None)
    if made is None:
        raise ValueError(f"this diffusers has no {name}; install 0.42 or newer")
    known, takes = _named(made), _named(made.step)
    configured = {key: value for key, value in settings.items() if key in known}
    stepped = {key: value for key, value in settings.items() if key not in known and key != "class"}
    for key in stepped:
        if key not in takes:
            raise ValueError(
                f"neither {made.__name__}() nor its step() takes {key!r}; remove it from this sampler's"
                " settings in repro/certify/peers/catalogue.py"
            )

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        own = made(**configured, **_chosen(made, mask_token_id=space.mask))
        own.set_timesteps(steps, **_chosen(own.set_timesteps, block_length=space.length))
        given = stepped | _chosen(own.step, mask_token_id=space.mask, generator=generator)
        ids = _noise(space, n, generator)
        timed = own.timesteps.is_floating_point()
        for index, timestep in enumerate(own.timesteps):
            t = timestep.item() if timed else 1 - index / steps
            at = timestep if timed else index
            ids = own.step(log_conditionals(space, ids, t), at, ids, **given).prev_sample
            after = 1 - (index + 1) / steps
            for _ in range(configured.get("corrector_steps", 0) if after > 0 else 0):
                logits = log_conditionals(space, ids, after)
                ids = own.step_correct(logits, at, ids, generator=generator).prev_sample
        return ids

    found: Any = located(sample, made.step)
    with Guard(made.__name__, inspect.getsourcefile(inspect.unwrap(made.step)) or ""):
        found.notes = _interface(made(**configured, **_chosen(made, mask_token_id=len(TRIAL))), stepped)
    return found


def _interface(own: Any, stepped: Settings) -> tuple[str, ...]:
    """Two notes for the certificate of the scheduler `own`: whether its timesteps are numbers of steps or times, and
    whether the `pred_logits` of a step give the distribution of its tokens, by a chi-square test of 4,000 (TRIALS)
    positions of one step. `stepped`: arguments of `step`."""
    from scipy.stats import chi2

    own.set_timesteps(4, **_chosen(own.set_timesteps, block_length=TRIALS))
    masked = "mask_token_id" in _named(own.step) | _named(type(own))
    law = torch.tensor([*TRIAL, 0.0] if masked else TRIAL)
    ids = torch.full((1, TRIALS), len(TRIAL) if masked else 0)
    given = _chosen(own.step, mask_token_id=len(TRIAL), generator=torch.Generator().manual_seed(0))
    step = own.step(law.log().expand(1, TRIALS, -1), own.timesteps[0], ids, **stepped, **given)
    said = step.pred_logits[0, 0].double().softmax(-1)
    counts = torch.bincount(step.sampled_tokens[0], minlength=len(law))
    able = said > 0
    statistic = ((counts - TRIALS * said) ** 2 / (TRIALS * said))[able].sum().item()
    drawn = not counts[~able].any() and chi2.sf(statistic, max(1, int(able.sum()) - 1)) > ALPHA
    times = own.timesteps.is_floating_point()
    return (
        f"timesteps are {'times in (0, 1] (huggingface/diffusers#14741)' if times else 'numbers of steps'}",
        f"pred_logits is {'' if drawn else 'not '}the law that tokens are drawn from",
    )


def _chosen(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """The keyword arguments among `arguments` for which `function` has a parameter, by name."""
    return {name: value for name, value in arguments.items() if name in _named(function)}


def _named(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _noise(space: Space, n: int, generator: torch.Generator) -> Tensor:
    """Ids [n, L] of pure noise: [MASK] under absorbing noise, else drawn uniformly."""
    if space.mask is not None:
        return torch.full((n, space.length), space.mask)
    return torch.randint(space.vocab, (n, space.length), generator=generator)


def generation(folder: Path | None, settings: Settings) -> Callable[..., Tensor]:
    """`generate` of transformers' `DiffusionGemmaGenerationMixin` (from the source checkout `folder`; None: as
    installed), as a function f(space, n, steps, seed) that draws n sentences, [n, L] ids, of the small language `space`
    in `steps` steps, each as one canvas (block) without a prompt. `settings`: fields of the generation config of
    `generate`."""
    module = _module(folder, "transformers.models.diffusion_gemma.generation_diffusion_gemma")

    class Model(module.DiffusionGemmaGenerationMixin):
        """A model with the attributes that `generate` reads, whose logits are a space's exact conditionals. `generate`
        does not give the network the time, so the time is computed from the number of calls."""

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
    """Stand-in for the encoder of DiffusionGemma, which fills the KV cache from the prompt: the prompt is empty, so the
    cache is returned as it is."""

    def create_masks_for_generate(self, **unused: Any) -> dict[str, Any]:
        return {}

    def __call__(self, cache: Any, **unused: Any) -> SimpleNamespace:
        return SimpleNamespace(cache=cache)
