"""The diffusion transformer of MDLM and Duo (Peebles and Xie 2023; Sahoo et al. 2024, 2025;
docs/method.md#duo-hyperparameters).

Every layer is scaled, shifted and gated by the noise level (adaLN-zero): sigma = -log alpha(t) goes through sinusoids
and a small MLP. MDLM's network has the same path and always reads sigma = 0. `DitCausal` is the papers' left-to-right
baseline: the same layers without modulation. `DitBlocks` is BD3-LM's network, which decodes block by block.

The papers train with a dropout of .1, which `WithDropout` adds. It acts in training only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from repro.core.parts import part
from repro.core.registry import resolve
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Size, Wrapper, check_heads
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@part
class Dit(Backbone):
    """Hyperparameters of a bidirectional diffusion transformer (DiT). `condition`: width of the noise level's
    embedding; `frequencies`: number of sinusoids of the noise level from which that embedding is computed.

    `alpha_end`: alpha(1) of the schedule alpha(t) = 1 - (1 - alpha_end) t whose sigma = -log alpha(t) the network
    reads; None: it reads sigma = 0, whatever t is. Raises ValueError for a `width` that does not split into `heads` of
    even width, for odd `frequencies`, and for an `alpha_end` that gives no finite sigma.
    """

    network: ClassVar[str] = "repro.models.dit_network:DitDenoiser"

    layers: int
    width: int
    heads: int
    ffn: int
    condition: int
    frequencies: int
    alpha_end: float | None
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        if self.frequencies < 2 or self.frequencies % 2:
            raise ValueError(
                f"backbone dit: frequencies={self.frequencies} does not split into sines and cosines; give an even"
                " number, 2 or more"
            )
        if self.alpha_end is not None and not 0 < self.alpha_end < 1:
            raise ValueError(
                f"backbone dit: alpha_end={self.alpha_end} gives no finite sigma at t = 1; give a number in (0, 1), or"
                " null for a network that does not read the noise level"
            )

    def size(self, data: Data) -> Size:
        return _size(self, data, _modulation(self))

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data, share=1.0)


@part
class DitCausal(Backbone):
    """Hyperparameters of a causal DiT without modulation by the noise level, the left-to-right baseline of the MDLM and
    Duo papers. ValueError for a `width` that does not split into `heads` of even width."""

    network: ClassVar[str] = "repro.models.dit_network:DitDenoiser"

    layers: int
    width: int
    heads: int
    ffn: int
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def size(self, data: Data) -> Size:
        return _size(self, data, 0)

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data, share=0.5)


@part
class DitBlocks(Backbone):
    """Hyperparameters of BD3-LM's DiT, which decodes a row block by block (arXiv 2503.09573;
    docs/method.md#block-diffusion).

    A noisy block of `block` tokens attends to itself and to the clean blocks before it. The network never reads the
    noise level (sigma = 0); with `condition` 0 it has no modulation at all.
    """

    network: ClassVar[str] = "repro.models.dit_network:DitBlocksDenoiser"

    layers: int
    width: int
    heads: int
    ffn: int
    condition: int
    frequencies: int
    block: int
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        if self.block < 1:
            raise ValueError(
                f"backbone dit_blocks: block={self.block} is not a block length in tokens; give 1 or more"
            )

    def required_block_size(self) -> int | None:
        return self.block

    def size(self, data: Data) -> Size:
        return _size(self, data, _modulation(self) if self.condition else 0)

    def attention_flops(self, data: Data) -> float:
        return _attention_flops(self, data, share=0.5)


def _modulation(pins: Dit | DitBlocks) -> int:
    """Number of parameters, in a DiT with the hyperparameters `pins`, that embed the noise level and compute shifts,
    scales and gates from the embedding."""
    each, last = 6 * pins.width, 2 * pins.width  # shift, scale and gate of both halves; shift and scale
    modulations = (pins.condition + 1) * (pins.layers * each + last)
    return modulations + (pins.frequencies + 1) * pins.condition + (pins.condition + 1) * pins.condition


def _attention_flops(pins: Dit | DitCausal | DitBlocks, data: Data, share: float) -> float:
    """FLOPs of one forward pass, per token of a full row of `data`, for attention's products between tokens (queries
    with keys, attention weights with values), summed over layers. `pins`: hyperparameters of the network; `share`:
    fraction of the keys of its row that a token attends to."""
    return 4.0 * pins.layers * pins.width * data.row_length() * share


def _size(pins: Dit | DitCausal | DitBlocks, data: Data, modulation: int) -> Size:
    """Sizes (parameter counts and widths) of a DiT with the hyperparameters `pins`, for the vocabulary of `data`.
    `modulation`: number of parameters that act on the noise level, once per row and not once per token."""
    vocab_size = data.vocabulary().total
    matrices = 4 * pins.width**2 + 2 * pins.width * pins.ffn
    block = matrices + pins.ffn + pins.width + 2 * pins.width  # biases of the MLP, two norms
    embedding = vocab_size * pins.width
    return Size(
        parameters=pins.layers * block + 2 * embedding + vocab_size + pins.width + modulation,
        blocks=pins.layers * matrices + modulation / data.row_length(),
        layers=pins.layers,
        width=pins.width,
        kv_width=pins.width,
        ffn=pins.ffn,
        vocab_size=vocab_size,
    )


@part
class WithDropout(Wrapper):
    """The DiT `backbone` with dropout at `rate` in every layer in training; ValueError for a rate outside (0, 1)."""

    backbone: Dit | DitCausal | DitBlocks
    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(
                f"dropout rate={self.rate} is not strictly between 0 and 1; give a rate such as 0.1"
            )

    def module(self, role: Role, seed: int) -> Denoiser:
        return resolve(self.backbone.network)(self.backbone, role, seed, self.rate)
