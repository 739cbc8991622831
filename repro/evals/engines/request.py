"""Evaluations of an engine (a program that decodes): tasks of lm-eval x seeds, as records beside those of checkpoints.

    prepare(server, EngineRequest(tasks=["gsm8k"], limit=100)).run(lambda cell, done, count: None)      -> records

A record's `question` describes the engine (kind, address, model, further request fields) in its protocol, and holds the
SHA-256 of this description in place of a checkpoint's digest, with weights "external". The results of an engine are
therefore never pooled with those of a checkpoint or of another engine. Finished evaluations, and finished chunks of
unfinished ones, are not requested again (`repro.evals.runner`), so the same command continues an interrupted run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from repro.core.files import runs
from repro.core.parts import canonical
from repro.evals.engines.engine import NO_GREEDY, Api, Unsupported
from repro.evals.engines.http import Refused
from repro.evals.engines.openai import OpenAIServer, Server
from repro.evals.engines.rolling import Windows
from repro.evals.engines.tasks import EngineGeneration, EngineLikelihood, EngineRolling, EngineTask
from repro.evals.lm.overrides import requested_length
from repro.evals.lm.task_selection import common_settings, load_tasks, refuse_twice
from repro.evals.runner import Cell, Job, Skip, run_jobs
from repro.evals.task import Ask
from repro.results.record import Question, Record
from repro.results.store import Store

ENGINE = "external"
PROBE = "the quick brown fox jumps over the lazy dog"
"""A text whose ids show whether a tokenizer is that of a server."""
NUMERICS = {"device": "engine", "dtype": "unknown", "torch": "none", "attention": "unknown", "threads": 0}
"""Numerics class (device, dtype, ...) in the records of an engine, which does not report its own."""


@dataclass(frozen=True)
class EngineRequest:
    """What to ask an engine. `tasks`: names of lm-eval tasks, or YAML files; `api`: completions or chat; `shots`:
    few-shot examples (None: the task's); `seeds`: seeds of sampling; `limit`: most documents per task; `out`: records
    go to OUT/raw (None: to runs/engines/raw).

    For tasks that score whole texts, `tokenizer`: folder or Hub name of the engine's tokenizer, and `max_length`:
    tokens that its context holds (None: what the server says)."""

    tasks: Sequence[str]
    api: Api = "completions"
    shots: int | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    out: Path | None = None
    tokenizer: str | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("no task given; name tasks of lm-eval or their YAML files with --tasks")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit} is too small; give 1 or more")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold a seed twice; give each seed once")


@dataclass(frozen=True)
class EngineGrid:
    """Evaluations of a server, ready to run (`cells`); what is `skipped`, with the reason; and where records are
    stored."""

    server: Server
    cells: list[Cell]
    skipped: list[Skip]
    store: Store

    @property
    def name(self) -> str:
        return self.server.identity.model

    def run(self, chunk: Callable[[Cell, int, int], None]) -> Iterator[tuple[Record, bool]]:
        """Yield each evaluation's record as soon as it exists, and whether this process wrote it. `chunk(cell, done,
        count)` is called when `done` of the `count` chunks (separately stored parts) of the evaluation `cell` are
        finished."""
        return run_jobs([self._job(cell) for cell in self.cells], NUMERICS, self.store, chunk)

    def ordered(self, records: Iterable[Record]) -> list[Record]:
        """The `records` of these evaluations, sorted in the order of `cells`."""
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
    """The `question` field of the record of an engine's evaluation: all that the result depends on (engine, task, seed,
    limit, protocol), by which the record is identified."""
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
    """The evaluations of a request; a task that scores likelihoods is skipped, with the reason, where the server gives
    no log-probabilities of prompts. Raises ValueError if no task is left, for a task that cannot be loaded, and for a
    tokenizer or length that is missing or does not fit the tasks or the server."""
    server = replace(server, windows=_windows(server, request))
    tasks = [
        task
        for name in request.tasks
        for task in engine_tasks(name, request.api, request.shots, server.windows)
    ]
    refuse_twice(tasks)
    if server.windows is not None and not any(isinstance(task, EngineRolling) for task in tasks):
        raise ValueError(
            f"tokenizer={request.tokenizer!r} given, but no task scores whole texts; leave it out"
        )
    kinds = {type(task) for task in tasks if not task.generates}
    why = {kind: _no_likelihoods(server, request.api, kind is EngineRolling) for kind in kinds}
    skipped = [Skip(f"task {task.name}", reason) for task in tasks if (reason := why.get(type(task)))]
    kept = [task for task in tasks if why.get(type(task)) is None]
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


def engine_tasks(name: str, api: Api, shots: int | None, windows: Windows | None) -> list[EngineTask]:
    """The lm-eval tasks that `name` (a name of lm-eval or a YAML file) selects, as tasks for engines. `windows`: how
    whole texts are cut into windows. ValueError for a task that scores whole texts if it is None, for an unknown name,
    and for a file that defines no task."""
    source, tasks = load_tasks(name)
    found: list[EngineTask] = []
    for task in tasks:
        common: dict[str, Any] = {**common_settings(task, source, "none"), "shots": shots, "api": api}
        if task.OUTPUT_TYPE == "generate_until":
            asked = dict(task.config.generation_kwargs or {})
            text = json.dumps(asked, sort_keys=True)
            found.append(EngineGeneration(**common, length=requested_length(asked), asks=text))
        elif task.OUTPUT_TYPE != "loglikelihood_rolling":
            found.append(EngineLikelihood(**common))
        elif windows is not None:
            cut = {"tokenizer": windows.revision, "prefix": windows.prefix, "max_length": windows.length}
            found.append(EngineRolling(**common, **cut))
        else:
            raise ValueError(
                f"task {task.config.task!r} scores whole texts, whose windows are cut in the engine's tokens; name its"
                " tokenizer with --tokenizer (a folder, or OWNER/NAME on the Hub)"
            )
    return found


def _windows(server: Server, request: EngineRequest) -> Windows | None:
    """How whole texts are cut into windows for the server (None: the request names no tokenizer). ValueError if neither
    the request nor the server states a length of the context, for a length without a tokenizer or beyond the server's
    context, and for a tokenizer that does not exist or has neither BOS nor EOS."""
    if request.tokenizer is None:
        if request.max_length is not None:
            raise ValueError(
                f"max_length={request.max_length} is for tasks that score whole texts, which need a tokenizer; add"
                " --tokenizer, or leave --max-length out"
            )
        return None
    length = server.context if request.max_length is None else request.max_length
    if length is None:
        raise ValueError(
            f"{server.identity.url} does not say how many tokens its context holds; give them with --max-length"
        )
    if server.context is not None and length > server.context:
        raise ValueError(
            f"max_length={length} is more than the context of the server holds; give at most {server.context}"
        )
    return Windows.read(request.tokenizer, length)


def _no_likelihoods(server: Server, api: Api, rolling: bool) -> str | None:
    """Reason why the server cannot score continuations (if `rolling`: whole texts), as one small request to it shows;
    None if it can."""
    if api == "chat":
        return "the chat API gives no log-probabilities of a prompt; use --api completions"
    try:
        if rolling:
            assert server.windows is not None
            _check_windows(server, server.windows)
        elif server.score([("the sky", " is")])[0].greedy is None:
            return NO_GREEDY
    except (Unsupported, Refused) as error:
        return str(error)
    return None


def _check_windows(server: Server, windows: Windows) -> None:
    """Raise Unsupported if the server gives no log-probabilities of a prompt of ids, or its own tokenizer reads the ids
    of PROBE as another text."""
    ids = windows.tokenizer.encode(PROBE, add_special_tokens=False).ids
    (found,) = server.score_ids([([windows.prefix], ids)])
    said = "".join(token.text for token in found.tokens)
    if said.strip() != PROBE:
        raise Unsupported(
            f"{server.identity.url} reads the ids of {PROBE!r} as {said!r}; name the server's tokenizer with"
            " --tokenizer"
        )
