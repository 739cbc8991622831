"""Asking: each question once, kept as a record with its measurements.

A question already answered in the store (same question, same numerics class; a speed:
on the same device) is not asked again, and neither is a piece
of one (`repro.evals.work_queue`), so a killed run goes on where it stopped, and several processes share a grid.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from repro.core import parts
from repro.core.files import ROOT, write_text
from repro.evals.batch_size import fitted, halving
from repro.evals.suites import Suite
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Elsewhere, Shared, shared
from repro.model import Model
from repro.results.record import Question, Record, make_record
from repro.results.store import Store

POLL = 0.1
"""Seconds between two looks at what others are doing."""


@dataclass(frozen=True)
class Cell:
    """One question to be asked, with what tables print of it."""

    task: Task
    ask: Ask
    preset: str | None
    tokens_per_step: str | None


@dataclass(frozen=True)
class Skip:
    """What cannot be asked, and why."""

    what: str
    reason: str


def question(model: Model, cell: Cell) -> Question:
    task = parts.canonical(cell.task)
    protocol, overridden = cell.task.protocol(), cell.task.overridden(cell.ask)
    checkpoint = {
        "digest": model.digest,
        "recipe": model.recipe.digest(),
        "seed": model.seed,
        "step": model.step,
        "weights": model.weights,
    }
    kept = {"weights_precision": model.precision} if model.precision in ("bfloat16", "int8") else {}
    return Question.read(
        {
            "checkpoint": checkpoint,
            "task": task,
            "sampler": None if cell.ask.sampler is None else parts.canonical(cell.ask.sampler),
            "plan": None if cell.ask.plan is None else parts.canonical(cell.ask.plan),
            "seed": cell.ask.seed,
            "limit": cell.ask.limit,
            "protocol": protocol | kept | ({"overridden": overridden} if overridden else {}),
        }
    )


def numerics(model: Model) -> dict[str, Any]:
    """The numerics class: answers of one class are equal up to rounding."""
    from repro.core.lazy import torch

    device = next(model.denoiser.buffers()).device.type
    exact = model.weights == "exact"
    return {
        "device": device,
        "dtype": model.precision,
        "torch": version("torch").partition("+")[0],
        "attention": "none" if exact else "sdpa",
        "threads": torch.get_num_threads() if device == "cpu" else 1,
    }


def run_grid(
    model: Model, suite: Suite, todo: Iterable[Cell], store: Store, batch: int | None
) -> Iterator[tuple[Record, bool]]:
    """Ask what the store does not answer yet; yields (record, whether its answer was made here) as they come.

    Processes that ask one store share the work: what others are at is left for later. `batch`: rows that go through
    the network together (None: what fits the accelerator's memory, on a CPU what suits the task).
    """
    kind, commit = numerics(model), _commit()
    folder = store.folder.parent / "pieces"
    waiting: deque[tuple[Cell, Question, Elsewhere | None]] = deque(
        (cell, question(model, cell), None) for cell in todo
    )
    idle = 0
    while waiting:
        cell, asked, elsewhere = waiting.popleft()

        on = cell.task.timed_on(model)

        def work(rows: int | None, id: str = asked.id, on: str | None = on) -> Shared:
            return shared(folder, id, kind, rows, lambda: store.find(id, kind, on) is not None)

        def made(rows: int | None, cell: Cell = cell, asked: Question = asked) -> Record:
            return _made(model, suite, cell, asked, work(rows), store, commit)

        record, fresh = store.find(asked.id, kind, on), False
        if record is not None:
            work(batch).finish()
        elif elsewhere is None or elsewhere.over():
            try:
                record, fresh = halving(made, batch or fitted(model, cell.task, cell.ask)), True
            except Elsewhere as busy:
                elsewhere = busy
        if record is not None:
            idle = 0
            yield record, fresh
            continue
        waiting.append((cell, asked, elsewhere))
        idle += 1
        if idle >= len(waiting):  # everything that is left is being done by others
            time.sleep(POLL)


def _made(
    model: Model, suite: Suite, cell: Cell, asked: Question, work: Shared, store: Store, commit: str | None
) -> Record:
    """Do what is left of a question and write its record. Raises Elsewhere while others are at it."""
    began = time.perf_counter()
    try:
        answer = cell.task.shared(model, cell.ask, work)
        work.join()
        here = time.perf_counter() - began - work.own  # pieces count wherever they were done
        record = make_record(
            asked,
            labels(model, suite, cell),
            answer.data(),
            _measured(work.numerics, answer, here + work.seconds, commit),
        )
        if answer.items:
            lines = [json.dumps(item, ensure_ascii=False, sort_keys=True) for item in answer.items]
            write_text(items_file(store, record), "\n".join([*lines, ""]))
        store.append(record)
        work.finish()
        return record
    finally:
        work.close()


def items_file(store: Store, record: Record) -> Path:
    """Where the items of a record lie: OUT/items/<question>.jsonl, one JSON object a line."""
    return store.folder.parent / "items" / f"{record['id'][:16]}.jsonl"


def labels(model: Model, suite: Suite, cell: Cell) -> dict[str, Any]:
    recipe = model.recipe
    name = recipe.name.removeprefix("oracle:")
    found: dict[str, Any] = {
        "recipe": name,
        "checkpoint": recipe.name,
        "suite": suite.name,
        "task": cell.task.name,
        "preset": cell.preset,
        "tokens_per_step": cell.tokens_per_step,
    }
    if recipe.score in ("no bound", "improper score") and model.weights != "exact":
        found["note"] = f"objective: {recipe.score}"
    return found


def _measured(kind: dict[str, Any], answer: Answer, seconds: float, commit: str | None) -> dict[str, Any]:
    speed = {} if answer.speed is None else {"speed": msgspec.to_builtins(answer.speed)}
    return speed | {
        "numerics": kind,
        "seconds": round(seconds, 3),
        "tokens_per_second": None if answer.tokens is None else round(answer.tokens / seconds, 1),
        "versions": {name: version(name) for name in ("dlm-repro", "torch", "transformers", "lm-eval")},
        "commit": commit,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The checkout's commit; None outside one (an installed wheel)."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def measured_alone(device: str, seconds: float) -> dict[str, Any]:
    """Measurements of an answer about samples that no model of the suite wrote: a judge's, float32 on `device`; nothing
    is known of the speed that made them."""
    from repro.core.lazy import torch

    kind = {
        "device": device,
        "dtype": "float32",
        "torch": version("torch").partition("+")[0],
        "attention": "sdpa",
        "threads": torch.get_num_threads() if device == "cpu" else 1,
    }
    return _measured(kind, Answer(metrics={}), seconds, _commit())
