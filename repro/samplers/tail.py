"""Noise removal in one more forward after the last step (Duo's `noise_removal`; docs/method.md#mdlm,
docs/method.md#uniform-samplers).

A rule steps over times from 1 to a small `end` instead of 0. Then one forward at time `end` replaces every undecided
position by a token of its prediction, so N steps cost N + 1 forwards (none extra, under absorbing noise, for a row
without masks). The `ancestral` preset steps to 0 and needs no removal.

Shapes: B rows, L columns, N positions.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction


class Removal(Part):
    """Kind: how the last prediction gives the tokens."""

    @abstractmethod
    def claim(self, rule: Claim) -> Claim:
        """The claim of the tail, given that of its rule."""

    @abstractmethod
    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        """Tokens [N] at `where` [B, L] for ids [B, L] at time `state.s`."""


@part
class DrawnRemoval(Removal):
    """A draw from the reverse step to time 0 (Duo's default, `ancestral`)."""

    def claim(self, rule: Claim) -> Claim:
        return rule

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        law = diffusion(state.process).posterior(ids, prediction, state.s, torch.zeros_like(state.s), where)
        return state.draw(law, rng.REMOVAL, where)


@part
class GreedyRemoval(Removal):
    """The argmax of the predicted x0: Duo's greedy tail, and MDLM's last step at the masked positions.

    Under uniform noise it is the argmax of the leave-one-out conditional, for either meaning of the output. That does
    not depend on a position's own token, so every position is rewritten.
    """

    def claim(self, rule: Claim) -> Claim:
        return "mode" if rule == "mode" else "biased"

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        return diffusion(state.process).leave_one_out(prediction, ids, state.s, where).argmax(-1)


@part
class Tail(Sampler):
    """`rule` over `times` (instead of its own), which end above 0, and then `removal`."""

    rule: Sampler
    times: Times
    removal: Removal

    @property
    def capabilities(self) -> Capabilities:
        return self.rule.capabilities

    def claim(self) -> Claim:
        return self.removal.claim(self.rule.claim())

    def time(self, step: int, steps: int) -> float:
        return self.times.time(step, steps)

    def start(self, ids: Tensor) -> Tensor | None:
        return self.rule.start(ids)

    def step(self, state: State) -> Tensor:
        ids = self.rule.step(state)
        if state.step + 1 < state.steps:
            return ids
        prediction = state.forward(ids, state.s)
        where = state.process.open(ids, state.active, prediction.vocabulary)
        after = ids.clone()
        after[where] = self.removal.tokens(state, ids, prediction, where)
        return after


class Times(Part):
    """Kind: a schedule of times."""

    @abstractmethod
    def time(self, step: int, steps: int) -> float:
        """Time in [0, 1] after `step` of `steps`: 1 at first, non-increasing."""


@part
class LinearTimes(Times):
    """Evenly spaced from 1 to `end`: linspace(1, end, steps + 1)."""

    end: float

    def time(self, step: int, steps: int) -> float:
        return 1 - (1 - self.end) * step / steps


@part
class HeldTimes(Times):
    """From 1 to `level`, constant, then to `end` (Duo's linear-constant-linear; docs/method.md#uniform-samplers).

    Of the n = steps + 1 times, the first round(high n) fall from 1 to `level`, both included, round(middle n) stay, and
    the rest fall from `level` to `end`, both included. The last time is always `end`.
    """

    level: float
    high: float
    middle: float
    end: float

    def time(self, step: int, steps: int) -> float:
        first, held = round(self.high * (steps + 1)), round(self.middle * (steps + 1))
        if step == steps:
            return self.end
        if step < first:
            share = step / max(first - 1, 1)
            return (1 - share) + share * self.level
        if step < first + held:
            return self.level
        share = (step - first - held) / (steps - first - held)
        return (1 - share) * self.level + share * self.end
