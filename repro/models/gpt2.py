"""GPT-2 (Radford et al. 2019) through transformers: the left-to-right network that the DiT papers are compared with.

Learned position embeddings, biases in every layer, an output layer tied to the embedding; causal only.
"""

from __future__ import annotations

from typing import ClassVar

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size, check_heads


@part
class Gpt2(Backbone):
    """Hyperparameters of a GPT-2 with random initial weights. `positions`: rows of its table of position embeddings,
    the most tokens that a row may have; `init_deviation`: standard deviation of the initial weights."""

    network: ClassVar[str] = "repro.models.gpt2_network:Gpt2Denoiser"

    layers: int
    width: int
    heads: int
    ffn: int
    positions: int
    norm_eps: float
    init_deviation: float

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def size(self, data: Data) -> Size:
        matrices = 4 * self.width**2 + 2 * self.width * self.ffn
        block = matrices + 5 * self.width + self.ffn + 4 * self.width  # biases; two norms with theirs
        vocab_size = data.vocabulary().total
        embedding = vocab_size * self.width
        return Size(
            parameters=self.layers * block + embedding + self.positions * self.width + 2 * self.width,
            blocks=self.layers * matrices,
            layers=self.layers,
            width=self.width,
            kv_width=self.width,
            ffn=self.ffn,
            vocab_size=vocab_size,
        )

    def attention_flops(self, data: Data) -> float:
        return 4.0 * self.layers * self.width * data.row_length() * 0.5
