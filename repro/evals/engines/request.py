"""Evaluations of an engine: tasks of lm-eval x seeds, as records beside those of checkpoints.

    prepare(server, EngineRequest(tasks=["gsm8k"], limit=100)).run()      -> records

A record's `question` describes the engine (kind, address, model, further request fields) in its protocol, and holds the
SHA-256 of this description in place of a checkpoint's digest, with weights "external". Its results are therefore never
pooled with those of a checkpoint or of another engine. Finished evaluations, and finished chunks of the others, are not
asked again (`repro.evals.runner`), so the same command continues an interrupted run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from repro.core.files import runs
from repro.core.parts import canonical
from repro.evals.engines.engine import Api, Unsupported
from repro.evals.engines.http import Refused
from repro.evals.engines.openai import OpenAIServer, Server
from repro.evals.engines.tasks import EngineGeneration, EngineLikelihood, EngineTask
from repro.evals.lm.overrides import requested_length
from repro.evals.lm.task_selection import common_settings, load_tasks
from repro.evals.runner import Cell, Job, Skip, run_jobs
from repro.evals.task import Ask
from repro.results.record import Question, Record
from repro.results.store import Store

ENGINE = "external"
NUMERICS = {"device": "engine", "dtype": "unknown", "torch": "none", "attention": "unknown", "threads": 0}
"""Numerics class (device, dtype, ...) in the records of an engine, which does not report its own."""


@dataclass(frozen=True)
class EngineRequest:
    """What to ask an engine. `tasks`: names of lm-eval tasks, or YAML files; `shots`: few-shot examples (None: the
    task's); `seeds`: seeds of sampling; `limit`: most documents per task; `out`: records go to OUT/raw (None: to
    runs/engines/raw)."""

    tasks: Sequence[str]
    api: Api = "completions"
    shots: int | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("no task given; name tasks of lm-eval or their YAML files with --tasks")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit} is too small; give 1 or more")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} name one twice; give each once")


@dataclass(frozen=True)
class EngineGrid:
    """Evaluations of a server ready to run, what is skipped, and where records are stored."""

    server: Server
    cells: list[Cell]
    skipped: list[Skip]
    store: Store

    @property
    def name(self) -> str:
        return self.server.identity.model

    def run(self, chunk: Callable[[Cell, int, int], None]) -> Iterator[tuple[Record, bool]]:
        """Yield each record as soon as it exists, and whether this process wrote it; `chunk(cell, done, count)` reports
        progress (`run_jobs`)."""
        return run_jobs([self._job(cell) for cell in self.cells], NUMERICS, self.store, chunk)

    def ordered(self, records: Iterable[Record]) -> list[Record]:
        """`records` of this grid, sorted in the order of its evaluations."""
        place = {question(self.server.identity, cell).id: number for number, cell in enumerate(self.cells)}
        return sorted(records, key=lambda record: place[record.id])

    def _job(self, cell: Cell) -> Job:
        assert isinstance(cell.task, EngineTask)
        labels = {
            "recipe": ENGINE,
            "checkpoint": self.name,
            "suite": "engine",
            "task": cell.task.name,
            "preset": None,
            "tokens_per_step": None,
        }
        asked = question(self.server.identity, cell)
        return Job(cell, asked, labels, partial(cell.task.found, self.server, cell.ask))


def question(engine: OpenAIServer, cell: Cell) -> Question:
    """The identity of an evaluation of an engine (the record's `question`)."""
    digest = engine.digest()
    protocol: dict[str, Any] = {**cell.task.protocol(), "engine": canonical(engine), "precision": "unknown"}
    return Question.read(
        {
            "checkpoint": {"digest": digest, "recipe": ENGINE, "seed": 0, "step": 0, "weights": ENGINE},
            "task": canonical(cell.task),
            "sampler": None,
            "plan": None,
            "seed": cell.ask.seed,
            "limit": cell.ask.limit,
            "protocol": protocol,
        }
    )


def prepare(server: Server, request: EngineRequest) -> EngineGrid:
    """The evaluations of a request; a likelihood task is skipped, with the reason, where the server gives no
    log-probabilities of prompts. Raises ValueError if no task is left, and the errors of `load_tasks`."""
    tasks = [task for name in request.tasks for task in engine_tasks(name, request.api, request.shots)]
    twice = next(
        (task.name for i, task in enumerate(tasks) if task.name in {t.name for t in tasks[:i]}), None
    )
    if twice is not None:
        raise ValueError(f"two tasks are called {twice!r}; name one of them at a time with --tasks")
    why = _no_likelihoods(server, request.api) if any(not task.generates for task in tasks) else None
    skipped = [Skip(f"task {task.name}", why) for task in tasks if why is not None and not task.generates]
    kept = [task for task in tasks if task.generates or why is None]
    if not kept:
        raise ValueError(f"{skipped[0].what} cannot be run: {skipped[0].reason}")
    cells = [
        Cell(task, Ask(None, None, seed, request.limit), None, None)
        for task in kept
        for seed in (request.seeds if task.generates else (request.seeds[0],))
    ]
    folder = (runs() / "engines" if request.out is None else request.out) / "raw"
    os.makedirs(folder, exist_ok=True)
    return EngineGrid(server, cells, skipped, Store(folder))


def engine_tasks(name: str, api: Api, shots: int | None) -> list[EngineTask]:
    """The lm-eval tasks of a name or YAML file in the form that engines answer. Raises ValueError for a task that
    scores whole texts, and the errors of `load_tasks`."""
    source, tasks = load_tasks(name)
    found: list[EngineTask] = []
    for task in tasks:
        common: dict[str, Any] = {**common_settings(task, source, "none"), "shots": shots, "api": api}
        if task.OUTPUT_TYPE == "generate_until":
            asked = dict(task.config.generation_kwargs or {})
            text = json.dumps(asked, sort_keys=True)
            found.append(EngineGeneration(**common, length=requested_length(asked), asks=text))
        elif task.OUTPUT_TYPE == "loglikelihood_rolling":
            raise ValueError(
                f"task {task.config.task!r} scores whole texts, whose windows are cut in the engine's tokens, which it"
                " does not give; leave it out, or score a checkpoint with --corpus"
            )
        else:
            found.append(EngineLikelihood(**common))
    return found


def _no_likelihoods(server: Server, api: Api) -> str | None:
    """Why the server cannot answer likelihood tasks, found out by a small request; None if it can."""
    if api == "chat":
        return "the chat API gives no log-probabilities of a prompt; use --api completions"
    try:
        server.score([("the sky", " is")])
    except (Unsupported, Refused) as error:
        return str(error)
    return None
