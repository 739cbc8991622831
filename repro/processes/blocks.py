"""Block diffusion: absorbing noise in one block of a row at a time, given the clean blocks before it (BD3-LM, arXiv
2503.09573; docs/method.md#block-diffusion).

    p(x) = prod over blocks b of p(x_b | x_<b)       each factor an absorbing diffusion of the block's tokens
    bound = sum over b of E over l uniform on 1..n_b of (n_b / l) sum over masked i in b of -log p(x_i | x'_b, x_<b)

with n_b candidates (tokens that may be masked) in block b, x_<b the clean blocks before it, and x'_b the block with a
uniformly random subset of l candidates masked. A block of the whole row gives masked diffusion; blocks of one token
give autoregression (no random draw is left, and the bound is -log p itself).

Shapes: B rows, L positions, C blocks of a row (the last one may be shorter).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.processes.absorbing import Absorbing, mask_id
from repro.processes.process import cross_entropy, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Predict


def per_block(where: Tensor, block: int) -> Tensor:
    """Number of True entries of `where` [B, L] in each block of `block` positions, [B, C] int64."""
    short = -where.shape[1] % block
    return torch.nn.functional.pad(where, (0, short)).unflatten(1, (-1, block)).sum(2)


def per_position(values: Tensor, block: int, length: int) -> Tensor:
    """Values [B, `length`] of the positions of a row: each position has the value of its block of `block` positions,
    from `values` [B, C]."""
    return values.repeat_interleave(block, 1)[:, :length]


def block_subsets(keys: Tensor, count: Tensor, candidates: Tensor, block: int) -> Tensor:
    """Uniformly random subsets of the candidates of each block, [B, L] bool: `count` [B, C] of the True entries of
    `candidates` [B, L] in each block of `block` positions, drawn by one random key per row, `keys` [B]. For rows of one
    block the subsets are those of `repro.processes.absorbing.subset`."""
    length = candidates.shape[1]
    order = rng.uniform(keys, length).masked_fill(~candidates, 2.0)
    padded = torch.nn.functional.pad(order, (0, -length % block), value=3.0).unflatten(1, (-1, block))
    rank = padded.argsort(dim=-1, stable=True).argsort(dim=-1)
    return candidates & (rank < count[:, :, None]).flatten(1)[:, :length]


@part
class BlockAbsorbing(Absorbing):
    """Absorbing noise in one block of `block` tokens at a time, given the clean blocks before it; blocks are counted
    from the first position of a row.

    Within a block, tokens are masked and unmasked as under `Absorbing`. ValueError for a `block` below 1.
    """

    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(
                f"process block_absorbing: block={self.block} is not a block length in tokens; give 1 or more"
            )

    @property
    def exact(self) -> bool:
        return self.block == 1

    def block_length(self) -> int | None:
        return self.block

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        """Unbiased estimate, one per row, of the module's bound on -log p(x0 at `candidates`), in nats, [B] float64, of
        clean ids x0 [B, L]; `candidates` [B, L] bool: scored positions; `keys` [B]: random keys that choose the masked
        positions. `predict(noisy, t)` runs the network at times t [B, L] and must predict each block from its noisy
        tokens and the *clean* blocks before it (`repro.models.blocks.BlockPrediction`).

        The numbers of masked tokens are stratified over a row's blocks: in block c = 0..C - 1 the number is 1 + floor(n
        frac(u + c/C)) for n candidates, where u [B] in (0, 1) is one uniform number per row.
        """
        size = per_block(candidates, self.block)
        blocks = torch.arange(size.shape[1], device=u.device, dtype=u.dtype) / size.shape[1]
        level = (u[:, None] + blocks) % 1
        # a block without candidates adds 0, whatever its count
        count = torch.minimum(1 + (level * size).long(), size).clamp_min(1)
        masked = block_subsets(keys, count, candidates, self.block)
        share = per_position(count / size.clamp_min(1).double(), self.block, x0.shape[1])
        noisy = x0.masked_fill(masked, mask_id(vocabulary))
        nats = cross_entropy(predict(noisy, share).logits(masked), x0[masked]).double()
        return row_sums(nats / share[masked], masked)
