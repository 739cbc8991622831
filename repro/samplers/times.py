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
