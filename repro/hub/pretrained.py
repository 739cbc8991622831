"""A backbone that starts training from released weights.

PretrainedBackbone(backbone=Llama(...), source="GSAI-ML/LLaDA-8B-Base", revision=UNRESOLVED)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.models.backbone import Backbone, Role, Wrapper
from repro.models.llama import Llama

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class PretrainedBackbone(Wrapper):
    """`backbone` with the weights of `source`: a local folder in its authors' layout, or a Hub name at `revision`.

    The attention pattern may differ from the one that the weights were trained with; every other pin must agree. Raises
    ConnectionError where the weights cannot be fetched, ValueError where they do not fit.
    """

    backbone: Llama
    source: str
    revision: str

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.data import sources
        from repro.hub.release import agree, network, open_release
        from repro.models.denoiser import copy_weights

        opened = open_release(sources.weights(self.source, self.revision))
        agree(opened, "backbone", self.backbone, opened.release.backbone, ("attention", "init_deviation"))
        made = self.backbone.module(role, seed)
        given = dict(network(opened).named_parameters())
        copy_weights(dict(made.named_parameters()), given, self.source)
        return made

    def blank(self) -> Backbone:
        return self.backbone
