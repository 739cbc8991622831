"""Progress of a grid of evaluations on stderr: a bar on a terminal, else one line per finished evaluation and, of an
evaluation without a sampler (perplexity, likelihood), one per finished chunk of its rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from repro.core.cli import first, say
from repro.core.reading import aloud
from repro.evals.runner import Cell
from repro.results.record import Record
from repro.results.tables.text import per_step


class Progress(Protocol):
    """Interface of objects that show the progress of a grid of evaluations."""

    def chunk(self, cell: Cell, done: int, count: int) -> None:
        """Show that `done` of the `count` chunks (separately stored parts) of the evaluation `cell` are finished."""

    def follow(self, run: Iterable[tuple[Record, bool]]) -> Iterator[tuple[Record, bool]]:
        """Yield the pairs of `run` (record, whether the record is new), and show the progress as each one comes."""
        ...


class Lines:
    """Progress of `total` evaluations as lines of text; each begins with `which`, the name of the scored checkpoint if
    there are several."""

    def __init__(self, total: int, which: str = "") -> None:
        self.total, self.which = total, which

    def chunk(self, cell: Cell, done: int, count: int) -> None:
        if cell.ask.sampler is None and count > 1:
            with aloud():  # lm-eval runs with its standard error hidden
                say([f"{self.which}{cell.task.name}: {done} of {count} chunks"], sys.stderr)

    def follow(self, run: Iterable[tuple[Record, bool]]) -> Iterator[tuple[Record, bool]]:
        began = time.perf_counter()
        for number, (record, fresh) in enumerate(run, start=1):
            labels = record.labels
            rate = None if labels.tokens_per_step is None else per_step(labels.tokens_per_step)
            what = ", ".join(each for each in (labels.task, labels.preset, rate) if each is not None)
            took = f"{time.perf_counter() - began:.1f} s" if fresh else "stored before"
            say([f"{self.which}{what}: {took} ({number} of {self.total})"], sys.stderr)
            yield record, fresh
            began = time.perf_counter()


class Bar:
    """Progress of `total` evaluations as a bar in the terminal; `name` stands before it."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total

    def chunk(self, cell: Cell, done: int, count: int) -> None:
        pass

    def follow(self, run: Iterable[tuple[Record, bool]]) -> Iterator[tuple[Record, bool]]:
        from rich.console import Console
        from rich.progress import track

        yield from track(run, self.name, total=self.total, console=Console(stderr=True))


class Silent:
    """Progress of evaluations that is not shown, in a process that is not the first of its launcher."""

    def chunk(self, cell: Cell, done: int, count: int) -> None:
        pass

    def follow(self, run: Iterable[tuple[Record, bool]]) -> Iterator[tuple[Record, bool]]:
        yield from run


def progress(name: str, total: int, which: str = "") -> Progress:
    """The object that shows the progress of `total` evaluations of the checkpoint `name`: a bar on a terminal, else
    lines that begin with `which`; nothing in a process that is not the first of its launcher."""
    if not first():
        return Silent()
    return Bar(name, total) if sys.stderr.isatty() else Lines(total, which)
