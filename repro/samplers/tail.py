"""Noise removal in one more forward pass after the last step (Duo's `noise_removal`; docs/method.md#mdlm,
docs/method.md#uniform-samplers).

A sampler steps over times from 1 to a small `end` instead of 0. Then one forward pass at time `end` replaces every
undecided position by a token of its prediction, so S steps take S + 1 forward passes (only S, under absorbing noise,
for a row without masks). The `ancestral` preset steps to 0 and needs no removal.

Shapes: B rows of the batch, L columns, N positions (True entries of a [B, L] mask).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State, most_probable

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction


SOONEST = 1e-12
"""Earliest time of the last forward pass: at a much earlier one alpha rounds to 1, and no noise is left to remove."""


class Removal(Part):
    """Base class of noise removals: how the last prediction gives the tokens that replace the remaining noise."""

    @abstractmethod
    def claim(self, rule: Claim) -> Claim:
        """What the sampler with this removal claims about its output distribution for an exact denoiser: "law" (it is
        the model's distribution), "mode" (likely sentences are favoured on purpose) or "biased" (neither; see
        `repro.samplers.sampler.Claim`).

        `rule`: the claim of the sampler alone.
        """

    @abstractmethod
    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        """Final tokens [N] at the N True entries of `where` [B, L] bool, from the `prediction` for ids [B, L] at time
        `state.s`, the last of the sampler's times."""


@part
class DrawnRemoval(Removal):
    """Noise removal by a draw from the reverse step to time 0 (Duo's default, `ancestral`)."""

    def claim(self, rule: Claim) -> Claim:
        return rule

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        from repro.samplers.processed import parts

        process, end = diffusion(state.process), torch.zeros_like(state.s)
        drawn = [
            state.draw(process.posterior(ids, part, state.s, end, some), rng.REMOVAL, some)
            for some, part in parts(prediction, where)
        ]
        return torch.cat(drawn)


@part
class GreedyRemoval(Removal):
    """Noise removal by the most probable clean token: Duo's greedy removal, and MDLM's last step at the masked
    positions.

    Under uniform noise it is the argmax of the leave-one-out conditional (the distribution of the clean token given all
    noisy tokens but the one at its position), even if the network's output estimates p(x0 | xt), and every position is
    rewritten.
    """

    def claim(self, rule: Claim) -> Claim:
        return "mode" if rule == "mode" else "biased"

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        return most_probable(diffusion(state.process).leave_one_out(prediction, ids, state.s, where))


@part
class Tail(Sampler):
    """Sampler that runs the sampler `rule` over `times`, which end above 0, instead of the times of `rule`, and then
    removes the remaining noise as `removal` says, in one more forward pass."""

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
    """Base class of schedules of diffusion times: the time after each step of a block."""

    @abstractmethod
    def time(self, step: int, steps: int) -> float:
        """Diffusion time in [0, 1] after `step` of the `steps` steps of a block; it starts at 1 and never increases."""


@part
class LinearTimes(Times):
    """Diffusion times evenly spaced from 1 to `end`: linspace(1, end, steps + 1). ValueError for an `end` that is not
    from 1e-12 to below 1."""

    end: float

    def __post_init__(self) -> None:
        if not SOONEST <= self.end < 1:
            raise ValueError(
                f"linear_times: end={self.end} is no time at which some noise is left; give {SOONEST:g} or more, and"
                " less than 1"
            )

    def time(self, step: int, steps: int) -> float:
        return 1 - (1 - self.end) * step / steps


@part
class HeldTimes(Times):
    """Diffusion times that fall from 1 to `level`, stay there, then fall to `end` (Duo's linear-constant-linear;
    docs/method.md#uniform-samplers).

    `high` and `middle` are shares of the n = steps + 1 times: the first round(high n) fall linearly from 1 to `level`,
    both included, the next round(middle n) equal `level`, and the rest fall linearly from `level` to `end`, both
    included. The first time is 1 even if round(high n) is 0, since decoding starts from pure noise; the last is always
    `end`. ValueError unless 1e-12 <= end <= level < 1, and for negative shares or shares of more than 1 together.
    """

    level: float
    high: float
    middle: float
    end: float

    def __post_init__(self) -> None:
        if not SOONEST <= self.end <= self.level < 1:
            raise ValueError(
                f"held_times: from 1 to level={self.level} and end={self.end} times do not fall; give"
                f" {SOONEST:g} <= end <= level < 1"
            )
        if min(self.high, self.middle) < 0 or self.high + self.middle > 1:
            raise ValueError(
                f"held_times: high={self.high} and middle={self.middle} are no shares of the times; give 0 or more"
                " each, and at most 1 together"
            )

    def time(self, step: int, steps: int) -> float:
        first, held = round(self.high * (steps + 1)), round(self.middle * (steps + 1))
        if step == steps:
            return self.end
        if step == 0:
            return 1.0
        if step < first:
            share = step / max(first - 1, 1)
            return (1 - share) + share * self.level
        if step < first + held:
            return self.level
        share = (step - first - held) / (steps - first - held)
        return (1 - share) * self.level + share * self.end
