"""Llama (Touvron et al. 2023) through transformers: causal for the AR baseline, bidirectional for diffusion.

transformers' own LlamaForCausalLM is the network, so weights export as they are. Learned absolute positions are added
to the token embedding where pinned: the largest lever at toy size (they are ours, not Llama's).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size

if TYPE_CHECKING:
    pass


@part
class Llama(Backbone):
    """Pins of a Llama trained from scratch. `learned_positions`: rows of the added position table, 0 for none."""

    network: ClassVar[str] = "repro.models.llama_network:LlamaDenoiser"

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

    def size(self, data: Data) -> Size:
        vocabulary = data.vocabulary().total
        head = self.width // self.heads
        attention = self.width * self.width * 2 + 2 * self.width * self.kv_heads * head
        block = attention + 3 * self.width * self.ffn + 2 * self.width
        embedding = vocabulary * self.width
        matrices = self.layers * (attention + 3 * self.width * self.ffn)
        return Size(
            parameters=self.layers * block
            + embedding * (1 if self.tied else 2)
            + self.width
            + self.learned_positions * self.width,
            blocks=matrices,
            layers=self.layers,
            width=self.width,
            kv_width=self.kv_heads * head,
            ffn=self.ffn,
            vocab_size=vocabulary,
        )

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data)


@part
class Qwen2(Backbone):
    """Pins of a Qwen2 without weights."""

    network: ClassVar[str] = "repro.models.llama_network:LlamaDenoiser"

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

    def size(self, data: Data) -> Size:
        keys = self.kv_heads * (self.width // self.heads)
        matrices = 2 * self.width * (self.width + keys) + 3 * self.width * self.ffn
        block = matrices + self.width + 2 * keys + 2 * self.width  # biases of q, k and v; two norms
        vocabulary = data.vocabulary().total
        embedding = vocabulary * self.width
        return Size(
            parameters=self.layers * block + embedding * (1 if self.tied else 2) + self.width,
            blocks=self.layers * matrices,
            layers=self.layers,
            width=self.width,
            kv_width=keys,
            ffn=self.ffn,
            vocab_size=vocabulary,
        )

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data)


def _attention_flops(pins: Llama | Qwen2, data: Data) -> float:
    """A causal token sees half of the row on average."""
    seen = 0.5 if pins.attention == "causal" else 1.0
    return 4.0 * pins.layers * pins.width * data.row_length() * seen
