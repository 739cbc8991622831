"""Questions within so many hours: none is begun that would not be over in time at the pace measured so far.

    pace = TimeBudget(hours=2.0)
    for record, new in pace.within(grid): ...
    pace.left                    # questions that are left for the next time, None if none are

A question is expected to take its FLOPs (by the plan) at the pace of the questions before it, those that earlier runs
on the same kind of machine asked included; where nobody knows its FLOPs, as long as those took on average. The first
of all is asked unmeasured. No answer depends on when it is asked, so the next run goes on where this one ended.
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
    """Questions that were not begun."""
    needed: float = 0.0
    """Hours that they would take at the pace measured."""
    _measured: list[tuple[float | None, float]] = field(default_factory=list)
    """FLOPs (None: unknown) and seconds of the questions so far."""
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def within(self, grid: Prepared) -> Iterator[tuple[Record, bool]]:
        """The records of a grid as `run` gives them, until a question would not be over in time."""
        network, kind = grid.model.size(), numerics(grid.model)
        for cell in grid.cells:
            work = work_of(grid.model, network, cell)
            known = grid.store.find(question(grid.model, cell).id, kind, cell.task.timed_on(grid.model))
            if known is not None:
                self._note(work, known["measurements"]["seconds"])
                yield known, False
            elif self.left or not self._affords(work):
                self.left += 1
                self.needed += self._expected(work) / 3600
            else:
                began = self.clock()
                for record, new in dataclasses.replace(grid, cells=[cell]).run():
                    self._note(work, self.clock() - began)
                    yield record, new

    @property
    def spent(self) -> float:
        """Hours since the beginning."""
        return (self.clock() - self._began) / 3600

    def say(self) -> str:
        """What is left, in one line."""
        measured = f", about {self.needed:.2g} hours at the pace measured" if self._measured else ""
        return (
            f"stopped after {self.spent:.2g} of {self.hours:g} hours: {self.left} questions are left{measured};"
            " the same command goes on"
        )

    def _expected(self, work: float | None) -> float:
        """Seconds of a question; 0 where nothing was measured yet."""
        counted = [(each, seconds) for each, seconds in self._measured if each is not None]
        total = sum(each for each, _ in counted)
        if work is not None and total:
            return work * sum(seconds for _, seconds in counted) / total
        return sum(seconds for _, seconds in self._measured) / max(1, len(self._measured))

    def _affords(self, work: float | None) -> bool:
        return self.spent < self.hours and self.spent + self._expected(work) / 3600 <= self.hours

    def _note(self, work: float | None, seconds: float) -> None:
        self._measured.append((work, seconds))


def limit(hours: float | None) -> TimeBudget | None:
    """A pace for so many hours from now on; None without a limit."""
    return None if hours is None else TimeBudget(hours)


def over(pace: TimeBudget | None) -> int:
    """Exit code 0; Stopped, with what is left, where the hours did not do."""
    if pace is not None and pace.left:
        raise Stopped(pace.say())
    return 0


def work_of(model: Model, network: Size | None, cell: Cell) -> float | None:
    """FLOPs of a question by its plan; None where nobody knows them."""
    workload = cell.task.workload(model, cell.ask)
    if workload is None or network is None or workload.items is None:
        return None
    return flops(workload, network) * workload.items
