"""DiffusionGemma (Google 2026) through transformers: uniform-state diffusion of one block (canvas) at a time.

A causal pass over everything before the canvas gives keys and values; the canvas itself is read both ways with the
same weights, together with a signal made of the network's own last prediction (self-conditioning). The canvas is the
block that is being decoded: its columns are the first ones whose time is above 0, so `block_length` must be `canvas`.
Text only: the vision tower is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.backbones.backbone import Backbone, Role, Size
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class DiffusionGemma(Backbone):
    """Pins of a DiffusionGemma without weights. Every `global_every`-th layer attends to all, the others to a window.

    `global_*`: what global layers have instead (they share keys and values); `rotary_share` of a global head rotates.
    """

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
        from repro.backbones.canvas import DiffusionGemmaDenoiser

        if self.layers % self.global_every:
            raise ValueError(
                f"layers {self.layers} must be a multiple of global_every {self.global_every}: the last is global"
            )
        return DiffusionGemmaDenoiser(self, role, seed)

    def writes(self) -> int | None:
        return self.canvas

    def size(self, data: Data) -> Size:
        wide = self.layers // self.global_every
        attention = sum(
            count * self.width * head * (2 * self.heads + kinds * kv)
            for count, head, kv, kinds in (
                (self.layers - wide, self.head_width, self.kv_heads, 2),
                (wide, self.global_head_width, self.global_kv_heads, 1),
            )
        )
        norms = (self.layers - wide) * 2 * self.head_width + wide * 2 * self.global_head_width
        norms += self.layers * 7 * self.width + 2 * self.width
        feed = 3 * self.width * self.ffn
        expert = 3 * self.width * self.expert_ffn
        router = self.width * self.experts
        scales = self.layers * (self.width + self.experts)
        embedding = data.vocabulary().total * self.width
        length = data.row_length()
        heads = (self.layers - wide) * self.head_width + wide * self.global_head_width
        return Size(
            parameters=attention
            + norms
            + self.layers * (feed + self.experts * expert + router)
            + scales
            + feed
            + embedding,
            layers=self.layers,
            width=self.width,
            body_flops=2.0 * (attention + self.layers * (feed + self.experts_used * expert + router) + feed),
            attention_flops=4.0 * self.heads * heads * length,
            head_flops=2.0 * embedding,
        )
