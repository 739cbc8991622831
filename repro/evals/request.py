"""The grid: tasks of a suite x presets x tokens per step x seeds, laid out as questions.

    score("runs/mdlm@nano-s0", samplers=["all"])      -> list of records

What cannot be asked is skipped with its reason; nothing is skipped in silence. Asking is `repro.evals.runner`'s.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.core import parts, registry
from repro.core.files import runs
from repro.evals.lm.prompts import Template
from repro.evals.lm.task_selection import TaskOptions, tasks_by_name
from repro.evals.perplexity.catalogue import replaced
from repro.evals.perplexity.corpora import scored
from repro.evals.perplexity.corpus import Perplexity
from repro.evals.runner import Cell, Skip, question, run_grid
from repro.evals.suites import Plans, Suite, TokensPerStep, read_suite
from repro.evals.task import Ask, Task
from repro.model import Model, load
from repro.results.record import Record
from repro.results.store import Store
from repro.samplers.plan import Plan, ServedPlan, cache, check
from repro.samplers.presets import PRESETS, preset


def chosen_presets(
    names: Sequence[str], everything: Sequence[str], model: Model
) -> tuple[list[str], list[Skip]]:
    """`all`: of `everything` what fits the process, the rest skipped with a reason; else exactly those named."""
    noise = registry.part_name(type(model.recipe.process))
    wanted = everything if list(names) == ["all"] else names
    fitting, skipped = [], []
    for name in wanted:
        processes = preset(name).capabilities.processes
        if noise in processes:
            fitting.append(name)
        elif wanted is names:
            fits = [p for p, r in PRESETS.items() if noise in r.capabilities.processes]
            raise ValueError(f"preset {name!r} does not fit a {noise} model; it takes {', '.join(fits)}")
        else:
            skipped.append(Skip(name, f"for {' and '.join(sorted(processes))} models, this one is {noise}"))
    return fitting, skipped


def cells(
    suite: Suite, model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> tuple[list[Cell], list[Skip]]:
    """All questions of a grid, in order, and what is skipped; one question under two names is asked once."""
    found: list[Cell] = []
    skipped: list[Skip] = []
    for task in suite.tasks:
        why = reason(task, model)
        if why is not None:
            skipped.append(Skip(f"task {task.name}", why))
            continue
        if not task.generates:
            found += [Cell(task, Ask(None, None, seed, request.limit), None, None) for seed in request.seeds]
            continue
        asked: dict[Ask, str] = {}
        for way in suite.ways(task.name):
            presets, unfit = chosen_presets(request.samplers, way.presets, model)
            skipped += unfit
            rates = request.tokens_per_step or suite.tokens_per_step
            for seed, name in itertools.product(request.seeds, presets):
                for cell in _plans(task, model, name, way, rates, request, seed):
                    if isinstance(cell, Skip):
                        skipped.append(cell)
                    elif cell.ask in asked:
                        same = f"the same question as {asked[cell.ask]}"
                        skipped.append(Skip(f"{name} for {task.name}", same))
                    else:
                        asked[cell.ask] = name
                        found.append(cell)
    return found, list(dict.fromkeys(skipped))


def _plans(
    task: Task,
    model: Model,
    name: str,
    way: Plans,
    rates: Sequence[TokensPerStep],
    request: Request,
    seed: int,
) -> Iterator[Cell | Skip]:
    """The plans of one preset in one way: one a number of steps, or one in all for an adaptive rule. A label is what
    is planned, for steps are whole numbers: 32 tokens at 5 a step take 7 steps of 4.57143."""
    sampler, length = preset(name), task.gen_length(model)
    block = request.block_length or way.block_length or model.denoiser.required_block_size or length
    named_cache = request.cache or way.cache
    kept = cache(named_cache) if named_cache else None
    plan = Plan(gen_length=length, block_length=block, steps=None)
    if kept is not None:
        plan = ServedPlan(gen_length=length, block_length=block, steps=None, cache=kept, stop=())
    shown = (
        name
        + ("" if block == length else f", block {block}")
        + ("" if kept is None else f", {named_cache} cache")
    )
    labelled: dict[int | None, str | None] = {}
    if sampler.capabilities.plan == "adaptive":
        labelled[None] = None
    elif way.steps and request.tokens_per_step is None:
        labelled |= {steps: f"{length / steps:g}" for steps in way.steps}
    else:
        for rate in rates:
            each = 1 if rate == "all" else max(1, math.ceil(block / float(rate)))
            steps = each * max(1, length // block)
            labelled.setdefault(steps, "all" if each == 1 else f"{length / steps:g}")
    if not labelled:
        yield Skip(f"{name} for {task.name}", "the suite says no number of steps; give --tokens-per-step")
    for steps, label in labelled.items():
        planned = dataclasses.replace(plan, steps=steps)
        try:
            check(sampler, model.recipe.process, planned)
        except ValueError as error:
            yield Skip(f"{name} at {label} tokens per step" if label else name, str(error))
            continue
        yield Cell(task, Ask(sampler, planned, seed, request.limit), shown, label)


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
    block_length: int | None = None,
    cache: str | None = None,
    out: Path | None = None,
    batch: int | None = None,
    corpus: str | None = None,
) -> list[Record]:
    """Score a model and return its records; the same as `python -m repro.evals`, from a notebook."""
    model = ckpt if isinstance(ckpt, Model) else load(ckpt)
    request = Request(
        samplers,
        tasks,
        tokens_per_step,
        seeds,
        limit,
        samples,
        suite,
        block_length,
        cache,
        out,
        batch=batch,
        corpus=corpus,
    )
    grid = prepare(model, request)
    return grid.ordered(record for record, _ in grid.run())


@dataclass(frozen=True)
class Request:
    """What a person asks for; None leaves the choice to the suite (`suite` itself: to the recipe)."""

    samplers: Sequence[str] = ("all",)
    tasks: Sequence[str] | None = None
    tokens_per_step: Sequence[TokensPerStep] | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    samples: int | None = None
    """Exactly so many samples of every task that counts them; `most_samples`: at most."""
    suite: str | None = None
    block_length: int | None = None
    cache: str | None = None
    """`prefix`, `dual` or `dual:refresh=4`; None: everything is forwarded at every step."""
    out: Path | None = None
    """Records go to OUT/raw; None: beside the checkpoint."""
    estimator: str | None = None
    """What likelihoods of lm-eval's tasks are estimated by; None: as the suite says, else the process's default."""
    shots: int | None = None
    template: Template | None = None
    """Few-shot examples and chat template of lm-eval's tasks; None: as the task says, and where the data has one."""
    batch: int | None = None
    """Rows that go through the network together, at most; None: what suits the task. No answer depends on it."""
    most_samples: int | None = None
    corpus: str | None = None
    """A corpus of a person's own (`repro.evals.perplexity.corpora`); `tasks` then say how it is cut."""


