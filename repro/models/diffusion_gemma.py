"""DiffusionGemma (Google 2026) through transformers: uniform-state diffusion of one block (canvas) at a time.

A causal pass over everything before the canvas gives keys and values; the canvas itself attends in both directions with
the same weights, and also reads a signal computed from the network's previous prediction (self-conditioning). The
canvas is the block being decoded: its columns are the first ones whose time is above 0, so `block_length` must equal
`canvas`. Text only: the vision tower is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class DiffusionGemma(Backbone):
    """Hyperparameters of a DiffusionGemma with random initial weights. Every `global_every`-th layer attends globally,
    the others to a sliding window of `window` tokens.

    `canvas`: number of tokens in the block that is decoded; `global_*`: settings of the global layers, which use one
    tensor as key and value; `rotary_share`: fraction of the features of a global layer's head that RoPE rotates;
    `experts`, `experts_used`, `expert_ffn`: experts of a layer, how many of them a token uses, and their inner width;
    `softcap` c: logits x become c tanh(x / c). `module` raises ValueError if `layers` is not a multiple of
    `global_every`, because the last layer must be global.
    """

    network: ClassVar[str] = "repro.models.diffusion_gemma_network:DiffusionGemmaDenoiser"

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    global_every: int
    global_kv_heads: int
    global_head_width: int
    window: int
    ffn: int
    experts: int
    experts_used: int
    expert_ffn: int
    rope_base_local: float
    rope_base_global: float
    rotary_share: float
    norm_eps: float
    softcap: float
    canvas: int
    max_positions: int
    init_deviation: float

    def module(self, role: Role, seed: int) -> Denoiser:
        if self.layers % self.global_every:
            raise ValueError(
                f"backbone diffusion_gemma: layers={self.layers} is not a multiple of global_every={self.global_every};"
                " give a multiple, since the last layer must be global"
            )
        return super().module(role, seed)

    def required_block_size(self) -> int | None:
        return self.canvas

    def size(self, data: Data) -> Size:
        global_layers = self.layers // self.global_every
        attention = sum(
            count * self.width * head * (2 * self.heads + kinds * kv)
            for count, head, kv, kinds in (
                (self.layers - global_layers, self.head_width, self.kv_heads, 2),
                (global_layers, self.global_head_width, self.global_kv_heads, 1),
            )
        )
        norms = (
            self.layers - global_layers
        ) * 2 * self.head_width + global_layers * 2 * self.global_head_width
        norms += self.layers * 7 * self.width + 2 * self.width
        feed = 3 * self.width * self.ffn
        expert = 3 * self.width * self.expert_ffn
        router = self.width * self.experts
        scales = self.layers * (self.width + self.experts)
        vocab_size = data.vocabulary().total
        return Size(
            parameters=attention
            + norms
            + self.layers * (feed + self.experts * expert + router)
            + scales
            + feed
            + vocab_size * self.width,
            blocks=attention + self.layers * (feed + self.experts_used * expert + router) + feed,
            layers=self.layers,
            width=self.width,
            kv_width=max(self.kv_heads * self.head_width, self.global_kv_heads * self.global_head_width),
            ffn=self.ffn,
            vocab_size=vocab_size,
        )

    def attention_flops(self, data: Data) -> float:
        global_layers = self.layers // self.global_every
        length = data.row_length()
        near = min(length, self.window + self.canvas)  # a token of the canvas attends to all of it
        widths = (self.layers - global_layers) * self.head_width * near
        return 4.0 * self.heads * (widths + global_layers * self.global_head_width * length)
