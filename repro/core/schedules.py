"""Schedules over a training run: the learning rate and the softmax temperature of a step.

Symbols: `step` optimizer step, `steps` of the whole run, tau softmax temperature of the relaxed corruption.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from repro.core.parts import Part, part


class Rate(Part):
    """Kind: a schedule of the learning rate."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Factor in [0, 1] of the learning rate at a step of a run of `steps`."""


@part
class Cosine(Rate):
    """Linear warm-up, then half a cosine to 0 at the last step (transformers' `cosine`)."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, steps - self.warmup)))


@part
class Linear(Rate):
    """Linear warm-up, then linear to 0 at the last step (transformers' `linear`)."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        return max(0.0, (steps - step) / max(1, steps - self.warmup))


@part
class ConstantWithWarmup(Rate):
    """Linear warm-up, then 1 (transformers' `constant_with_warmup`)."""

    warmup: int

    def factor(self, step: int, steps: int) -> float:
        return min(1.0, step / max(1, self.warmup))


@part
class WarmupStableDecay(Rate):
    """Linear warm-up, then 1, then linear to `final` in the last `decay` steps (Hu et al. 2024; LLaDA's SFT,
    docs/method.md#llada-sft)."""

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
    """Linear warm-up, 1 up to step `drop`, then `level`, then linear to `final` in the last `decay` steps.

    LLaDA's pre-training, where the authors lowered the rate after a crash (docs/method.md#llada-pretraining).
    """

    warmup: int
    drop: int
    level: float
    decay: int
    final: float

    def factor(self, step: int, steps: int) -> float:
        left = max(0, steps - step)
        if step < self.warmup:
            return step / self.warmup
        if step < self.drop:
            return 1.0
        return self.final + (self.level - self.final) * min(1.0, left / max(1, self.decay))


class Temperature(Part):
    """Kind: a schedule of the softmax temperature tau."""

    @abstractmethod
    def tau(self, step: int) -> float:
        """tau at a step."""

    @abstractmethod
    def hottest(self) -> float:
        """The largest tau of a run, at which soft tokens have the most weights."""


@part
class LinearToZero(Temperature):
    """tau(step) = max(start (1 - step / steps), 0) + floor (docs/method.md#uniform-script)."""

    start: float
    steps: int
    floor: float

    def tau(self, step: int) -> float:
        return max(self.start * (1 - step / self.steps), 0.0) + self.floor

    def hottest(self) -> float:
        return self.tau(0)


@part
class Constant(Temperature):
    """The same tau at every step (Duo's scripts: 1e-3 throughout the curriculum; docs/method.md#duo-curriculum)."""

    value: float

    def tau(self, step: int) -> float:
        return self.value

    def hottest(self) -> float:
        return self.value
