"""Ancestral sampling: draw the process's own reverse step (spec C, D.6).

Absorbing: a masked position is revealed with (alpha_s - alpha_t)/(1 - alpha_t) and then holds a draw of the prediction.
The coins fall first, so a step that reveals nothing costs no forward (the idea of MDLM's cached sampler, but by row).
Uniform: every position draws from the plug-in posterior of the leave-one-out conditional. The last step goes to s = 0,
where alpha = 1: no noise is left to remove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro import rng
from repro.lazy import torch
from repro.parts import part
from repro.processes.absorbing import Absorbing
from repro.processes.uniform import Uniform
from repro.samplers.sampler import Abilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


@part
class Ancestral(Sampler):
    """The reverse process of absorbing or uniform noise, for either meaning of the denoiser's output."""

    abilities = Abilities(
        frozenset({"absorbing", "uniform"}),
        plan="steps",
        revises=frozenset({"uniform"}),
        looks_at_draws=False,
    )

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        match state.process:
            case Absorbing() as process:
                return _reveal(state, process)
            case Uniform() as process:
                law = process.posterior(state.ids, state.prediction, state.t, state.s, state.open)
                return state.commit(state.open, state.draw(law, rng.TOKEN, state.open))
        raise AssertionError(f"no ancestral step for {state.process}")


@part
class Origin(Sampler):
    """Dream's `origin`: ancestral on times from 1 down to `end`, and all that is left in the last step (spec E.3)."""

    end: float
    abilities = Abilities(frozenset({"absorbing"}), plan="steps", revises=frozenset(), looks_at_draws=False)

    def claim(self) -> Claim:
        return "law"

    def time(self, step: int, steps: int) -> float:
        return 0.0 if step == steps else 1 - (1 - self.end) * step / steps

    def step(self, state: State) -> Tensor:
        assert isinstance(state.process, Absorbing)
        return _reveal(state, state.process)


def _reveal(state: State, process: Absorbing) -> Tensor:
    rows = state.open.nonzero()[:, 0]
    stay = ((1 - process.alpha(state.s)) / (1 - process.alpha(state.t)))[rows]
    coin = state.draw(torch.stack([stay, 1 - stay], -1), rng.REVEAL, state.open)
    shown = state.open.clone()
    shown[state.open] = coin.bool()
    return state.commit(shown, state.draw(state.prediction.probs(shown), rng.TOKEN, shown))
