"""ModernBERT (Warner et al. 2024) through transformers: the network of the reference scripts, tom-pollak/dllm@43ea9ff.

`weights` and `revision` name a pretrained checkpoint on the Hub; None: random initialisation. `attend_pads`: whether
tokens attend to [PAD], as in the masked reference script, which passes no attention mask
(docs/method.md#masked-script).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size, check_heads


@part
class ModernBert(Backbone):
    """Hyperparameters of a ModernBERT masked language model. Every `global_every`-th layer attends globally, the others
    to `window` / 2 tokens on each side. `attend_pads`: whether tokens attend to [PAD]; `weights`, `revision`: Hub name
    or folder of pretrained weights and their commit (None: random initialisation)."""

    network: ClassVar[str] = "repro.models.modernbert_network:ModernBertDenoiser"

    layers: int
    width: int
    heads: int
    ffn: int
    global_every: int
    window: int
    rope_base_global: float
    rope_base_local: float
    norm_eps: float
    max_positions: int
    attend_pads: bool
    init_deviation: float
    weights: str | None
    revision: str | None

    def blank(self) -> Backbone:
        return dataclasses.replace(self, weights=None, revision=None)

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def size(self, data: Data) -> Size:
        vocab_size = data.vocabulary().total
        block = (
            4 * self.width * self.width + 3 * self.width * self.ffn + 2 * self.width
        )  # Wqkv, Wo, Wi (GeGLU), Wo
        embedding = vocab_size * self.width
        return Size(
            # layer 0 has no attention norm; embedding norm, final norm and the head's norm; decoder bias; tied decoder
            parameters=self.layers * block
            - self.width
            + embedding
            + 3 * self.width
            + self.width * self.width
            + vocab_size,
            blocks=self.layers * (4 * self.width**2 + 3 * self.width * self.ffn) + self.width**2,
            layers=self.layers,
            width=self.width,
            kv_width=self.width,
            ffn=self.ffn,
            vocab_size=vocab_size,
        )

    def attention_flops(self, data: Data) -> float:
        length = data.row_length()
        global_layers = sum(1 for layer in range(self.layers) if layer % self.global_every == 0)
        keys = global_layers * length + (self.layers - global_layers) * min(length, self.window + 1)
        return 4.0 * self.width * keys
