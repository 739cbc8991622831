"""The grid: tasks of a suite x presets x tokens per step x seeds, asked once each and kept as records.

    score("runs/mdlm@nano-s0", samplers=["all"])      -> list of records

A question already answered in the store (same question, same numerics class) is not asked again, so a killed run goes
on where it stopped. What cannot be asked is skipped with its reason; nothing is skipped in silence.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from repro import parts, registry
from repro.evals.task import Answer, Ask, Task
from repro.files import ROOT, runs
from repro.models import Model, load
from repro.parts import nearest
from repro.record import Question, Record, make_record
from repro.results import Store
from repro.samplers.decode import Plan, check
from repro.samplers.presets import PRESETS, preset

SUITES = ROOT / "evals" / "suites"
TokensPerStep = float | str
"""Planned tokens per step: a number, or "all" (one step)."""


@dataclass(frozen=True)
class Suite:
    """Tasks and the tokens per step to try; read from evals/suites/NAME.toml."""

    name: str
    tokens_per_step: list[TokensPerStep]
    tasks: list[Task]


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


def read_suite(name: str) -> Suite:
    """Read a suite strictly; ValueError names the nearest suite, part or pin."""
    path = SUITES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no suite {name!r}; {nearest(name, [p.stem for p in SUITES.glob('*.toml')])}")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        odd = data.keys() - {"tokens_per_step", "tasks"}
        if odd:
            raise ValueError(f"unknown field {min(odd)!r}; {nearest(min(odd), ['tokens_per_step', 'tasks'])}")
        tasks = [parts.read(task, Task) for task in data["tasks"]]
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Suite(name, data["tokens_per_step"], tasks)


def chosen_presets(names: Sequence[str], model: Model) -> tuple[list[str], list[Skip]]:
    """`all`: every preset that fits the model's process, the others skipped with a reason; else exactly those named."""
    noise = registry.part_name(type(model.recipe.process))
    if list(names) != ["all"]:
        for name in names:
            rule = preset(name)
            if noise not in rule.abilities.processes:
                fits = [p for p, r in PRESETS.items() if noise in r.abilities.processes]
                raise ValueError(f"preset {name!r} does not fit a {noise} model; it takes {', '.join(fits)}")
        return list(names), []
    fitting = [name for name, rule in PRESETS.items() if noise in rule.abilities.processes]
    skipped = [
        Skip(name, f"for {' and '.join(sorted(rule.abilities.processes))} models, this one is {noise}")
        for name, rule in PRESETS.items()
        if name not in fitting
    ]
    return fitting, skipped


def cells(
    suite: Suite,
    model: Model,
    presets: Sequence[str],
    rates: Sequence[TokensPerStep],
    seeds: Sequence[int],
    limit: int | None,
) -> tuple[list[Cell], list[Skip]]:
    """All questions of a grid, in order, and what is skipped."""
    found: list[Cell] = []
    skipped: list[Skip] = []
    for task in suite.tasks:
        reason = task.skip(model)
        if reason is not None:
            skipped.append(Skip(f"task {task.name}", reason))
            continue
        for seed in seeds:
            if not task.generates:
                found.append(Cell(task, Ask(None, None, seed, limit), None, None))
                continue
            for name in presets:
                for cell in _plans(task, model, name, rates, seed, limit):
                    if isinstance(cell, Skip):
                        skipped.append(cell)
                    else:
                        found.append(cell)
    return found, list(dict.fromkeys(skipped))


def _plans(
    task: Task, model: Model, name: str, rates: Sequence[TokensPerStep], seed: int, limit: int | None
) -> Iterator[Cell | Skip]:
    sampler, length = task.derive_sampler(preset(name)), task.gen_length(model)
    if sampler.abilities.plan == "adaptive":
        yield Cell(
            task,
            Ask(sampler, Plan(gen_length=length, block_length=length, steps=None), seed, limit),
            name,
            None,
        )
        return
    seen = set()
    for rate in rates:
        steps = 1 if rate == "all" else max(1, math.ceil(length / float(rate)))
        if steps in seen:
            continue
        seen.add(steps)
        label = "all" if steps == 1 else f"{float(rate):g}"
        plan = Plan(gen_length=length, block_length=length, steps=steps)
        try:
            check(sampler, model.recipe.process, plan)
        except ValueError as error:
            yield Skip(f"{name} at {label} tokens per step", str(error))
            continue
        yield Cell(task, Ask(sampler, plan, seed, limit), name, label)


