"""Launch options: they change how a layer is run, and no number beyond rounding, so they are no pins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch.utils.checkpoint import checkpoint

from repro.models.denoiser import Denoiser


@dataclass(frozen=True, kw_only=True)
class Options:
    """`activation_checkpointing`: keep only a layer's input and compute the rest anew in backward; `compile`: each
    layer by torch.compile (head and loss are not compiled: a fused loss gains nothing by it)."""

    activation_checkpointing: bool
    compile: bool

    def apply(self, denoiser: Denoiser) -> None:
        """Prepare the layers in place, before an engine shards or wraps them; parameter names stay."""
        for layer in denoiser.layers():
            if self.activation_checkpointing:
                # no draw of ours comes from torch's generators: there is no state to keep
                layer.forward = partial(
                    checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
                )
            if self.compile:
                layer.compile()


PLAIN = Options(activation_checkpointing=False, compile=False)
