"""What noise is left after the last step, removed in one more forward (Duo's `noise_removal`; docs/method.md#mdlm,
docs/method.md#uniform-samplers).

A rule steps over times from 1 to a small `end` instead of 0; then the network sees the ids once more, at time `end`,
and every position that is still open takes a token of that prediction: N steps cost N + 1 forwards (for absorbing
noise a row without a mask left costs none). Our own `ancestral` steps to 0 and needs no removal.
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
    """Kind: how a token is taken from the last prediction."""

    @abstractmethod
    def claim(self, rule: Claim) -> Claim:
        """What the outputs follow when what `rule` leaves does."""

    @abstractmethod
    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        """Tokens [N] at `where` [B, L] for ids [B, L] at time `state.s`."""


@part
class DrawnRemoval(Removal):
    """A draw of the reverse step to time 0 (Duo's default, `ancestral`)."""

    def claim(self, rule: Claim) -> Claim:
        return rule

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        law = diffusion(state.process).posterior(ids, prediction, state.s, torch.zeros_like(state.s), where)
        return state.draw(law, rng.REMOVAL, where)


@part
class GreedyRemoval(Removal):
    """The argmax of what the network says of x0: Duo's greedy tail; MDLM's last step, on what is still masked.

    Under uniform noise that is the leave-one-out conditional, for either meaning of the output: a position's own
    token has no say, so every position is written anew.
    """

    def claim(self, rule: Claim) -> Claim:
        return "mode" if rule == "mode" else "biased"

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        return diffusion(state.process).leave_one_out(prediction, ids, state.s, where).argmax(-1)


@part
class Tail(Sampler):
    """`rule` over `times`, which end above 0, and then `removal`; the rule's own times do not count."""

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
    """Kind: a time profile."""

    @abstractmethod
    def time(self, step: int, steps: int) -> float:
        """Time in [0, 1] when `step` of `steps` are done: 1 at first, falling."""


@part
class LinearTimes(Times):
    """Even steps from 1 to `end`: linspace(1, end, steps + 1)."""

    end: float

    def time(self, step: int, steps: int) -> float:
        return 1 - (1 - self.end) * step / steps


@part
class HeldTimes(Times):
    """From 1 to `level`, held there, then to `end` (Duo's linear-constant-linear, docs/method.md#uniform-samplers).

    Of the n = steps + 1 times the first round(high n) fall from 1 to `level`, both included, round(middle n) stay, and
    the rest fall from `level` to `end`, both included. The last time is `end` even where none is left for that.
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