def question(model: Model, cell: Cell) -> Question:
    task = parts.canonical(cell.task)
    checkpoint = {
        "digest": model.digest,
        "recipe": model.recipe.digest(),
        "seed": model.seed,
        "step": model.step,
        "weights": model.weights,
    }
    return Question.read(
        {
            "checkpoint": checkpoint,
            "task": task,
            "sampler": None if cell.ask.sampler is None else parts.canonical(cell.ask.sampler),
            "plan": None if cell.ask.plan is None else parts.canonical(cell.ask.plan),
            "seed": cell.ask.seed,
            "limit": cell.ask.limit,
            "protocol": cell.task.protocol(),
        }
    )


def numerics(model: Model) -> dict[str, Any]:
    """The numerics class: answers of one class are equal up to rounding."""
    from repro.lazy import torch

    device = next(model.denoiser.buffers()).device.type
    exact = model.weights == "exact"
    return {
        "device": device,
        "dtype": "float64" if exact else "float32",
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
        store.append(record)
        yield record, True


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
    if recipe.objective.score != "bound" and model.weights != "exact":
        found["note"] = f"objective: {recipe.objective.score}"
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


def default_store(model: Model, name: str) -> Path:
    """`DIR/raw`, DIR the run folder of a checkpoint, or runs/NAME for an oracle."""
    folder = runs() / name.replace(":", "_") if model.folder is None else model.folder.parent
    return folder / "raw"


def score(
    ckpt: str | Path | Model,
    samplers: Sequence[str] = ("all",),
    tasks: Sequence[str] | None = None,
    tokens_per_step: Sequence[TokensPerStep] | None = None,
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    samples: int | None = None,
    suite: str | None = None,
    out: Path | None = None,
) -> list[Record]:
    """Score a model and return its records; the same as `python -m repro.evals`, from a notebook."""
    model = ckpt if isinstance(ckpt, Model) else load(ckpt)
    return [
        record
        for record, _ in prepare(
            model, samplers, tasks, tokens_per_step, seeds, limit, samples, suite, out
        ).run()
    ]


@dataclass(frozen=True)
class Prepared:
    """A grid ready to be asked: its cells, what is skipped, and where records go."""

    model: Model
    suite: Suite
    cells: list[Cell]
    skipped: list[Skip]
    store: Store

    def run(self) -> Iterator[tuple[Record, bool]]:
        return run_grid(self.model, self.suite, self.cells, self.store)


def prepare(
    model: Model,
    samplers: Sequence[str],
    tasks: Sequence[str] | None,
    tokens_per_step: Sequence[TokensPerStep] | None,
    seeds: Sequence[int],
    limit: int | None,
    samples: int | None,
    suite: str | None,
    out: Path | None,
) -> Prepared:
    chosen = read_suite(suite or model.recipe.suite)
    if tasks is not None:
        names = [task.name for task in chosen.tasks]
        for name in tasks:
            if name not in names:
                raise ValueError(f"no task {name!r} in suite {chosen.name!r}; {nearest(name, names)}")
        chosen = dataclasses.replace(chosen, tasks=[task for task in chosen.tasks if task.name in tasks])
    if samples is not None:
        sampled = [
            parts.derive(t, {"samples": samples}) if "samples" in parts.leaves(t) else t for t in chosen.tasks
        ]
        chosen = dataclasses.replace(chosen, tasks=sampled)
    presets, skipped = chosen_presets(samplers, model)
    found, more = cells(chosen, model, presets, tokens_per_step or chosen.tokens_per_step, seeds, limit)
    folder = default_store(model, model.recipe.name) if out is None else out / "raw"
    os.makedirs(folder, exist_ok=True)
    return Prepared(model, chosen, found, [*skipped, *more], Store(folder))
