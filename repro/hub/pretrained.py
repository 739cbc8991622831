"""A backbone whose training starts from released weights.

PretrainedBackbone(backbone=Llama(...), source="GSAI-ML/LLaDA-8B-Base", revision=UNRESOLVED)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.models.backbone import Backbone, Wrapper
from repro.models.dit import WithDropout
from repro.models.llama import Llama
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.hub.release import Opened
    from repro.models.denoiser import Denoiser


@part
class PretrainedBackbone(Wrapper):
    """The network of `backbone`, initialised with the weights of `source`: a local folder in its authors' layout, a
    GGUF file, a name that `make models` fetches, or a Hub name at `revision` (UNRESOLVED: a placeholder for the commit,
    which only the Hub knows).

    The attention pattern of `backbone` (causal, bidirectional, blocks of some length) may differ from that with which
    the weights were trained; every other setting must agree with the weights' config.json. `module` raises
    ConnectionError if the weights cannot be fetched, and ValueError if they belong to a network of other settings.
    """

    backbone: Llama | WithDropout
    source: str
    revision: str

    def _opened(self) -> Opened:
        from repro.data import sources
        from repro.hub.gguf import gguf_folder
        from repro.hub.release import open_release

        return open_release(gguf_folder(self.source) or sources.weights(self.source, self.revision))

    def weights_digest(self) -> str:
        """SHA-256 of the bytes of the weights; ConnectionError if they cannot be fetched."""
        from repro.hub.release import fingerprint

        return fingerprint(self._opened())

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.hub.release import agree, fill, unfilled
        from repro.models.denoiser import check_same_shapes

        opened = self._opened()
        own, free = self.backbone, ("attention", "init_deviation")
        if isinstance(own, WithDropout):  # DiTs that read whole rows or blocks have the same parameters
            own, free = own.backbone, ("backbone", "block")
        agree(opened, "backbone", own, opened.release.backbone, free)
        made = unfilled(self.backbone, role)
        check_same_shapes(dict(made.named_parameters()), dict(opened.blank.named_parameters()), self.source)
        return fill(opened, made)

    def blank(self) -> Backbone:
        return self.backbone
