"""Ancestral sampling: draw the process's own reverse step (docs/method.md#mdlm, docs/method.md#uniform-samplers).

Absorbing: a masked position is revealed with (alpha_s - alpha_t)/(1 - alpha_t) and then holds a draw of the prediction.
The coins fall first, so a step that reveals nothing costs no forward (the idea of MDLM's cached sampler, but by row).
Uniform: every position draws from the plug-in posterior of the leave-one-out conditional. The last step goes to s = 0,
where alpha = 1: no noise is left to remove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


@part
class Ancestral(Sampler):
    """The reverse process of absorbing or uniform noise, for either meaning of the denoiser's output."""

    capabilities = Capabilities(
        frozenset({"absorbing", "uniform"}),
        plan="steps",
        revises=frozenset({"uniform"}),
        looks_at_draws=False,
    )

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        if state.process.masks:
            return _reveal(state)
        process = diffusion(state.process)
        law = process.posterior(state.ids, state.prediction, state.t, state.s, state.undecided)
        return state.commit(state.undecided, state.draw(law, rng.TOKEN, state.undecided))


@part
class Origin(Sampler):
    """Dream's `origin`: ancestral on times from 1 down to `end`, and all that is left in the last step
    (docs/method.md#dream-rules)."""

    end: float
    capabilities = Capabilities(
        frozenset({"absorbing"}), plan="steps", revises=frozenset(), looks_at_draws=False
    )

    def claim(self) -> Claim:
        return "law"

    def time(self, step: int, steps: int) -> float:
        return 0.0 if step == steps else 1 - (1 - self.end) * step / steps

    def step(self, state: State) -> Tensor:
        return _reveal(state)


def _reveal(state: State) -> Tensor:
    process = diffusion(state.process)
    rows = state.undecided.nonzero()[:, 0]
    stay = ((1 - process.alpha(state.s)) / (1 - process.alpha(state.t)))[rows]
    coin = state.draw(torch.stack([stay, 1 - stay], -1), rng.REVEAL, state.undecided)
    shown = state.undecided.clone()
    shown[state.undecided] = coin.bool()
    return state.commit(shown, state.draw(state.prediction.probs(shown), rng.TOKEN, shown))


@part
class FirstHitting(Sampler):
    """One position a forward, at the time when it is hit; memory: the time of the block, [B, 1]."""

    capabilities = Capabilities(
        frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=False
    )

    def claim(self) -> Claim:
        return "law"

    def start(self, ids: Tensor) -> Tensor | None:
        return torch.ones(len(ids), 1, dtype=torch.float64, device=ids.device)

    def step(self, state: State) -> Tensor:
        assert state.memory is not None
        prediction = state.prediction
        if prediction.time_conditioned:
            begun = torch.ones_like(state.memory) if state.step == 0 else state.memory
            left = state.undecided.sum(1).clamp_min(1)
            state.memory = begun * (state.uniform(rng.HIT) ** (1 / left))[:, None]
            prediction = state.forward(state.ids, state.memory[:, 0])
        shown = torch.zeros_like(state.undecided)
        shown.scatter_(1, state.draw_position(state.undecided, 0)[:, None], True)
        shown &= state.undecided
        return state.commit(shown, state.draw(prediction.probs(shown), rng.TOKEN, shown))
