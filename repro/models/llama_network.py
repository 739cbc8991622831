"""The networks of Llama and Qwen2 (backbones `llama`, `llama_float32_rope` and `qwen2`): transformers' modules wrapped
as a `Denoiser`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from repro.models.attention import KVCache, Mask, View, registered
from repro.models.denoiser import Denoiser, Head, Soft, columns_and_positions, embed, initialise
from repro.models.llama import Llama, LlamaFloat32Rope, Qwen2
from repro.processes.prediction import Role


def _causal_lm(pins: Llama | Qwen2, role: Role) -> LlamaForCausalLM | Qwen2ForCausalLM:
    """transformers' Llama or Qwen2 with the hyperparameters `pins`, for the vocabulary of `role`; its layers call the
    attention function of `repro.models.attention`."""
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
    config._attn_implementation = registered()
    config.is_causal = pins.attention == "causal"
    return LlamaForCausalLM(config) if isinstance(config, LlamaConfig) else Qwen2ForCausalLM(config)


class LlamaDenoiser(Denoiser):
    """transformers' Llama or Qwen2 as a denoiser; the backbone's setting `attention` makes it causal or
    bidirectional."""

    def __init__(self, pins: Llama | Qwen2, role: Role, seed: int) -> None:
        super().__init__(role)
        positions = pins.learned_positions if isinstance(pins, Llama) else 0
        self.network = _causal_lm(pins, role)
        self.place = nn.Embedding(positions, pins.width) if positions else None
        self.block = 1 if pins.attention == "causal" else None
        initialise(self, seed, pins.init_deviation)

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert t is None, "Llama and Qwen2 do not read t"
        embedded = embed(self.network.model.embed_tokens, tokens)
        columns, where = columns_and_positions(embedded, positions, kv_cache)
        if self.place is not None:
            embedded = embedded + self.place(where)
        view = View(attention.of_network(self.block), columns, kv_cache)
        out = self.network.model(inputs_embeds=embedded, position_ids=where, use_cache=False, view=view)
        return out.last_hidden_state

    def head(self) -> Head:
        return Head.of(self.network.lm_head, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.network.model.layers)


class _Float32Rotary(LlamaRotaryEmbedding):
    """Rotary embedding that gives cosines and sines in float32 whatever the dtype of the weights, so that transformers
    rotates in float32."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(
            x.new_empty(0, dtype=torch.float32), position_ids
        )  # reads dtype and device alone


class Float32RopeDenoiser(LlamaDenoiser):
    """Llama as a denoiser that applies RoPE in float32 (backbone `llama_float32_rope`); `attend` then rounds queries
    and keys to the dtype of the values."""

    def __init__(self, pins: LlamaFloat32Rope, role: Role, seed: int) -> None:
        super().__init__(pins, role, seed)
        assert isinstance(self.network, LlamaForCausalLM)
        self.network.model.rotary_emb = _Float32Rotary(self.network.config)
