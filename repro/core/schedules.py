"""Schedules over a training run: the learning rate and the softmax temperature of a step.

Symbols: `step`: number of the optimizer step, from 0; `steps`: steps of the whole run; tau: temperature of the softmax
that turns noisy Gaussian vectors into soft tokens (weights over the vocabulary) in training with uniform noise.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from repro.core.parts import Part, part


class Rate(Part):
    """Base class of schedules of the learning rate, which at each optimizer step is the optimizer's setting `lr` times
    the number that the method `factor` returns."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Factor in [0, 1] that multiplies the learning rate at optimizer step `step` of a run of `steps` steps."""


@part
class Cosine(Rate):
    """Learning rate with linear warm-up, then half a cosine that reaches 0 when the run ends (transformers' `cosine`);
    `warmup` in steps."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, steps - self.warmup)))


@part
class Linear(Rate):
    """Learning rate with linear warm-up, then a linear decay that reaches 0 when the run ends (transformers' `linear`);
    `warmup` in steps."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        return max(0.0, (steps - step) / max(1, steps - self.warmup))


@part
class ConstantWithWarmup(Rate):
    """Learning rate with linear warm-up, then constant (transformers' `constant_with_warmup`); `warmup` in steps."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        return min(1.0, step / max(1, self.warmup))


@part
class WarmupStableDecay(Rate):
    """Learning rate with linear warm-up over `warmup` steps, then constant at factor 1, then linear to factor `final`
    in the last `decay` steps (Hu et al. 2024; LLaDA's SFT, docs/method.md#llada-sft)."""

    warmup: int
    decay: int
    final: float

    def factor(self, step: int, steps: int) -> float:
        left = max(0, steps - step)
        if step < self.warmup:
            return step / self.warmup
        return self.final + (1 - self.final) * min(1.0, left / max(1, self.decay))


@part
class WarmupStableDropDecay(Rate):
    """Learning rate with linear warm-up over `warmup` steps, factor 1 up to step `drop`, then factor `level`, then
    linear to factor `final` in the last `decay` steps.

    This is the schedule of LLaDA's pre-training, whose authors lowered the rate after a crash
    (docs/method.md#llada-pretraining). ValueError for a `level` outside [0, 1].
    """

    warmup: int
    drop: int
    level: float
    decay: int
    final: float

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ValueError(f"level={self.level} is no factor of the learning rate; give 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        left = max(0, steps - step)
        if step < self.warmup:
            return step / self.warmup
        if step < self.drop:
            return 1.0
        return self.final + (self.level - self.final) * min(1.0, left / max(1, self.decay))


@part
class Prolonged(Rate):
    """Learning rate of a run that was made longer (docs/method.md#longer): before step `until` the schedule `first`, as
    in a run of `until` steps; from step `until` on the schedule `then`, from its own step 0, as in a run of the
    remaining steps. ValueError for `until` below 1."""

    first: Rate
    until: int
    then: Rate

    def __post_init__(self) -> None:
        if self.until < 1:
            raise ValueError(f"until={self.until} gives the schedule `first` no steps; give 1 or more")

    def factor(self, step: int, steps: int) -> float:
        if step < self.until:
            return self.first.factor(step, self.until)
        return self.then.factor(step - self.until, steps - self.until)


def _check_temperatures(schedule: Temperature, *settings: str) -> None:
    """Raise ValueError unless each of the `settings` of a schedule, a temperature that logits are divided by, is above
    0."""
    for setting in settings:
        value = getattr(schedule, setting)
        if value <= 0:
            raise ValueError(
                f"{setting}={value} is no softmax temperature; give a number above 0, such as 1e-3"
            )


class Temperature(Part):
    """Base class of schedules of tau, the softmax temperature at which training with a uniform process turns a noisy
    Gaussian relaxation of a token into a soft token, weights over the vocabulary (docs/method.md#duo-curriculum)."""

    @abstractmethod
    def tau(self, step: int) -> float:
        """The softmax temperature tau at optimizer step `step`."""

    @abstractmethod
    def hottest(self) -> float:
        """The largest softmax temperature tau of the run, at which soft tokens spread their weight over the most
        vocabulary entries."""


@part
class LinearToZero(Temperature):
    """Softmax temperature that falls linearly from `start` + `floor` at step 0 to `floor` at step `steps`:
    tau(step) = max(start (1 - step / steps), 0) + floor (docs/method.md#uniform-script). ValueError for `steps` below
    1, `start` below 0, and a `floor` of 0 or less."""

    start: float
    steps: int
    floor: float

    def __post_init__(self) -> None:
        _check_temperatures(self, "floor")
        if self.steps < 1 or self.start < 0:
            raise ValueError(
                f"start={self.start}, steps={self.steps}: give a start of 0 or more that falls in 1 step or more"
            )

    def tau(self, step: int) -> float:
        return max(self.start * (1 - step / self.steps), 0.0) + self.floor

    def hottest(self) -> float:
        return self.tau(0)


@part
class Constant(Temperature):
    """The same softmax temperature tau = `value` at every step (Duo's scripts: 1e-3 throughout the curriculum;
    docs/method.md#duo-curriculum). ValueError for a temperature of 0 or less."""

    value: float

    def __post_init__(self) -> None:
        _check_temperatures(self, "value")

    def tau(self, step: int) -> float:
        return self.value

    def hottest(self) -> float:
        return self.value


@part
class ConstantUntil(Temperature):
    """Softmax temperature tau = `value` before optimizer step `end`, then `after`.

    In Duo's code the temperature changes at the last step of the curriculum, `end`, and the loss one step later
    (s-sahoo/duo@7c9b498 algo.py:525-532,595; docs/method.md#duo-curriculum). ValueError for a temperature of 0 or less.
    """

    value: float
    end: int
    after: float

    def __post_init__(self) -> None:
        _check_temperatures(self, "value", "after")

    def tau(self, step: int) -> float:
        return self.value if step < self.end else self.after

    def hottest(self) -> float:
        return max(self.value, self.after)


@part
class LogLinearUntil(Temperature):
    """Softmax temperature tau = `high` before optimizer step `begin`, from there linear in log tau to `low` at step
    `end`, and `after` from step `end` on.

    It is the rule of Duo's code, whose configuration gives log10 of `high` and `low`, -1 and -2 by default between
    steps 100,000 and 200,000 (s-sahoo/duo@7c9b498 algo.py:521-533, configs/algo/duo.yaml:16-19;
    docs/method.md#duo-curriculum). ValueError for a temperature of 0 or less, and unless 0 <= begin <= end.
    """

    high: float
    low: float
    begin: int
    end: int
    after: float

    def __post_init__(self) -> None:
        _check_temperatures(self, "high", "low", "after")
        if not 0 <= self.begin <= self.end:
            raise ValueError(
                f"begin={self.begin}, end={self.end} are no range of optimizer steps; give 0 <= begin <= end"
            )

    def tau(self, step: int) -> float:
        if step >= self.end:
            return self.after
        share = max(step - self.begin, 0) / max(self.end - self.begin, 1)
        return self.high ** (1 - share) * self.low**share

    def hottest(self) -> float:
        return max(self.high, self.low, self.after)
