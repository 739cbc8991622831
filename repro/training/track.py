"""Trackers: the rows of metrics.jsonl sent on to one of accelerate's (tensorboard, wandb, trackio, ...) with --track.

metrics.jsonl stays the truth, and no tracker is a dependency. One that writes
files writes them into the run folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from repro.core import parts
from repro.training.recipe import Recipe


def check(name: str | None) -> None:
    """ValueError, in one line, for a tracker that accelerate does not know or that is not installed."""
    if name is None or name in (str(t) for t in get_available_trackers()):
        return
    known = [str(t) for t in LOGGER_TYPE_TO_CLASS]
    if name in known:
        raise ValueError(f"tracker {name!r} is not installed; pip install its package or leave out --track")
    raise ValueError(f"no tracker {name!r}; {parts.nearest(name, known)}")


@contextmanager
def tracked(name: str | None, out: Path, recipe: Recipe, first: bool) -> Generator[Callable[[Mapping], None]]:
    """What takes a row of metrics.jsonl to tracker `name` (None: to nobody); the first process alone sends."""
    if name is None or not first:
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
