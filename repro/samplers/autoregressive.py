"""Left-to-right sampling, one token per forward pass, with an exact KV cache (docs/method.md#ar-baseline)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, State, claim_at

if TYPE_CHECKING:
    from torch import Tensor


@part
class Autoregressive(Sampler):
    """Sampler of left-to-right models: the next token is the most probable one at `temperature` 0, else a draw from
    softmax(logits / temperature)."""

    temperature: float
    capabilities = Capabilities(
        frozenset({"left_to_right"}), plan="quota", revises=frozenset(), looks_at_draws=False
    )
    presets = (
        Preset("greedy", {"temperature": 0.0}, "commits the most likely next token", None),
        Preset(
            "sample",
            {"temperature": 1.0},
            "draws the next token over the whole vocabulary (docs/method.md#ar-baseline)",
            None,
        ),
    )

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        return state.commit(state.undecided, state.tokens(logits, self.temperature, state.undecided))
