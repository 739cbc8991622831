"""Asking: each question once, kept as a record with its measurements.

A question already answered in the store (same question, same numerics class) is not asked again, so a killed run goes
on where it stopped.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from repro import parts
from repro.evals.suites import Suite
from repro.evals.task import Answer, Ask, Task
from repro.files import ROOT, write_text
from repro.models import Model
from repro.record import Question, Record, make_record
from repro.results import Store


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
    checkpoint = {
        "digest": model.digest,
        "recipe": model.recipe.digest(),
        "seed": model.seed,
        "step": model.step,
        "weights": model.weights,
    }
    kept = {"precision": "bfloat16"} if model.precision == "bfloat16" else {}
    return Question.read(
        {
            "checkpoint": checkpoint,
            "task": task,
            "sampler": None if cell.ask.sampler is None else parts.canonical(cell.ask.sampler),
            "plan": None if cell.ask.plan is None else parts.canonical(cell.ask.plan),
            "seed": cell.ask.seed,
            "limit": cell.ask.limit,
            "protocol": cell.task.protocol() | kept,
        }
    )


def numerics(model: Model) -> dict[str, Any]:
    """The numerics class: answers of one class are equal up to rounding."""
    from repro.lazy import torch

    device = next(model.denoiser.buffers()).device.type
    exact = model.weights == "exact"
    return {
        "device": device,
        "dtype": model.precision,
        "torch": version("torch").partition("+")[0],
        "attention": "none" if exact else "sdpa",
        "threads": torch.get_num_threads() if device == "cpu" else 1,
    }


def run_grid(model: Model, suite: Suite, todo: Iterable[Cell], store: Store) -> Iterator[tuple[Record, bool]]:
    """Ask what the store does not answer yet; yields (record, whether it was asked anew)."""
    kind = numerics(model)
    commit = _commit()
    for cell in todo:
        asked = question(model, cell)
        known = store.find(asked.id, kind)
        if known is not None:
            yield known, False
            continue
        began = time.perf_counter()
        answer = cell.task.answer(model, cell.ask)
        seconds = time.perf_counter() - began
        record = make_record(
            asked, labels(model, suite, cell), answer.data(), _measured(kind, answer, seconds, commit)
        )
        if answer.items:
            lines = [json.dumps(item, ensure_ascii=False, sort_keys=True) for item in answer.items]
            write_text(items_file(store, record), "\n".join([*lines, ""]))
        store.append(record)
        yield record, True


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
    return {
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
