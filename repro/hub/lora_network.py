"""The network of the backbone `lora`: layers of the package peft around those of a frozen network.

Shapes: B rows, L tokens, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.core import rng
from repro.hub.lora import Lora
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft, parameter_key
from repro.models.dropout import drop
from repro.processes.absorbing import mask_id
from repro.processes.prediction import Role

ADAPTER = "default"
"""peft's name of the adapter."""
EMBEDDING = "embed_tokens"
"""transformers' name of the input embedding."""
FLAGS = (
    "time_conditioned",
    "supports_kv_cache",
    "cache_left_context",
    "required_block_size",
    "block_causal",
)
"""Attributes that an adapted network copies from the network that it adapts."""


class KeyedDropout(nn.Module):
    """Dropout at `rate` in training, drawn from one random key per row, `keys` [B] (None: no dropout). It replaces
    peft's dropout, which draws from torch's global generator, so that a resumed run would differ."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.keys if self.training else None, self.rate)


class AdaptedDenoiser(Denoiser):
    """The denoiser `network` with frozen parameters, and trained low-rank adapters in its layers.

    `role`: vocabulary of the network, and what its output estimates; `pins`: settings of the adapters; `seed`: random
    seed of the adapters' start; `base`: SHA-256 of the frozen weights. ValueError if peft is not installed, and if the
    mask's embedding is to be trained but the vocabulary has no mask.
    """

    def __init__(self, network: Denoiser, role: Role, pins: Lora, seed: int, base: str) -> None:
        super().__init__(role)
        try:
            from peft import LoraConfig
            from peft.tuners.lora import LoraModel
        except ModuleNotFoundError:
            raise ValueError("LoRA needs the package peft; pip install 'dlm-repro[lora]'") from None
        alpha: Any = pins.alpha  # peft divides it by the rank, whatever its type hint says
        config = LoraConfig(
            r=pins.rank,
            lora_alpha=alpha,
            target_modules=list(pins.targets),
            bias="none",
            trainable_token_indices={EMBEDDING: [mask_id(role.vocabulary)]} if pins.mask_embedding else None,
        )
        for name in FLAGS:
            setattr(self, name, getattr(network, name))
        self.has_dropout, self.base_digest = pins.dropout > 0, base
        self.adapted = LoraModel(network, config, ADAPTER)
        self._dropouts: list[KeyedDropout] = []
        with torch.no_grad():
            for name, module in list(self.named_modules()):
                if hasattr(module, "lora_A"):
                    self._start(module, f"{name}.lora_A", pins.dropout, seed)

    def _start(self, layer: Any, name: str, rate: float, seed: int) -> None:
        """Initialise the matrix A, called `name`, of the adapter in `layer`: uniform as in peft, but drawn from a
        random key of `seed` and `name`. Replace peft's dropout by `KeyedDropout` at `rate`."""
        a = layer.lora_A[ADAPTER].weight
        a.copy_((2 * rng.uniform(parameter_key(seed, name), *a.shape) - 1) / a.shape[1] ** 0.5)
        if rate:
            layer.lora_dropout[ADAPTER] = dropout = KeyedDropout(rate)
            self._dropouts.append(dropout)

    @property
    def network(self) -> Denoiser:
        """The adapted network: the denoiser with frozen parameters, with peft's adapters in its layers."""
        return self.adapted.model

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        return self.network.encode(tokens, t=t, attention=attention, positions=positions, kv_cache=kv_cache)

    def set_dropout_keys(self, keys: Tensor) -> None:
        for number, dropout in enumerate(self._dropouts):
            dropout.keys = rng.fold(keys, number)

    def head(self) -> Head:
        return self.network.head()

    def layers(self) -> list[nn.Module]:
        return self.network.layers()

    def merged(self) -> Denoiser:
        network = self.adapted.merge_and_unload()
        assert isinstance(network, Denoiser)
        return network
