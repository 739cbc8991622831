"""Llama (Touvron et al. 2023) through transformers: causal for the AR baseline, bidirectional for diffusion.

transformers' own LlamaForCausalLM is the network, so weights export unchanged. `learned_positions` adds learned
absolute positions to the token embedding: an addition of this suite, and the change that helps most at toy size.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size, check_heads


@part
class Llama(Backbone):
    """Hyperparameters of a Llama with random initial weights. `learned_positions`: number of learned position
    embeddings that are added to the token embeddings (0: none); `tied`: whether the output layer is the embedding;
    `init_deviation`: standard deviation of the initial weights. ValueError if `width`, `heads` and `kv_heads` do not
    fit (`check_heads`)."""

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

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads, self.kv_heads)

    def size(self, data: Data) -> Size:
        vocab_size = data.vocabulary().total
        head = self.width // self.heads
        attention = self.width * self.width * 2 + 2 * self.width * self.kv_heads * head
        block = attention + 3 * self.width * self.ffn + 2 * self.width
        embedding = vocab_size * self.width
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
            vocab_size=vocab_size,
        )

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data)


@part
class LlamaFloat32Rope(Llama):
    """Hyperparameters of a Llama that applies its rotary embedding in float32 whatever the dtype of the weights, and
    rounds the result to that dtype (LLaDA's rope_full_precision: NVlabs/Fast-dLLM@24cc59e
    llada/model/modeling_llada.py:437-460); the fields are those of `Llama`."""

    network: ClassVar[str] = "repro.models.llama_network:Float32RopeDenoiser"


@part
class Qwen2(Backbone):
    """Hyperparameters of a Qwen2 with random initial weights: a Llama with biases in the projections to query, key and
    value. `tied`: whether the output layer is the embedding; `init_deviation`: standard deviation of the initial
    weights. ValueError if `width`, `heads` and `kv_heads` do not fit (`check_heads`)."""

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

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads, self.kv_heads)

    def size(self, data: Data) -> Size:
        kv_width = self.kv_heads * (self.width // self.heads)
        matrices = 2 * self.width * (self.width + kv_width) + 3 * self.width * self.ffn
        block = matrices + self.width + 2 * kv_width + 2 * self.width  # biases of q, k and v; two norms
        vocab_size = data.vocabulary().total
        embedding = vocab_size * self.width
        return Size(
            parameters=self.layers * block + embedding * (1 if self.tied else 2) + self.width,
            blocks=self.layers * matrices,
            layers=self.layers,
            width=self.width,
            kv_width=kv_width,
            ffn=self.ffn,
            vocab_size=vocab_size,
        )

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data)


def _attention_flops(pins: Llama | Qwen2, data: Data) -> float:
    """FLOPs of one forward pass, per token of a full row of `data`, for attention's products between tokens (queries
    with keys, attention weights with values), summed over layers; under causal attention a token attends to half of its
    row on average. `pins`: hyperparameters of the network."""
    seen = 0.5 if pins.attention == "causal" else 1.0
    return 4.0 * pins.layers * pins.width * data.row_length() * seen
