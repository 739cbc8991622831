"""The exact denoiser of an oracle language: no weights, no training, nothing left to learn.

Its features are exact log-probabilities in float64, floored at a finite value, and its head is the identity; so every
sampler, bound and metric runs on it through the very code that runs on networks, and what error is left is theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Role, Size
from repro.processes.process import Diffusion

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class Oracle(Backbone):
    """The exact conditional of the data's language under `process`, in the meaning that the objective trains."""

    process: Diffusion

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.data.language import Language
        from repro.models.oracle_network import OracleDenoiser

        if not isinstance(role.data, Language):
            raise ValueError("an oracle exists for the oracle languages only (scales nano and nano.lexicon)")
        return OracleDenoiser(role, self.process)

    def size(self, data: Data) -> Size:
        return Size(parameters=0, blocks=0, layers=0, width=0, kv_width=0, ffn=0, vocab_size=0)

    def attention_flops(self, data: Data) -> float:
        return 0.0
