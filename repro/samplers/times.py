"""Time profiles: at which times a block's steps stand, where they are not even from 1 to 0."""

from __future__ import annotations

from repro.parts import Part, part


class Times(Part):
    """Kind: a time profile."""

    def time(self, step: int, steps: int) -> float:
        """Time in [0, 1] when `step` of `steps` are done: 1 at first, falling."""
        raise AssertionError("abstract")


@part
class LinearTimes(Times):
    """Even steps from 1 to `end`: linspace(1, end, steps + 1)."""

    end: float

    def time(self, step: int, steps: int) -> float:
        return 1 - (1 - self.end) * step / steps


@part
class HeldTimes(Times):
    """From 1 to `level`, held there, then to `end` (Duo's linear-constant-linear, spec D.6).

    Of the n = steps + 1 times the first round(high n) fall from 1 to `level`, both included, round(middle n) stay, and
    the rest fall from `level` to `end`, both included.
    """

    level: float
    high: float
    middle: float
    end: float

    def time(self, step: int, steps: int) -> float:
        first, held = round(self.high * (steps + 1)), round(self.middle * (steps + 1))
        if step < first:
            return 1 - (1 - self.level) * step / max(first - 1, 1)
        if step < first + held:
            return self.level
        left = steps - first - held
        # fewer than two times for the last stretch: the plan's last time is `end` whatever its length
        done = 1.0 if left < 1 else (step - first - held) / left
        return self.level - (self.level - self.end) * done
