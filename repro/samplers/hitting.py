"""First-hitting sampling (Zheng et al. 2024, arXiv 2409.02908; BD3-LM's `first_hitting`; spec E.6).

The reverse process of absorbing noise reveals one token at a time. With m tokens masked at time t the next one is
revealed at t u^(1/m), u uniform, and each masked position is equally likely to be it: nothing is discretised, and a
block costs one forward a position however fine the grid would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro import rng
from repro.lazy import torch
from repro.parts import part
from repro.samplers.sampler import Abilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


@part
class FirstHitting(Sampler):
    """One position a forward, at the time when it is hit; memory: the time of the block, [B, 1]."""

    abilities = Abilities(
        frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=False
    )

    def claim(self) -> Claim:
        return "law"

    def start(self, ids: Tensor) -> Tensor | None:
        return torch.ones(len(ids), 1, dtype=torch.float64, device=ids.device)

    def step(self, state: State) -> Tensor:
        assert state.memory is not None
        prediction = state.prediction
        if prediction.timed:
            begun = torch.ones_like(state.memory) if state.step == 0 else state.memory
            left = state.open.sum(1).clamp_min(1)
            state.memory = begun * (state.uniform(rng.HIT) ** (1 / left))[:, None]
            prediction = state.forward(state.ids, state.memory[:, 0])
        shown = torch.zeros_like(state.open)
        shown.scatter_(1, state.draw_position(state.open, 0)[:, None], True)
        shown &= state.open
        return state.commit(shown, state.draw(prediction.probs(shown), rng.TOKEN, shown))
