"""Qwen2 (Yang et al. 2024) through transformers: Llama's block with biases on queries, keys and values.

Causal it is the left-to-right baseline; bidirectional and shifted it is the network of Dream (Ye et al. 2025), which
grew out of Qwen2.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro.backbones.backbone import Backbone, Role, Size
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Qwen2(Backbone):
    """Pins of a Qwen2 without weights."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    attention: Literal["causal", "bidirectional"]
    rope_base: float
    norm_eps: float
    tied: bool
    init_deviation: float

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.backbones.networks import LlamaDenoiser

        return LlamaDenoiser(self, role, seed)

    def size(self, data: Data) -> Size:
        keys = self.kv_heads * (self.width // self.heads)
        matrices = 2 * self.width * (self.width + keys) + 3 * self.width * self.ffn
        block = matrices + self.width + 2 * keys + 2 * self.width  # biases of q, k and v; two norms
        embedding = data.vocabulary().total * self.width
        seen = 0.5 if self.attention == "causal" else 1.0
        return Size(
            parameters=self.layers * block + embedding * (1 if self.tied else 2) + self.width,
            layers=self.layers,
            width=self.width,
            body_flops=2.0 * self.layers * matrices,
            attention_flops=4.0 * self.layers * self.width * data.row_length() * seen,
            head_flops=2.0 * embedding,
        )
