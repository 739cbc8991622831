"""The denoiser of the backbone `oracle`: exact conditional distributions behind the interface of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.data.language import Language
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.processes.absorbing import mask_id
from repro.processes.prediction import Role
from repro.processes.process import Diffusion

FLOOR = -80.0
"""Smallest log-probability of a feature, in nats: finite, so that 0 log 0 never appears; e^-80 is 1e-35."""


class OracleDenoiser(Denoiser):
    """Denoiser whose features are the exact log-probabilities [B, L, V] of the clean tokens given the noisy ones, and
    whose output layer is the identity; V vocabulary size (docs/method.md#uniform-samplers for uniform noise)."""

    supports_kv_cache = False

    def __init__(self, role: Role, process: Diffusion) -> None:
        super().__init__(role)
        assert isinstance(role.data, Language)
        self.hmm = role.data.hmm()
        self.process = process
        self.time_conditioned = not process.masks

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert not isinstance(tokens, Soft) and kv_cache is None
        if attention.valid is not None:
            raise ValueError("backbone oracle does not support padding; give prompts of equal length")
        if self.process.masks:
            probabilities = self.hmm.posterior_absorbing(tokens, mask_id(self.vocabulary))
        else:
            assert t is not None, "the exact denoiser of uniform noise reads t"
            alpha = self.process.alpha(t.double())
            exact = (
                self.hmm.posterior_uniform if self.meaning == "x0_mean" else self.hmm.leave_one_out_uniform
            )
            probabilities = exact(tokens, alpha)
        logp = probabilities.log().clamp_min(FLOOR)
        special = self.vocabulary.total - self.vocabulary.size
        return torch.nn.functional.pad(logp, (0, special), value=FLOOR)

    def head(self) -> Head:
        total = self.vocabulary.total
        return Head(torch.eye(total, dtype=torch.float64), None, self.forbidden)
