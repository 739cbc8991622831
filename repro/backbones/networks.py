"""The networks behind the backbone parts: transformers' modules behind the denoiser contract."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from repro.backbones.attention import Mask, Slots, View
from repro.backbones.backbone import Role
from repro.backbones.denoiser import Denoiser, Head, Soft, initialise
from repro.backbones.llama import Llama
from repro.backbones.modernbert import ModernBert
from repro.backbones.qwen2 import Qwen2


def embed(table: nn.Embedding, tokens: Tensor | Soft) -> Tensor:
    """Embedding of ids [B, L], or the weighted mean embedding of soft tokens (spec A.2), [B, L, D]."""
    if not isinstance(tokens, Soft):
        return table(tokens)
    if tokens.ids is None:
        return tokens.weights.to(table.weight.dtype) @ table.weight[: tokens.weights.shape[-1]]
    ids, weights = (part.flatten(0, 1) for part in (tokens.ids, tokens.weights.to(table.weight.dtype)))
    bags = nn.functional.embedding_bag(ids, table.weight, per_sample_weights=weights, mode="sum")
    return bags.view(*tokens.weights.shape[:2], -1)


def places(embedded: Tensor, positions: Tensor | None, slots: Slots | None) -> tuple[Tensor, Tensor]:
    """Columns and positions of a forward, [B or 1, L] each; without padding or cache both are 0..L-1."""
    start = 0 if slots is None else slots.span.start
    order = torch.arange(start, start + embedded.shape[1], device=embedded.device)[None]
    return order, order if positions is None else positions


def _causal_lm(pins: Llama | Qwen2, role: Role) -> LlamaForCausalLM | Qwen2ForCausalLM:
    """transformers' network of the pins, under our attention."""
    kind = LlamaConfig if isinstance(pins, Llama) else Qwen2Config
    config = kind(
        vocab_size=role.vocabulary.total,
        hidden_size=pins.width,
        intermediate_size=pins.ffn,
        num_hidden_layers=pins.layers,
        num_attention_heads=pins.heads,
        num_key_value_heads=pins.kv_heads,
        max_position_embeddings=role.data.row_length(),
        rms_norm_eps=pins.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": pins.rope_base},
        tie_word_embeddings=pins.tied,
        bos_token_id=role.vocabulary.bos,
        eos_token_id=role.vocabulary.eos,
        pad_token_id=role.vocabulary.pad,
    )
    config._attn_implementation = "repro"
    config.is_causal = pins.attention == "causal"
    return LlamaForCausalLM(config) if isinstance(config, LlamaConfig) else Qwen2ForCausalLM(config)


class LlamaDenoiser(Denoiser):
    """transformers' Llama or Qwen2 as a denoiser (its `config.is_causal` says which way it looks)."""

    def __init__(self, pins: Llama | Qwen2, role: Role, seed: int) -> None:
        super().__init__(role)
        places = pins.learned_positions if isinstance(pins, Llama) else 0
        self.network = _causal_lm(pins, role)
        self.place = nn.Embedding(places, pins.width) if places else None
        self.block = 1 if pins.attention == "causal" else None
        initialise(self, seed, pins.init_deviation)

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        slots: Slots | None = None,
    ) -> Tensor:
        assert t is None, "this network takes no time"
        embedded = embed(self.network.model.embed_tokens, tokens)
        columns, where = places(embedded, positions, slots)
        if self.place is not None:
            embedded = embedded + self.place(where)
        view = View(Mask(attention.valid, attention.block or self.block), columns, slots)
        out = self.network.model(inputs_embeds=embedded, position_ids=where, use_cache=False, view=view)
        return out.last_hidden_state

    def head(self) -> Head:
        return Head(self.network.lm_head.weight, None, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.network.model.layers)


class ModernBertDenoiser(Denoiser):
    """transformers' ModernBertForMaskedLM as a denoiser; features contain its prediction head (dense, GELU, norm)."""

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
        config._attn_implementation = "repro"
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
        slots: Slots | None = None,
    ) -> Tensor:
        assert t is None, "ModernBERT takes no time"
        embedded = embed(self.network.model.embeddings.tok_embeddings, tokens)
        columns, where = places(embedded, positions, slots)
        # a training row's own padding may be attended to; what pads a shorter prompt of a batch never is
        valid = None if self.attend_pads and positions is None else attention.valid
        view = View(Mask(valid, attention.block), columns, slots)
        out = self.network.model(inputs_embeds=embedded, position_ids=where, view=view)
        return self.network.head(out.last_hidden_state)

    def head(self) -> Head:
        decoder = self.network.decoder
        return Head(decoder.weight, decoder.bias, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.network.model.layers)


def _pretrained(name: str, revision: str | None, config: ModernBertConfig) -> ModernBertForMaskedLM:
    """Hub or local weights, checked against the pins; raises ConnectionError in one line when out of reach."""
    from repro.data.corpus import UNRESOLVED

    try:
        network = ModernBertForMaskedLM.from_pretrained(
            name,
            revision="main" if revision in (None, UNRESOLVED) else revision,
            attn_implementation="repro",
            use_safetensors=True,
            dtype=torch.float32,
        )
    except OSError as error:
        if Path(name).exists():
            raise ValueError(
                f"{name} holds no readable ModernBERT weights ({str(error).splitlines()[0]})"
            ) from None
        raise ConnectionError(f"cannot fetch {name} (no network)") from None
    for pin in PINNED:
        found, pinned = getattr(network.config, pin), getattr(config, pin)
        if found != pinned:
            raise ValueError(f"{name}: {pin} is {found}, the recipe pins {pinned}")
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
"""Fields of transformers' configuration that the part's pins fill."""
