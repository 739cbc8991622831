"""The network of DiffusionGemma (backbone `diffusion_gemma`): transformers' modules wrapped as a `Denoiser`.

The canvas is the block being decoded. Shapes: B rows, L columns, C columns of the canvas, S columns of context before
it, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.diffusion_gemma import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)
from transformers.models.gemma4 import Gemma4VisionConfig

from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Head, SelfConditioned, Soft, initialise
from repro.models.diffusion_gemma import DiffusionGemma
from repro.processes.prediction import Role


def text_configuration(pins: DiffusionGemma, vocab_size: int) -> DiffusionGemmaTextConfig:
    """transformers' configuration of the text network, from its hyperparameters `pins` and the number of ids,
    `vocab_size`."""
    values: dict[str, Any] = {  # its signature lacks some of the names that it takes
        "vocab_size": vocab_size,
        "hidden_size": pins.width,
        "intermediate_size": pins.ffn,
        "num_hidden_layers": pins.layers,
        "num_attention_heads": pins.heads,
        "num_key_value_heads": pins.kv_heads,
        "head_dim": pins.head_width,
        "num_global_key_value_heads": pins.global_kv_heads,
        "global_head_dim": pins.global_head_width,
        "max_position_embeddings": pins.max_positions,
        "rms_norm_eps": pins.norm_eps,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": pins.rope_base_local},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": pins.rotary_share,
                "rope_theta": pins.rope_base_global,
            },
        },
        "sliding_window": pins.window,
        "layer_types": [
            "sliding_attention" if (layer + 1) % pins.global_every else "full_attention"
            for layer in range(pins.layers)
        ],
        "final_logit_softcapping": pins.softcap,
        "num_experts": pins.experts,
        "top_k_experts": pins.experts_used,
        "moe_intermediate_size": pins.expert_ffn,
        "pad_token_id": None,
        "eos_token_id": None,
        "bos_token_id": None,
    }
    return DiffusionGemmaTextConfig(**values)


def build(text: DiffusionGemmaTextConfig, canvas: int) -> DiffusionGemmaForBlockDiffusion:
    """Network of the configuration `text` with a canvas of `canvas` tokens; transformers also builds a vision tower,
    which is removed."""
    smallest = Gemma4VisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    config = DiffusionGemmaConfig(text_config=text, vision_config=smallest, canvas_length=canvas)
    network = DiffusionGemmaForBlockDiffusion(config)
    del network.model.encoder.vision_tower, network.model.encoder.embed_vision
    return network


def _layers(cache: DynamicCache) -> list[DynamicLayer]:
    return [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]


class DiffusionGemmaDenoiser(SelfConditioned):
    """transformers' DiffusionGemmaForBlockDiffusion as a denoiser; features are zeros outside the canvas (the block
    that is decoded).

    The self-conditioning signal is the mean embedding, of D features, under the probabilities of the previous
    prediction. The KV cache holds the exact keys and values of the context before the canvas, since the context passes
    through the layers once per block. The network can decode and be scored, but not be trained, because the fused loss
    of training does not apply the soft cap of the logits.
    """

    time_conditioned = True

    def __init__(self, pins: DiffusionGemma, role: Role, seed: int) -> None:
        super().__init__(role)
        self.canvas, self.softcap = pins.canvas, pins.softcap
        self.required_block_size = pins.required_block_size()
        self.config = text_configuration(pins, self.vocabulary.total)
        self.kinds: list[str] = [*(self.config.layer_types or ())]
        self.network = build(self.config, pins.canvas)
        initialise(self, seed, pins.init_deviation)

    def encode_given(
        self,
        signal: Tensor | None,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert not isinstance(tokens, Soft) and t is not None and t.ndim == 2
        if torch.is_grad_enabled():
            raise ValueError(
                "backbone diffusion_gemma cannot be trained; train another backbone, or decode under torch.no_grad()"
            )
        ahead = self._first(t)
        begin = 0 if kv_cache is None else kv_cache.span.start
        if begin + ahead == 0:
            raise ValueError(
                "DiffusionGemma needs context before the block to decode; give a prompt of at least one token"
            )
        stop, span = begin + ahead + self.canvas, slice(ahead, ahead + self.canvas)
        order = torch.arange(begin, begin + tokens.shape[1], device=tokens.device)[None]
        positions = (order if positions is None else positions).expand_as(tokens)
        valid = tokens.new_ones(len(tokens), stop, dtype=torch.bool)
        if attention.valid is not None:
            valid = attention.valid[:, :stop]
        cache = self._context(tokens[:, :ahead], valid, positions, kv_cache)
        model = self.network.model
        embedded = model.decoder.embed_tokens(tokens[:, span])
        shown = torch.zeros_like(embedded) if signal is None else signal[:, span].to(embedded.dtype)
        features = embedded.new_zeros(*tokens.shape, embedded.shape[-1])
        features[:, span] = self._read(
            model.decoder.self_conditioning(embedded, shown), valid, positions[:, span], cache
        )
        return features

    def _first(self, t: Tensor) -> int:
        """First column of the canvas (the block that is decoded), from times t [B, L] (0: clean); ValueError if the
        noisy block does not have the length of a canvas."""
        noisy = t[0] > 0
        first = int(noisy.long().argmax())
        begun = int((t[0] == t[0, first]).sum()) if t[0, first] < 1 else self.canvas
        if begun != self.canvas or t.shape[1] - first < self.canvas:
            raise ValueError(
                f"DiffusionGemma decodes blocks of {self.canvas} tokens, and the block to decode has another length;"
                f" set block_length={self.canvas}"
            )
        return first

    def _context(
        self, tokens: Tensor, valid: Tensor, positions: Tensor, kv_cache: KVCache | None
    ) -> DynamicCache:
        """Keys and values of the context before the canvas (the block that is decoded), computed from `tokens` [B, S]
        and written to `kv_cache` if there is one, or read from `kv_cache` if S = 0. `valid` [B, S + C] bool: False on
        padding; `positions` [B, L]: index of each token in its sequence."""
        cache, before = DynamicCache(config=self.config), valid.shape[1] - self.canvas
        if tokens.shape[1]:
            mask, where = valid[:, :before], positions[:, :before]
            self.network.model.encoder(input_ids=tokens, attention_mask=mask, position_ids=where, cache=cache)
            if kv_cache is not None:
                for i, layer in enumerate(_layers(cache)):
                    assert layer.keys is not None and layer.values is not None
                    kv_cache.replace(i, layer.keys, layer.values)
            return cache
        assert kv_cache is not None
        for i, layer in enumerate(_layers(cache)):
            layer.update(*kv_cache.read(i))
            if isinstance(layer, DynamicSlidingWindowLayer):
                layer.cumulative_length = before  # the layer stores only the end of the context
        return cache

    def _read(self, hidden: Tensor, valid: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Features [B, C, D] of the canvas after all layers, from its embeddings `hidden` [B, C, D] at `positions` [B,
        C]. The canvas attends to itself and to the context, whose keys and values are in `cache`; `valid` [B, S + C]
        bool: False on padding."""
        decoder = self.network.model.decoder
        masks = decoder.create_diffusion_decoder_attention_mask(
            config=self.network.config, inputs_embeds=hidden, cache=cache, decoder_attention_mask=valid
        )
        rotary = {kind: decoder.rotary_emb(hidden, positions, kind) for kind in set(self.kinds)}
        for layer, kind in zip(decoder.layers, self.kinds, strict=True):
            hidden = layer(
                hidden,
                position_embeddings=rotary[kind],
                attention_mask=masks[kind],
                position_ids=positions,
                cache=cache,
            )
        return decoder.norm(hidden)

    def signal(self, logits: Tensor) -> Tensor:
        table = self.network.model.decoder.embed_tokens
        p = logits.softmax(-1, dtype=torch.float32).to(table.weight.dtype)
        return p @ table.weight * table.embed_scale.to(table.weight.dtype)

    def head(self) -> Head:
        return Head.of(self.network.lm_head, self.forbidden)

    def raw_logits(self, features: Tensor) -> Tensor:
        return self.softcap * torch.tanh(self.head().logits(features).float() / self.softcap)
