"""Where a training run writes its metrics: metrics.jsonl, a progress bar on a terminal, and a tracker (--track).

metrics.jsonl is always written. A tracker of accelerate (tensorboard, wandb, trackio, ...) receives the same rows; its
package must be installed separately, and if it writes files, it writes them into the run folder.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from rich import progress as progress_bars
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from repro.core import parts
from repro.core.errors import nearest
from repro.core.files import write_text
from repro.core.reading import parse_json, read_text
from repro.training.recipe import Recipe


class MetricsLog:
    """The file metrics.jsonl at `path`, one JSON row per logged step; only the `active` process writes.

    `step`: step of the checkpoint from which the run resumes (0: a new run); rows of later steps are deleted.
    """

    def __init__(self, path: Path, step: int, active: bool) -> None:
        self.path, self.active = path, active
        if active and path.exists():
            rows = [line for line in read_text(path).splitlines() if _step(line) <= step]
            write_text(path, "".join(line + "\n" for line in rows))

    def write(self, row: dict[str, float]) -> None:
        """Append a row, metric name -> value, if this process is the `active` one."""
        if self.active:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")


def _step(line: str) -> float:
    try:
        row = parse_json(line, dict, "a row")
    except ValueError:
        return math.inf  # the incomplete last line of a killed run
    step = row.get("step")
    return step if isinstance(step, int) else math.inf


class Progress:
    """Base class of the progress displays `ProgressBar` and `ProgressLines`; itself it shows nothing."""

    def step(self, step: int, loss: Callable[[], float]) -> None:
        """Show that optimizer step `step` is done. `loss`: function that waits until the device has finished the step
        and returns its loss."""

    def row(self, row: Mapping[str, float]) -> None:
        """Show a row of metrics.jsonl, metric name -> value."""


class ProgressLines(Progress):
    """Progress of the run called `name` as one line on stderr for each row of metrics.jsonl, with the estimated time
    until step `last`."""

    def __init__(self, name: str, last: int) -> None:
        self.name, self.last = name, last
        self.first: tuple[float, float] | None = None

    def row(self, row: Mapping[str, float]) -> None:
        step, seconds = row["step"], row["seconds"]
        self.first = self.first or (step, seconds)
        done = step - self.first[0]
        left = (self.last - step) * (seconds - self.first[1]) / done if done else None
        parts = [f"{self.name} step {step:.0f} of {self.last}: loss {row['loss']:.4f}"]
        if "heldout_nll_bound" in row:
            parts.append(f"held-out bound {row['heldout_nll_bound']:.4f} nats a token")
        parts.append(f"{seconds:.0f} s" + ("" if left is None else f", about {left:.0f} s left"))
        print(", ".join(parts), file=sys.stderr, flush=True)


class ProgressBar(Progress):
    """A progress bar on stderr with the loss and the time left. `bar`: a `Progress` of the package rich; `task`: the id
    that `bar` has given to this run."""

    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task

    def step(self, step: int, loss: Callable[[], float]) -> None:
        if step % 10 == 0:
            self.bar.update(self.task, completed=step, loss=f"{loss():.4f}")


@contextmanager
def progress(name: str, last: int, active: bool) -> Generator[Progress]:
    """Context manager that yields the progress display of a run called `name` up to step `last`: a bar where stderr is
    a terminal, else a line per logged step; nothing is shown unless `active`."""
    if not active:
        yield Progress()
        return
    if not sys.stderr.isatty():
        yield ProgressLines(name, last)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    loss = TextColumn("loss {task.fields[loss]}")
    with progress_bars.Progress(*columns, loss, console=Console(stderr=True)) as bar:
        yield ProgressBar(bar, bar.add_task(name, total=last, loss=""))


def check_tracker(name: str | None) -> None:
    """Raise ValueError for the name of a tracker that accelerate does not support or whose package is not installed."""
    if name is None or name in (str(t) for t in get_available_trackers()):
        return
    known = [str(t) for t in LOGGER_TYPE_TO_CLASS]
    if name in known:
        raise ValueError(f"tracker {name!r} is not installed; pip install its package, or leave out --track")
    raise ValueError(f"no tracker {name!r}; {nearest(name, known)}")


@contextmanager
def tracker(
    name: str | None, out: Path, recipe: Recipe, active: bool
) -> Generator[Callable[[Mapping], None]]:
    """Context manager that yields a function that sends a row of metrics.jsonl to the tracker `name`.

    `out`: run folder, where the tracker writes its files; the recipe's settings are sent first. If `name` is None or
    `active` is false, nothing is sent.
    """
    if name is None or not active:
        yield lambda row: None
        return
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    made: GeneralTracker = kind(recipe.name, *([str(out)] if kind.requires_logging_directory else []))
    made.start()
    made.store_init_configuration(
        {pin: json.dumps(parts.canonical(v)) for pin, v in parts.leaves(recipe).items()}
    )
    try:
        yield lambda row: made.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
    finally:
        made.finish()
