"""Right shift: a network adapted from left-to-right weights predicts token i at position i - 1 (Dream;
docs/method.md#dream-rules).

The features of such a network are moved one position to the right, so that samplers, losses and bounds read them like
those of any other network. The first position, which has no left neighbour, keeps its own (unshifted) features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.models.backbone import Backbone, Wrapper
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class Shifted(Wrapper):
    """A `backbone` whose features at position i - 1 predict the token at position i; its network moves them one
    position to the right, so that position i has the features for its own token."""

    backbone: Backbone

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.models.shifted_network import ShiftedDenoiser

        return ShiftedDenoiser(self.backbone.module(role, seed), role)

    def blank(self) -> Backbone:
        return Shifted(backbone=self.backbone.blank())
