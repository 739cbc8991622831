"""Time budget: run the evaluations of a grid only while the next is expected to finish within a number of hours.

    budget = TimeBudget(hours=2.0)
    for record, new in budget.within(grid): ...
    budget.left                  # evaluations left for a later run

The expected time of an evaluation is its estimated FLOPs at the speed measured on earlier evaluations, including those
whose records earlier runs on the same kind of machine stored; if its FLOPs are unknown, the mean time of earlier
evaluations. The very first evaluation runs without an estimate. Results do not depend on when they are computed, so the
next run continues where this one stopped.
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
    """A limit on run time: an evaluation is started only if it is expected to end within `hours` of the creation of
    this object. `clock` returns the time in seconds."""

    hours: float
    clock: Callable[[], float] = time.monotonic
    left: int = 0
    """Number of evaluations that were not started for lack of time."""
    needed: float = 0.0
    """Expected hours of the evaluations that were not started."""
    _measured: list[tuple[float | None, float]] = field(default_factory=list)
    """Estimated FLOPs (None: unknown) and measured seconds of each evaluation so far."""
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def within(
        self, grid: Prepared, chunk: Callable[[Cell, int, int], None] = lambda cell, done, count: None
    ) -> Iterator[tuple[Record, bool]]:
        """Run the evaluations of `grid` while there is time; yield each one's record, and whether this process wrote
        it. `chunk(cell, done, count)` is called when `done` of the `count` chunks (separately stored parts) of the
        evaluation `cell` are finished.

        From the first evaluation that is not expected to finish in time, only records already stored are yielded.
        """
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
                for record, new in dataclasses.replace(grid, cells=[cell]).run(chunk):
                    self._measured.append((work, self.clock() - began))
                    yield record, new

    @property
    def spent(self) -> float:
        """Hours since the budget was created."""
        return (self.clock() - self._began) / 3600

    def say(self) -> str:
        """One sentence that says the time spent, the number of evaluations left and their expected hours."""
        measured = f", about {self.needed:.2g} hours at the speed measured" if self._measured else ""
        return (
            f"stopped after {self.spent:.2g} of {self.hours:g} hours: {self.left} evaluations are left{measured};"
            " run the same command to continue"
        )

    def _expected(self, work: float | None) -> float:
        """Expected seconds of an evaluation of `work` FLOPs (None: unknown); 0 before any evaluation was measured."""
        counted = [(each, seconds) for each, seconds in self._measured if each is not None]
        total = sum(each for each, _ in counted)
        if work is not None and total:
            return work * sum(seconds for _, seconds in counted) / total
        return sum(seconds for _, seconds in self._measured) / max(1, len(self._measured))

    def _affords(self, work: float | None) -> bool:
        return self.spent < self.hours and self.spent + self._expected(work) / 3600 <= self.hours


def time_budget(hours: float | None) -> TimeBudget | None:
    """A time budget of `hours` from now on; None without a limit (`hours` None)."""
    return None if hours is None else TimeBudget(hours)


def exit_code(budget: TimeBudget | None) -> int:
    """Exit code 0 (also without a budget). Raises Stopped, with the number of evaluations left in the message, if some
    were not started for lack of time."""
    if budget is not None and budget.left:
        raise Stopped(budget.say())
    return 0


def total_flops(model: Model, network: Size | None, cell: Cell) -> float | None:
    """Estimated FLOPs of an evaluation in total, for all its items; None if unknown."""
    workload = cell.task.workload(model, cell.ask)
    if workload is None or network is None or workload.items is None:
        return None
    return flops(workload, network) * workload.items
