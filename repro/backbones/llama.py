"""Llama (Touvron et al. 2023) through transformers: causal for the AR baseline, bidirectional for diffusion.

transformers' own LlamaForCausalLM is the network, so weights export as they are. Learned absolute positions are added
to the token embedding where pinned: the largest lever at toy size (they are ours, not Llama's).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro.backbones.backbone import Backbone, Role, Size
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Llama(Backbone):
    """Pins of a Llama trained from scratch. `learned_positions`: rows of the added position table, 0 for none."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    attention: Literal["causal", "bidirectional"]
    rope_base: float
    norm_eps: float
    learned_positions: int
    tied: bool
    init_deviation: float

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.backbones.networks import LlamaDenoiser

        return LlamaDenoiser(self, role, seed)

    def size(self, data: Data) -> Size:
        vocabulary = data.vocabulary().total
        head = self.width // self.heads
        attention = self.width * self.width * 2 + 2 * self.width * self.kv_heads * head
        block = attention + 3 * self.width * self.ffn + 2 * self.width
        embedding = vocabulary * self.width
        matrices = self.layers * (attention + 3 * self.width * self.ffn)
        length = data.row_length()
        return Size(
            parameters=self.layers * block
            + embedding * (1 if self.tied else 2)
            + self.width
            + self.learned_positions * self.width,
            layers=self.layers,
            width=self.width,
            body_flops=2.0 * matrices,
            attention_flops=4.0
            * self.layers
            * self.width
            * length
            * (0.5 if self.attention == "causal" else 1.0),
            head_flops=2.0 * embedding,
        )
