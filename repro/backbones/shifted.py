"""Right shift: a network that was trained left to right says at i - 1 what stands at i (Dream; spec E.3).

Its features are moved one position to the right, so that rules, losses and bounds read them like any other network's.
The first position of a row keeps its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.backbones.backbone import Backbone, Role, Size
from repro.data.corpus import Data
from repro.parts import part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Shifted(Backbone):
    """A backbone whose features at i - 1 speak of position i."""

    backbone: Backbone

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.backbones.right_shift import ShiftedDenoiser

        return ShiftedDenoiser(self.backbone.module(role, seed), role)

    def blank(self) -> Backbone:
        return Shifted(backbone=self.backbone.blank())

    def writes(self) -> int | None:
        return self.backbone.writes()

    def size(self, data: Data) -> Size:
        return self.backbone.size(data)
