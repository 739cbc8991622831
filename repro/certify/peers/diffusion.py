"""Duo, MDLM and ReMDM: sampling methods of their `Diffusion` classes, called on an object made without its constructor.

The constructor loads tokenizers, metrics and a network and needs a GPU; the object gets the attributes that sampling
reads, with the values that the constructor would set, and a network that answers with exact conditionals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from repro.certify.peers.imports import located, peer_module, seeded
from repro.certify.peers.network import diffusion_backbone
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.certify.space import Space

Settings = Mapping[str, Any]
STANDS_IN = (
    *("lightning", "hydra", "omegaconf", "einops", "flash_attn", "torchmetrics", "torchvision", "timm"),
    *("mamba_ssm", "causal_conv1d", "causal_conv1d_cuda", "selective_scan_cuda"),
)
"""Third-party modules that the peers' files import. Sampling uses none of them, except the base class of lightning."""
SAMPLING = {
    "nucleus_p": 1.0,
    "eta": 0.0,
    "sampler": "mdlm",
    "t_on": 0.0,
    "t_off": 0.0,
    "alpha_on": 0.0,
    "dfm": False,
    "predictor": "ddpm_cache",
    "noise_removal": True,
}
"""Values of `sampling` in kuleshov-group/remdm@f830d65 configs/config.yaml (MDLM reads only the last two)."""
DUO_SAMPLING = {
    "predictor": "ancestral",
    "noise_removal": "ancestral",
    "use_float64": True,
    "guid_weight": None,
}
"""Values of `sampling` in s-sahoo/duo@7c9b498 configs/config.yaml:24-50."""
PSI = {
    "time_profile": "linear",
    "high_mode": "pure-posterior",
    "middle_mode": "pure-posterior",
    "low_mode": "pure-posterior",
    "high_frac": 0.2,
    "middle_frac": 0.6,
}
"""Values of `sampling.psi` in s-sahoo/duo@7c9b498 configs/config.yaml."""


def mdlm(folder: Path, settings: Settings) -> Callable[..., Tensor]:
    """MDLM's or ReMDM's `Diffusion._sample`, from the checkout `folder`, as a function f(space, n, steps, seed) that
    draws n sentences, [n, L] ids, of the small language `space` in `steps` steps. `settings`: values of `sampling` in
    the project's config, and the `dtype` (name in torch) of the network's logits."""
    module = peer_module(folder, "diffusion", STANDS_IN)
    if hasattr(module, "tqdm"):  # ReMDM shows a progress bar for each call
        module.tqdm = functools.partial(module.tqdm, disable=True)

    chosen = {key: value for key, value in settings.items() if key != "dtype"}
    dtype = getattr(torch, settings.get("dtype", "float32"))

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        assert space.mask is not None
        sampling = SimpleNamespace(**SAMPLING | {"steps": steps} | chosen)
        model = module.Diffusion.__new__(module.Diffusion)
        super(module.Diffusion, model).__init__()
        model.config = SimpleNamespace(
            sampling=sampling,
            noise=SimpleNamespace(type="loglinear"),
            loader=SimpleNamespace(eval_batch_size=n),
            model=SimpleNamespace(length=space.length),
        )
        model.mask_index, model.vocab_size = space.mask, space.vocab + 1
        model.parameterization, model.sampler = "subs", sampling.predictor
        model.T, model.time_conditioning, model.neg_infinity = 0, False, -1000000.0
        model.noise = module.noise_schedule.get_noise(model.config)
        model.backbone = diffusion_backbone(space, dtype)
        with seeded(seed):
            return model._sample(num_steps=steps)

    return located(sample, module.Diffusion._sample)


def duo(folder: Path, settings: Settings) -> Callable[..., Tensor]:
    """The method `generate_samples` of a class of Duo's algo.py, from the checkout `folder`, as a function
    f(space, n, steps, seed) that draws n sentences, [n, L] ids, of the small language `space` in `steps` steps.
    `settings`: name of the `class`, and values of `sampling` and `sampling.psi` in Duo's config."""
    module = peer_module(folder, "algo", STANDS_IN)
    algorithm = getattr(module, settings["class"])
    sampling = {key: value for key, value in settings.items() if key not in ("class", "psi")}

    def sample(space: Space, n: int, steps: int, seed: int) -> Tensor:
        model = algorithm.__new__(algorithm)
        super(module.trainer_base.TrainerBase, model).__init__()
        psi = SimpleNamespace(**PSI | settings.get("psi", {}))
        model.config = SimpleNamespace(sampling=SimpleNamespace(**DUO_SAMPLING | sampling, psi=psi))
        model.vocab_size = space.symbols
        if space.mask is not None:
            model.mask_index = space.mask
        model.sampler = model.config.sampling.predictor
        model.time_conditioning, model.neg_infinity = space.mask is None, -1000000.0
        model.num_tokens, model.p_nucleus = space.length, 1.0
        model.class_conditional, model.num_classes = False, None
        model.noise = module.trainer_base.LogLinear(1e-3)
        model.backbone = diffusion_backbone(space)
        with seeded(seed):
            return model.generate_samples(num_samples=n, num_steps=steps)

    return located(sample, algorithm.generate_samples)
