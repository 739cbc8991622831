"""The network of the backbone `shifted`: it predicts the token at position i from the features of another network at
position i - 1 (Dream; docs/method.md#dream-rules)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.processes.prediction import Role


class ShiftedDenoiser(Denoiser):
    """Denoiser whose features [B, L, D] are those of `network`, each moved one position to the right within its row.

    A forward with a KV cache recomputes one extra column to the left, since the features of its first column come from
    there.
    """

    cache_left_context = 1

    def __init__(self, network: Denoiser, role: Role) -> None:
        super().__init__(role)
        self.network = network
        self.time_conditioned, self.supports_kv_cache, self.required_block_size = (
            network.time_conditioned,
            network.supports_kv_cache,
            network.required_block_size,
        )

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        features = self.network.encode(
            tokens, t=t, attention=attention, positions=positions, kv_cache=kv_cache
        )
        before = torch.cat([features[:, :1], features[:, :-1]], dim=1)
        if positions is None:
            return before
        # left padding and the first token of a row have position 0, and no predecessor
        return torch.where((positions == 0)[..., None], features, before)

    def head(self) -> Head:
        return self.network.head()

    def layers(self) -> list[nn.Module]:
        return self.network.layers()
