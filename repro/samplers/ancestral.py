"""Ancestral sampling: draws from the process's reverse step (docs/method.md#mdlm, docs/method.md#uniform-samplers).

A step goes from time t to s < t; alpha is the probability that a token is intact (not noised) at a time.

Absorbing noise: a masked position is revealed with probability (alpha_s - alpha_t)/(1 - alpha_t); its token is drawn
from the network's prediction. Which positions are revealed is drawn first, so a row of the batch that reveals nothing
takes no forward pass (as in MDLM's cached sampler, but per row). Uniform noise: the token of every position at s is
drawn from its distribution given the noisy tokens at t, with the network's leave-one-out conditional in place of the
true one. The last step goes to s = 0, where alpha = 1, so no noise is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


@part
class Ancestral(Sampler):
    """Sampler that draws each step from the reverse process of absorbing or uniform noise.

    The network's output may estimate p(x0 | xt) or the leave-one-out conditional (`Prediction.meaning`), the
    distribution of a clean token given all noisy tokens but the one at its position.
    """

    capabilities = Capabilities(
        frozenset({"absorbing", "uniform"}),
        plan="steps",
        revises=frozenset({"uniform"}),
        looks_at_draws=False,
    )
    presets = (
        Preset(
            "ancestral",
            {},
            "draws from the reverse process to s = 0, no noise removal (docs/method.md#mdlm, #uniform-samplers)",
            "2406.07524",
        ),
    )

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        from repro.samplers.processed import parts

        if state.process.masks:
            return _reveal(state)
        process = diffusion(state.process)
        drawn = [
            state.draw(process.posterior(state.ids, some, state.t, state.s, where), rng.TOKEN, where)
            for where, some in parts(state.prediction, state.undecided)
        ]
        return state.commit(state.undecided, torch.cat(drawn))


@part
class Origin(Sampler):
    """Dream's sampler `origin`: ancestral sampling at evenly spaced times from 1 to `end`; the last step reveals all
    positions that are still masked (docs/method.md#dream-rules). ValueError for an `end` outside [0, 1]."""

    end: float
    capabilities = Capabilities(
        frozenset({"absorbing"}), plan="steps", revises=frozenset(), looks_at_draws=False
    )
    presets = (
        Preset(
            "origin",
            {"end": 0.001},
            "reveals each position by chance: Dream, alg origin, eps 1e-3 (docs/method.md#dream-rules)",
            "2508.15487",
        ),
    )

    def __post_init__(self) -> None:
        if not 0 <= self.end <= 1:
            raise ValueError(f"origin: end={self.end} is no diffusion time; give 0 to 1")

    def claim(self) -> Claim:
        return "law"

    def time(self, step: int, steps: int) -> float:
        return 0.0 if step == steps else 1 - (1 - self.end) * step / steps

    def step(self, state: State) -> Tensor:
        return _reveal(state)


def _reveal(state: State) -> Tensor:
    """The ids [B, L] after one ancestral step under absorbing noise, from time `state.t` to `state.s`, for B rows of L
    columns."""
    process = diffusion(state.process)
    rows = state.undecided.nonzero()[:, 0]
    stay = ((1 - process.alpha(state.s)) / (1 - process.alpha(state.t)))[rows]
    coin = state.draw(torch.stack([stay, 1 - stay], -1), rng.REVEAL, state.undecided)
    shown = state.undecided.clone()
    shown[state.undecided] = coin.bool()
    return state.commit(shown, state.draw(state.prediction.probs(shown), rng.TOKEN, shown))


@part
class FirstHitting(Sampler):
    """First-hitting sampler: each forward pass reveals one random position, at the time at which the reverse process
    reveals its next position (docs/method.md#block-diffusion).

    The time is drawn only for a network that reads it. Memory between steps: the current time of each row's block, [B,
    1], B rows.
    """

    capabilities = Capabilities(
        frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=False
    )
    presets = (
        Preset(
            "first_hitting",
            {},
            "reveals one position at each hitting time: BD3-LM, first_hitting=True (docs/method.md#block-diffusion)",
            "2409.02908",
        ),
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
