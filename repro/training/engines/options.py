"""Launch options: they change memory and speed, but no result beyond rounding, so they are not part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch.utils.checkpoint import checkpoint

from repro.models.denoiser import Denoiser


@dataclass(frozen=True, kw_only=True)
class Options:
    """Launch options of a training run.

    `activation_checkpointing`: store only each layer's input and recompute the rest in backward; `compile`: compile
    each layer with torch.compile (not output layer and loss, which are fused and would not get faster);
    `whole_gradients`: under an engine that shards gradients, sum the unsharded gradients of a step's microbatches in
    every process, and exchange them once a step instead of once a microbatch.
    """

    activation_checkpointing: bool
    compile: bool
    whole_gradients: bool

    def apply(self, denoiser: Denoiser) -> None:
        """Apply the options to a denoiser's layers in place, before they are sharded; parameter names do not change."""
        for layer in denoiser.layers():
            if self.activation_checkpointing:
                # nothing is drawn from torch's generators, so there is no random state to preserve
                layer.forward = partial(
                    checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
                )
            if self.compile:
                layer.compile()


PLAIN = Options(activation_checkpointing=False, compile=False, whole_gradients=False)
