"""What changes along a run: noise levels of a row, softmax temperature and learning rate of a step.

Symbols: step = optimizer step, steps = those of the whole run, tau = softmax temperature.
"""

from __future__ import annotations

import math

from repro.core.parts import Part, part


class Rate(Part):
    """Kind: a learning-rate factor in [0, 1] by optimizer step."""

    def factor(self, step: int, steps: int) -> float:
        raise AssertionError("a kind has no law of its own")


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
    """Linear warm-up, 1, and in the last `decay` steps linear to `final` (Hu et al. 2024; LLaDA's SFT,
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
    """Linear warm-up, 1 up to step `drop`, then `level`, and in the last `decay` steps linear from there to `final`.

    LLaDA's pre-training: the drop answered a crash (docs/method.md#llada-pretraining).
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
    """Kind: softmax temperature tau of the relaxed corruption by optimizer step."""

    def tau(self, step: int) -> float:
        raise AssertionError("a kind has no law of its own")

    def hottest(self) -> float:
        """The largest tau of a run: the soft tokens that spread widest."""
        raise AssertionError("a kind has no law of its own")


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
    """tau held at one value (Duo's scripts: 1e-3 throughout the curriculum; docs/method.md#duo-curriculum)."""

    value: float

    def tau(self, step: int) -> float:
        return self.value

    def hottest(self) -> float:
        return self.value
