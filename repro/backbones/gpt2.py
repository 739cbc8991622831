"""GPT-2 (Radford et al. 2019) through transformers: the left-to-right network that the DiT papers are compared with.

Learned positions, biases everywhere, a tied head; causal only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.backbones.backbone import Backbone, Role, Size
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Gpt2(Backbone):
    """Pins of a GPT-2 without weights; `positions`: rows of its table, the longest row."""

    layers: int
    width: int
    heads: int
    ffn: int
    positions: int
    norm_eps: float
    init_deviation: float

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.backbones.gpt2_network import Gpt2Denoiser

        return Gpt2Denoiser(self, role, seed)

    def size(self, data: Data) -> Size:
        matrices = 4 * self.width**2 + 2 * self.width * self.ffn
        block = matrices + 5 * self.width + self.ffn + 4 * self.width  # biases; two norms with theirs
        embedding = data.vocabulary().total * self.width
        return Size(
            parameters=self.layers * block + embedding + self.positions * self.width + 2 * self.width,
            layers=self.layers,
            width=self.width,
            body_flops=2.0 * self.layers * matrices,
            attention_flops=4.0 * self.layers * self.width * data.row_length() * 0.5,
            head_flops=2.0 * embedding,
        )
