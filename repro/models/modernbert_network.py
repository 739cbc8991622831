"""The network of ModernBERT (backbone `modernbert`): transformers' module wrapped as a `Denoiser`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from repro.models.attention import KVCache, Mask, View, registered
from repro.models.denoiser import Denoiser, Head, Soft, columns_and_positions, embed, initialise
from repro.models.modernbert import ModernBert
from repro.processes.prediction import Role


class ModernBertDenoiser(Denoiser):
    """transformers' ModernBertForMaskedLM as a denoiser; features are the output of its prediction head (dense, GELU,
    norm), and the output layer is its decoder."""

    def __init__(self, pins: ModernBert, role: Role, seed: int) -> None:
        super().__init__(role)
        config = ModernBertConfig(
            vocab_size=self.vocabulary.total,
            hidden_size=pins.width,
            intermediate_size=pins.ffn,
            num_hidden_layers=pins.layers,
            num_attention_heads=pins.heads,
            max_position_embeddings=pins.max_positions,
            norm_eps=pins.norm_eps,
            layer_types=[
                "sliding_attention" if layer % pins.global_every else "full_attention"
                for layer in range(pins.layers)
            ],
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": pins.rope_base_global},
                "sliding_attention": {"rope_type": "default", "rope_theta": pins.rope_base_local},
            },
            local_attention=pins.window,
            pad_token_id=self.vocabulary.pad,
            bos_token_id=self.vocabulary.bos,
            eos_token_id=self.vocabulary.eos,
            cls_token_id=self.vocabulary.bos,
            sep_token_id=self.vocabulary.eos,
        )
        config._attn_implementation = registered()
        self.attend_pads = pins.attend_pads
        if pins.weights is None:
            self.network = ModernBertForMaskedLM(config)
            initialise(self, seed, pins.init_deviation)
        else:
            self.network = _pretrained(pins.weights, pins.revision, config)

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert t is None, "ModernBERT does not read t"
        embedded = embed(self.network.model.embeddings.tok_embeddings, tokens)
        columns, where = columns_and_positions(embedded, positions, kv_cache)
        # a training row's own padding may be attended to, the left padding of a shorter prompt never
        valid = None if self.attend_pads and positions is None else attention.valid
        view = View(Mask(valid, attention.block), columns, kv_cache)
        out = self.network.model(inputs_embeds=embedded, position_ids=where, view=view)
        return self.network.head(out.last_hidden_state)

    def head(self) -> Head:
        decoder = self.network.decoder
        return Head.of(decoder, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.network.model.layers)


def _pretrained(name: str, revision: str | None, config: ModernBertConfig) -> ModernBertForMaskedLM:
    """ModernBERT network with the pretrained weights `name`, from the Hub at the commit `revision` (None: its newest)
    or from a local folder.

    Raises ConnectionError if the Hub cannot be reached, ValueError if the weights cannot be read or their configuration
    differs from `config`, that of the recipe's backbone, in a size, attention pattern or position setting (`PINNED`).
    """
    from repro.data.corpus import UNRESOLVED

    try:
        network = ModernBertForMaskedLM.from_pretrained(
            name,
            revision="main" if revision in (None, UNRESOLVED) else revision,
            attn_implementation=registered(),
            use_safetensors=True,
            dtype=torch.float32,
        )
    except OSError as error:
        if Path(name).exists():
            raise ValueError(
                f"the folder {name} has no readable ModernBERT weights ({str(error).splitlines()[0]}); give another"
                " folder as the backbone's setting `weights`"
            ) from None
        raise ConnectionError(f"cannot fetch {name} (no network); connect, or give a local copy") from None
    for pin in PINNED:
        found, pinned = getattr(network.config, pin), getattr(config, pin)
        if found != pinned:
            raise ValueError(
                f"the pretrained weights {name} have {pin}={found}, but the recipe's backbone has {pinned}; change the"
                " backbone's setting to the value of the weights"
            )
    return network


PINNED = (
    *(
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "norm_eps",
    ),
    *("max_position_embeddings", "layer_types", "local_attention", "rope_parameters"),
)
"""Fields of transformers' configuration that the recipe's backbone sets; pretrained weights must agree with them."""
