"""The network of the backbone `causal_blocks`: a causal network that decodes blocks
(docs/method.md#ar-to-block-diffusion).

Shapes: B rows, L tokens, D features, W tokens a block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.models.attention import CausalPrefix, Copies, KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.processes.prediction import Role


class CausalBlocksDenoiser(Denoiser):
    """Denoiser that reads a row in blocks of W = `block` tokens, made of the causal denoiser `network`. The block to be
    decoded starts at the row's first column whose time is above 0; a row without such a column is clean throughout.

    The features of a position are those that `network` has at the position before; the first position of a row keeps
    its own. If noisy and clean copies of a row are read (mask `Copies`), a noisy copy takes the features for the first
    position of a block from the clean copy, and the clean copy keeps its own features.
    """

    time_conditioned = True
    block_causal = True
    cache_left_context = 1

    def __init__(self, network: Denoiser, role: Role, block: int) -> None:
        super().__init__(role)
        self.network, self.required_block_size = network, block

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert self.required_block_size is not None
        if isinstance(attention, Copies):
            assert not isinstance(tokens, Soft) and positions is None
            return self._encode_copies(tokens, attention, self.required_block_size)
        if t is None or t.ndim == 1:
            raise ValueError(
                "backbone causal_blocks reads a noisy block after clean ones, not a row that is noisy throughout; give"
                " t [B, L], a time for each position"
            )
        begin = 0 if kv_cache is None else kv_cache.span.start
        starts = begin + ((t > 0).cumsum(1) == 0).sum(1)
        features = self.network.encode(
            tokens,
            t=None,
            attention=CausalPrefix(attention.valid, self.required_block_size, starts=starts.to(self.device)),
            positions=positions,
            kv_cache=kv_cache,
        )
        before = _shifted(features)
        # left padding and the first token of a row have position 0, and no predecessor
        return before if positions is None else torch.where((positions == 0)[..., None], features, before)

    def _encode_copies(self, tokens: Tensor, attention: Copies, block: int) -> Tensor:
        """Features [B, (n + 1) L, D] of `tokens` [B, (n + 1) L], n noisy copies of each row before its clean copy. A
        position of a noisy copy has the features of the position before it (for the first position of a block: before
        it in the clean copy); the clean copy keeps its own. `attention`: the mask of the copies; `block`: tokens per
        block."""
        copies = attention.views + 1
        place = torch.arange(tokens.shape[1] // copies, device=self.device)
        mask = Copies(attention.valid, block, clean=1, views=attention.views)
        hidden = self.network.encode(tokens, t=None, attention=mask, positions=place.repeat(copies)[None])
        *noisy, clean = hidden.chunk(copies, 1)
        starts = ((place % block == 0) & (place > 0))[:, None]
        return torch.cat(
            [*(torch.where(starts, _shifted(clean), _shifted(each)) for each in noisy), clean], 1
        )

    def head(self) -> Head:
        return self.network.head()

    def layers(self) -> list[nn.Module]:
        return self.network.layers()


def _shifted(features: Tensor) -> Tensor:
    """Features [B, L, D] moved one position to the right; the first position keeps its own."""
    return torch.cat([features[:, :1], features[:, :-1]], 1)
