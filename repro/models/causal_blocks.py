"""A causal (left-to-right) network turned into one that decodes block by block, for block diffusion
(docs/method.md#ar-to-block-diffusion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.parts import part
from repro.models.backbone import Backbone, Wrapper
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class CausalBlocks(Wrapper):
    """A causal `backbone` that decodes a row in blocks of `block` tokens; its weights are used as they are.

    Clean tokens are read causally, as in the network's own training; the tokens of a noisy block attend to each other
    and to all tokens before them. As in its training, the network predicts a token from the features one position
    before the token (the first token of a block from those of the last clean position), so with blocks of one token it
    decodes as it was trained. ValueError for a `block` below 1 and for a backbone that is not a causal Llama or Qwen2.
    """

    backbone: Backbone
    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(
                f"backbone causal_blocks: block={self.block} is not a block length in tokens; give 1 or more"
            )
        own = {pin.rpartition(".")[2]: value for pin, value in parts.leaves(self.backbone).items()}
        if own.get("attention") != "causal":
            raise ValueError(
                "backbone causal_blocks needs a causal network; give a llama or qwen2 with attention=causal"
            )

    def module(self, role: Role, seed: int) -> Denoiser:
        from repro.models.causal_blocks_network import CausalBlocksDenoiser

        return CausalBlocksDenoiser(self.backbone.module(role, seed), role, self.block)

    def blank(self) -> Backbone:
        return CausalBlocks(backbone=self.backbone.blank(), block=self.block)

    def required_block_size(self) -> int | None:
        return self.block
