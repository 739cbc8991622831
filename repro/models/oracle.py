"""The exact denoiser of a synthetic language with known probabilities (oracle), without weights or training.

Its features are exact log-probabilities in float64, floored at a finite value, and its output layer is the identity.
Samplers, bounds and metrics run on it through the same code as on networks, so any error that they show on it is their
own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size
from repro.processes.prediction import Role
from repro.processes.process import Diffusion

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class Oracle(Backbone):
    """Backbone without weights: its network (`module`) computes the exact distribution of the clean tokens given the
    noisy ones, for a synthetic language with known probabilities.

    The noise is that of `process`; the output estimates what the recipe's objective trains, `x0_mean` or
    `leave_one_out` (`repro.models.denoiser`). `module` raises ValueError for data whose probabilities are not known.
    """

    process: Diffusion

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.data.language import Language
        from repro.models.oracle_network import OracleDenoiser

        if not isinstance(role.data, Language):
            raise ValueError(
                f"backbone oracle needs a language with known probabilities, not {type(role.data).__name__};"
                " use scale nano or nano.lexicon"
            )
        return OracleDenoiser(role, self.process)

    def size(self, data: Data) -> Size:
        return Size(parameters=0, blocks=0, layers=0, width=0, kv_width=0, ffn=0, vocab_size=0)

    def attention_flops(self, data: Data) -> float:
        return 0.0
