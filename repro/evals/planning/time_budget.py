"""Time budget: run a grid's questions only while the next one is expected to finish within so many hours.

    budget = TimeBudget(hours=2.0)
    for record, new in budget.within(grid): ...
    budget.left                  # questions left for a later run

The expected time of a question is its planned FLOPs at the speed measured on the questions before it, including those
that earlier runs on the same kind of machine recorded; if its FLOPs are unknown, the mean time of those questions. The
first question of all runs without an estimate. Answers do not depend on when they are computed, so the next run
continues where this one stopped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from repro.core.errors import Stopped
from repro.evals.planning.device import flops
from repro.evals.request import Prepared
from repro.evals.runner import Cell, numerics, question
from repro.model import Model
from repro.models.backbone import Size
from repro.results.record import Record


@dataclass(eq=False)
class TimeBudget:
    """`hours` from now on; `clock` in seconds."""

    hours: float
    clock: Callable[[], float] = time.monotonic
    left: int = 0
    """Questions that were not started."""
    needed: float = 0.0
    """Hours that they are expected to take."""
    _measured: list[tuple[float | None, float]] = field(default_factory=list)
    """FLOPs (None: unknown) and seconds of the questions so far."""
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def within(self, grid: Prepared) -> Iterator[tuple[Record, bool]]:
        """Yield a grid's records as `Prepared.run` does, until a question is not expected to finish in time."""
        network, kind = grid.model.size(), numerics(grid.model)
        for cell in grid.cells:
            work = total_flops(grid.model, network, cell)
            known = grid.store.find(question(grid.model, cell).id, kind, cell.task.timed_on(grid.model))
            if known is not None:
                self._measured.append((work, known.measurements.seconds))
                yield known, False
            elif self.left or not self._affords(work):
                self.left += 1
                self.needed += self._expected(work) / 3600
            else:
                began = self.clock()
                for record, new in dataclasses.replace(grid, cells=[cell]).run():
                    self._measured.append((work, self.clock() - began))
                    yield record, new

    @property
    def spent(self) -> float:
        """Hours since the start."""
        return (self.clock() - self._began) / 3600

    def say(self) -> str:
        """What is left, in one line."""
        measured = f", about {self.needed:.2g} hours at the speed measured" if self._measured else ""
        return (
            f"stopped after {self.spent:.2g} of {self.hours:g} hours: {self.left} questions are left{measured};"
            " run the same command to continue"
        )

    def _expected(self, work: float | None) -> float:
        """Expected seconds of a question; 0 before anything was measured."""
        counted = [(each, seconds) for each, seconds in self._measured if each is not None]
        total = sum(each for each, _ in counted)
        if work is not None and total:
            return work * sum(seconds for _, seconds in counted) / total
        return sum(seconds for _, seconds in self._measured) / max(1, len(self._measured))

    def _affords(self, work: float | None) -> bool:
        return self.spent < self.hours and self.spent + self._expected(work) / 3600 <= self.hours


def time_budget(hours: float | None) -> TimeBudget | None:
    """A time budget of so many hours from now on; None without a limit."""
    return None if hours is None else TimeBudget(hours)


def exit_code(budget: TimeBudget | None) -> int:
    """Exit code 0; raises Stopped, with what is left, if the time did not suffice."""
    if budget is not None and budget.left:
        raise Stopped(budget.say())
    return 0


def total_flops(model: Model, network: Size | None, cell: Cell) -> float | None:
    """Planned FLOPs of a question; None if unknown."""
    workload = cell.task.workload(model, cell.ask)
    if workload is None or network is None or workload.items is None:
        return None
    return flops(workload, network) * workload.items