@dataclass(frozen=True)
class Prepared:
    """A grid ready to be asked: its cells, what is skipped, and where records go."""

    model: Model
    suite: Suite
    cells: list[Cell]
    skipped: list[Skip]
    store: Store
    batch: int | None

    def run(self) -> Iterator[tuple[Record, bool]]:
        """Records as they come, and whether each was made here."""
        return run_grid(self.model, self.suite, self.cells, self.store, self.batch)

    def ordered(self, records: Iterable[Record]) -> list[Record]:
        """Records of this grid in the order of its questions."""
        place = {question(self.model, cell).id: number for number, cell in enumerate(self.cells)}
        return sorted(records, key=lambda record: place[record.id])


def laid_out(
    model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> tuple[Suite, list[Cell], list[Skip]]:
    """The suite as it is asked, its questions in order, and what is skipped, `reason` saying why a task is (None: it is
    not). ValueError for what cannot be asked or would have no effect."""
    if request.cache is not None:
        cache(request.cache)
    twice = [seed for seed, times in Counter(request.seeds).items() if times > 1]
    if twice:
        raise ValueError(f"seed {twice[0]} is given twice; give it once")
    if request.corpus is not None and request.suite is not None:
        raise ValueError(
            f"suite {request.suite!r} has no effect on a corpus of your own; leave it out, and say how with tasks"
        )
    chosen = read_suite(request.suite or model.recipe.suite)
    if request.corpus is not None:
        ways = [None] if request.tasks is None else request.tasks
        own: list[Task] = [scored(request.corpus, way, model.data) for way in ways]
        chosen = dataclasses.replace(chosen, tasks=own)
    elif request.tasks is not None:
        tasks = tasks_by_name(request.tasks, chosen.name, chosen.tasks, model)
        chosen = dataclasses.replace(chosen, tasks=tasks)
    given = TaskOptions(request.estimator, request.shots, request.template)
    chosen = dataclasses.replace(chosen, tasks=given.apply(chosen.tasks, model))
    if not chosen.tasks:
        raise ValueError(
            f"suite {chosen.name!r} holds no task; name some with --tasks, or give another --suite"
        )
    samples = request.most_samples if request.samples is None else request.samples
    given = {
        "samplers": list(request.samplers) != ["all"],
        "tokens per step": request.tokens_per_step is not None,
        "samples": samples is not None,
        "block length": request.block_length is not None,
        "cache": request.cache is not None,
    }
    if not any(task.generates and reason(task, model) is None for task in chosen.tasks):
        for what in [name for name, asked in given.items() if asked]:
            raise ValueError(
                f"{what} given, but no task that is asked here of suite {chosen.name!r} generates"
            )
    if request.tokens_per_step is not None and _all_adaptive(chosen, model, request, reason):
        raise ValueError(
            "tokens per step given, but every sampler asked here is adaptive: it takes as many as it will"
        )
    if samples is not None:
        counted = [t for t in chosen.tasks if "samples" in parts.leaves(t)]
        if not counted:
            raise ValueError(
                f"samples given, but no task of suite {chosen.name!r} counts samples; use a limit"
            )
        if request.samples is None:
            counted = [t for t in counted if parts.leaves(t)["samples"] > samples]
        sampled = [parts.derive(t, {"samples": samples}) if t in counted else t for t in chosen.tasks]
        chosen = dataclasses.replace(chosen, tasks=sampled)
    return chosen, *cells(chosen, model, request, reason)


def _all_adaptive(
    suite: Suite, model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> bool:
    """Whether there are samplers to ask, and none takes a number of steps."""
    tasks = [task for task in suite.tasks if task.generates and reason(task, model) is None]
    ways = [way for task in tasks for way in suite.ways(task.name)]
    names = {name for way in ways for name in chosen_presets(request.samplers, way.presets, model)[0]}
    return bool(names) and all(preset(name).capabilities.plan == "adaptive" for name in names)


def _resolved(asked: list[Cell]) -> tuple[list[Cell], list[Skip]]:
    """Questions with every pin written out, and those whose corpus is out of reach."""
    found: list[Cell] = []
    lost: list[Skip] = []
    for cell in asked:
        try:
            found.append(dataclasses.replace(cell, task=cell.task.resolved()))
        except ConnectionError as error:
            instead = replaced(cell.task.corpus) if isinstance(cell.task, Perplexity) else ""
            lost.append(Skip(f"task {cell.task.name}", f"{error}{instead}"))
    return found, lost


def prepare(model: Model, request: Request) -> Prepared:
    """A request laid out, and the folder that its records go to."""
    chosen, laid, skipped = laid_out(model, request, lambda task, model: task.skip(model))
    found, lost = _resolved(laid)
    if lost and not found:
        raise ConnectionError(lost[0].reason)
    skipped += lost
    if request.corpus is not None and not found:
        raise ValueError(f"{skipped[0].what} cannot be asked: {skipped[0].reason}")
    folder = default_store(model, model.recipe.name) if request.out is None else request.out / "raw"
    os.makedirs(folder, exist_ok=True)
    return Prepared(model, chosen, found, skipped, Store(folder), request.batch)
