"""Runner: compute each evaluation of a grid once and store it as a record with its measurements.

An evaluation is identified by the record's `question` (checkpoint, task, sampler, decoding plan, seed, limit, protocol)
and the numerics class (device type, dtype, torch version, attention, threads), for speeds also by the device. An
evaluation whose record is stored is not computed again; neither is a finished chunk of an evaluation
(`repro.evals.work_queue`). So a killed run continues where it stopped, and several processes can share a grid.
"""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec

from repro.core import parts
from repro.core.checkouts import head
from repro.core.files import ROOT
from repro.core.lazy import torch
from repro.evals.batch_size import fitted, halving
from repro.evals.suites import Suite
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Busy, SharedQueue, WorkQueue, shared_queue
from repro.hub.release import Release
from repro.model import Model
from repro.results.record import Question, Record, make_record
from repro.results.store import Store, write_items
from repro.training.recipe import Recipe

POLL = 0.1
"""Seconds between two checks whether other processes have finished."""


@dataclass(frozen=True)
class Cell:
    """One evaluation of a grid: its task and settings (`ask`), and labels that tables print: name of the sampler preset
    and tokens per step."""

    task: Task
    ask: Ask
    preset: str | None
    tokens_per_step: str | None


@dataclass(frozen=True)
class Skip:
    """A task, sampler or combination that is not run, and the reason."""

    what: str
    reason: str


def question(model: Model, cell: Cell) -> Question:
    """The `question` field of an evaluation's record: all that the result depends on. The record's `id` is the hash of
    this field."""
    task = parts.canonical(cell.task)
    protocol, overridden = cell.task.protocol(), cell.task.overridden(cell.ask)
    checkpoint = {
        "digest": model.digest,
        "recipe": model.recipe.digest(),
        "seed": model.seed,
        "step": model.step,
        "weights": model.weights,
    }
    precision = {"weights_precision": model.precision} if model.precision in ("bfloat16", "int8") else {}
    server = model.denoiser.served_by
    engine = {} if server is None else {"engine": server}
    return Question.read(
        {
            "checkpoint": checkpoint,
            "task": task,
            "sampler": None if cell.ask.sampler is None else parts.canonical(cell.ask.sampler),
            "plan": None if cell.ask.plan is None else parts.canonical(cell.ask.plan),
            "seed": cell.ask.seed,
            "limit": cell.ask.limit,
            "protocol": protocol | precision | engine | ({"overridden": overridden} if overridden else {}),
        }
    )


def numerics(model: Model) -> dict[str, Any]:
    """Numerics class of this model and machine: device type, dtype, torch version, attention and threads.

    Results of one class are equal up to rounding.
    """
    device = next(model.denoiser.buffers()).device.type
    return _numerics(device, model.precision, "none" if model.weights == "exact" else "sdpa")


def _numerics(device: str, dtype: str, attention: str) -> dict[str, Any]:
    return {
        "device": device,
        "dtype": dtype,
        "torch": version("torch").partition("+")[0],
        "attention": attention,
        "threads": torch.get_num_threads() if device == "cpu" else 1,
    }


@dataclass(frozen=True)
class Job:
    """An evaluation to compute: its `cell` of the grid, its identity `asked` (the record's question), the record's
    `labels`, and `find`, which computes the answer (result) in chunks of the work queue that it gets. `rows`: function
    that returns the largest number of rows in one forward (None: the task's default); `batch_set`: whether the user set
    it, so that the record states it; `timed_on`: device on which a stored result must have been timed to be reused
    (None: nothing is timed)."""

    cell: Cell
    asked: Question
    labels: dict[str, Any]
    find: Callable[[WorkQueue], Answer]
    rows: Callable[[], int | None] = lambda: None
    timed_on: str | None = None
    batch_set: bool = False


def run_grid(
    model: Model,
    suite: Suite,
    todo: Iterable[Cell],
    store: Store,
    batch: int | None,
    chunk: Callable[[Cell, int, int], None] = lambda cell, done, count: None,
) -> Iterator[tuple[Record, bool]]:
    """Yield the record of each evaluation in `todo` of a model as soon as it is in `store`, and whether this process
    wrote it.

    `batch`: largest number of rows in one forward (None: what fits the accelerator's memory; on a CPU the task's
    default); `chunk(cell, done, count)` is called when `done` of the `count` chunks (separately stored parts) of the
    evaluation `cell` are finished.
    """
    jobs = [
        Job(
            cell,
            question(model, cell),
            labels(model, suite, cell),
            partial(cell.task.shared, model, cell.ask),
            partial(_rows, model, cell, batch),
            cell.task.timed_on(model),
            batch is not None,
        )
        for cell in todo
    ]
    return run_jobs(jobs, numerics(model), store, chunk)


def _rows(model: Model, cell: Cell, batch: int | None) -> int | None:
    return batch or fitted(model, cell.task, cell.ask)


