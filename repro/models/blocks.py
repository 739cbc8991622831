"""Block diffusion (BD3-LM, arXiv 2503.09573; docs/method.md#block-diffusion): the prediction of all blocks of a row in
one forward of a noisy and a clean copy, for training and scoring, and the exact KV cache of decoding.

Shapes: B rows, b of them in a forward, L columns of a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repro.models.attention import Copies, Mask
from repro.models.denoiser import Denoiser
from repro.models.prediction import DecodingCache, Prediction, Reach


class BlockPrediction(Prediction):
    """Prediction of all blocks of a row from one forward, which runs when the prediction is first read. Each block of
    `block` columns of the noisy ids `tokens` [B, L] is read together with the blocks before it in the clean ids `clean`
    [B, L].

    The layers read the noisy copy followed by the clean one under the mask `Copies`; features and logits are those of
    the noisy copy. `tokens` may hold n noisy copies of a row side by side, [B, n L]; the times `t`, and the positions
    at which features or logits are requested, then have that shape.

    Raises ValueError unless the network decodes in blocks of this length; other networks cannot read two copies.
    """

    def __init__(
        self, denoiser: Denoiser, tokens: Tensor, clean: Tensor, t: Tensor, attention: Mask, block: int
    ) -> None:
        super().__init__(denoiser, tokens, t, attention)
        read = denoiser.required_block_size
        if read != block:
            reads = "whole rows" if read is None else f"blocks of {read}"
            raise ValueError(
                f"the process noises blocks of {block} tokens, and this network reads {reads}; give the process and"
                " the backbone (dit_blocks) the same `block`"
            )
        self._noisy, self._clean, self._block = tokens, clean, block
        self._views = tokens.shape[1] // clean.shape[1]

    def _encode(self, rows: Tensor | slice) -> Tensor:
        device, valid = self._denoiser.device, self._attention.valid
        both = torch.cat([self._noisy[rows], self._clean[rows]], 1).to(device)
        seen = None if valid is None else valid[rows].repeat(1, self._views + 1).to(device)
        features = self._denoiser.encode(both, t=None, attention=Copies(seen, self._block, views=self._views))
        return features[:, : self._noisy.shape[1]]

    def token_forwards(self) -> Tensor:
        valid = self._attention.valid
        length = self._clean.shape[1] if valid is None else valid.sum(1)
        return self.forwarded * (self._views + 1) * length


class BlockCache(DecodingCache):
    """Exact KV cache of a network whose blocks do not depend on later columns (`Denoiser.block_causal`).

    The keys and values of a block are final after a forward that reads all its tokens as they were decided. So the
    first forward for a block takes the block's columns and the earlier columns that are not final yet (most often the
    block before); its later forwards take the block's columns alone. No refresh is needed.
    """

    def __init__(
        self, rows: int, width: int, reach: Reach, refresh: int | None, device: torch.device
    ) -> None:
        super().__init__(rows, width, reach, refresh, device)
        self.final = torch.zeros(rows, dtype=torch.int64, device=device)
        """[B] per row, the first column whose keys and values may still change."""

    def begin_block(self) -> None:
        """Do nothing when a block begins: the cached keys and values stay exact."""

    def select_rows(self, rows: Tensor) -> None:
        super().select_rows(rows)
        self.final = self.final[rows]

    def forwards(self, need: Tensor, window: slice) -> list[tuple[Tensor, slice]]:
        stop = window.stop if self.reach == "block" else self.kv_cache.columns
        starts = self.final[need].unique().tolist()
        found = [((need & (self.final == start)).nonzero()[:, 0], slice(start, stop)) for start in starts]
        self.final = torch.where(need, window.start, self.final)
        return found
