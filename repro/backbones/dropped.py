"""Dropout in training, by the suite's own streams (Srivastava et al. 2014; the papers' DiT drops .1, spec D.7).

    Dropped(backbone=Dit(...), rate=0.1)

What each half of a layer adds to its input loses a share `rate` of its entries before the gate; the rest is divided by
1 - rate. Draws belong to (seed, step, row, layer), so no split of a step moves them. Outside training nothing is
dropped: only a training step says which rows it forwards (`Denoiser.begin`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.backbones.backbone import Backbone, Role, Size
from repro.backbones.dit import Dit, DitCausal
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Dropped(Backbone):
    """A DiT whose layers drop; ValueError for a rate outside (0, 1)."""

    backbone: Dit | DitCausal
    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate={self.rate} drops nothing or everything; give a number in (0, 1)")

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.backbones.dit_network import DitDenoiser

        return DitDenoiser(self.backbone, role, seed, self.rate)

    def size(self, data: Data) -> Size:
        return self.backbone.size(data)