def run_jobs(
    jobs: Iterable[Job],
    kind: dict[str, Any],
    store: Store,
    chunk: Callable[[Cell, int, int], None] = lambda cell, done, count: None,
) -> Iterator[tuple[Record, bool]]:
    """Yield the record of each evaluation as soon as it exists, and whether this process wrote it.

    Evaluations without a stored record of the numerics class `kind` are computed. Processes that write to one store
    share the work; an evaluation that another process is computing is tried again later. `chunk`: called with an
    evaluation, the number of its finished chunks (separately stored parts) and the number of all its chunks, after each
    chunk that this process has computed.
    """
    commit = _commit()
    folder = store.folder.parent / "chunks"
    waiting: deque[tuple[Job, Busy | None]] = deque((job, None) for job in jobs)
    idle = 0
    while waiting:
        job, busy = waiting.popleft()

        def work(rows: int | None, job: Job = job) -> SharedQueue:
            told = partial(chunk, job.cell)
            done = partial(_is_stored, store, job, kind)
            return shared_queue(folder, job.asked.id, kind, rows, done, told)

        def made(rows: int | None, job: Job = job) -> Record:
            return _made(job, work(rows), store, commit, rows if job.batch_set else None)

        record, fresh = store.find(job.asked.id, kind, job.timed_on), False
        if record is not None:
            work(None).finish()
        elif busy is None or busy.over():
            try:
                record, fresh = halving(made, job.rows()), True
            except Busy as error:
                busy = error
        if record is not None:
            idle = 0
            yield record, fresh
            continue
        waiting.append((job, busy))
        idle += 1
        if idle >= len(waiting):  # other processes are computing everything that is left
            time.sleep(POLL)


def _is_stored(store: Store, job: Job, kind: dict[str, Any]) -> bool:
    return store.find(job.asked.id, kind, job.timed_on) is not None


def _made(job: Job, work: SharedQueue, store: Store, commit: str | None, batch: int | None) -> Record:
    """Compute the missing chunks (separately stored parts) of an evaluation, and write and return its record. The
    record states the git `commit` of the code and `batch`, the batch size that the user set or a smaller one that fits
    the memory (None: not set).

    Raises Busy while other processes compute chunks of the evaluation.
    """
    began = time.perf_counter()
    try:
        answer = job.find(work)
        work.join()
        # the seconds of all chunks count, whichever process computed them
        here = time.perf_counter() - began - work.own - work.waited
        record = make_record(
            job.asked,
            job.labels,
            answer.data(),
            _measured(work.numerics, answer, here + work.seconds, commit, batch),
        )
        if answer.items:
            write_items(store.folder, record, answer.items)
        store.append(record)
        work.finish()
        return record
    finally:
        work.close()


def labels(model: Model, suite: Suite, cell: Cell) -> dict[str, Any]:
    """The `labels` field of a record, for tables: names of recipe, checkpoint, suite, task and sampler preset, tokens
    per step, and notes. They are not part of what identifies the evaluation."""
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
    if model.unfinished:
        found["unfinished"] = model.unfinished
    if model.unaveraged:
        found["weights"] = model.unaveraged
    if recipe.score in ("no bound", "improper score") and model.weights != "exact":
        found["note"] = f"objective: {recipe.score}" + _untrained(recipe)
    return found


def _untrained(recipe: Recipe | Release) -> str:
    """Text on the noise levels that training covered, for the end of a record's note, such as "; alpha 0.1 to 0.9
    trained" (alpha: probability that noise leaves a token intact); "" if these include alpha from 0.01 to 0.99, and for
    released weights."""
    if not isinstance(recipe, Recipe):
        return ""
    low, high = recipe.objective.trained(recipe.data.vocabulary().size)
    return "" if low < 0.01 and high > 0.99 else f"; alpha {low:.2g} to {high:.2g} trained"


def _measured(
    kind: dict[str, Any], answer: Answer, seconds: float, commit: str | None, batch: int | None = None
) -> dict[str, Any]:
    given = {} if answer.speed is None else {"speed": msgspec.to_builtins(answer.speed)}
    given |= {} if batch is None else {"batch": batch}
    return given | {
        "numerics": kind,
        "seconds": round(seconds, 3),
        "tokens_per_second": None if answer.tokens is None else round(answer.tokens / seconds, 1),
        "versions": {name: version(name) for name in ("dlm-repro", "torch", "transformers", "lm-eval")},
        "commit": commit,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Git commit of the checkout that this code runs from; None for an installed package, and without git."""
    return head(ROOT) if (ROOT / ".git").exists() else None


def measured_alone(device: str, seconds: float) -> dict[str, Any]:
    """The `measurements` field of the record of samples that were read from a file and scored by a language model in
    float32 on `device`, which took `seconds`; it has no decoding speed, since nothing was decoded."""
    return _measured(_numerics(device, "float32", "sdpa"), Answer(metrics={}), seconds, _commit())
