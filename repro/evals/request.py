"""Requests: tasks of a suite x presets x tokens per step x seeds, as a grid of questions for `repro.evals.runner`.

    score("runs/mdlm@nano-s0", samplers=["all"])      -> list of records

Combinations that cannot be run are skipped, each with its reason.
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
from repro.evals.perplexity.catalogue import replacement_note
from repro.evals.perplexity.corpora import corpus_task
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
    """Presets by name, and skips. `all`: those of `everything` that fit the process, the others skipped with a reason.

    Raises ValueError for a named preset that does not fit.
    """
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
    """All questions of a grid in order, and skips; `reason` says why a task does not apply (None: it does). A question
    that two presets share appears once."""
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
    """The questions of one preset with one plan of the suite: one for each number of steps, or one for an adaptive
    sampler. The label is the planned rate, since steps are whole numbers: 32 tokens at 5 a step take 7 steps of
    4.57143."""
    sampler, length = preset(name), task.gen_length(model)
    block = request.block_length or way.block_length or model.denoiser.required_block_size or length
    named_cache = request.cache or way.cache
    plan = Plan(gen_length=length, block_length=block, steps=None)
    shown = name if block == length else f"{name}, block {block}"
    if named_cache:
        kv_cache = cache(named_cache)
        plan = ServedPlan(gen_length=length, block_length=block, steps=None, cache=kv_cache, stop=())
        shown += f", {named_cache} cache"
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
        yield Skip(f"{name} for {task.name}", "the suite has no number of steps; give --tokens-per-step")
    for steps, label in labelled.items():
        planned = dataclasses.replace(plan, steps=steps)
        try:
            check(sampler, model.recipe.process, planned)
        except ValueError as error:
            yield Skip(f"{name} at {label} tokens per step" if label else name, str(error))
            continue
        yield Cell(task, Ask(sampler, planned, seed, request.limit), shown, label)


def default_store(model: Model, name: str) -> Path:
    """The folder of records: raw in the run folder of a checkpoint, or in runs/NAME for an oracle or a release."""
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
    """Score a model and return its records, as `python -m repro.evals` does; the arguments are those of `Request`."""
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
    """What to evaluate; None leaves the choice to the suite (`suite` itself: to the recipe)."""

    samplers: Sequence[str] = ("all",)
    tasks: Sequence[str] | None = None
    tokens_per_step: Sequence[TokensPerStep] | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    samples: int | None = None
    """Number of samples of every task that has one; `most_samples` is an upper bound."""
    suite: str | None = None
    block_length: int | None = None
    cache: str | None = None
    """`prefix`, `dual` or `dual:refresh=4`; None: every step forwards the whole sequence."""
    out: Path | None = None
    """Records go to OUT/raw; None: `default_store`."""
    estimator: str | None = None
    """Likelihood estimator of lm-eval's tasks; None: the suite's, else the process's default."""
    shots: int | None = None
    template: Template | None = None
    """Few-shot examples and chat template of lm-eval's tasks; None: the task's, and a template if the data has one."""
    batch: int | None = None
    """Most rows of a forward; None: the task's default. Answers do not depend on it."""
    most_samples: int | None = None
    corpus: str | None = None
    """The user's own text (`repro.evals.perplexity.corpora`); `tasks` then name its packing."""


@dataclass(frozen=True)
class Prepared:
    """A grid ready to run: its cells, what is skipped, and where records go."""

    model: Model
    suite: Suite
    cells: list[Cell]
    skipped: list[Skip]
    store: Store
    batch: int | None

    def run(self) -> Iterator[tuple[Record, bool]]:
        """Yield records as they come, and whether this process wrote each."""
        return run_grid(self.model, self.suite, self.cells, self.store, self.batch)

    def ordered(self, records: Iterable[Record]) -> list[Record]:
        """Records of this grid in the order of its questions."""
        place = {question(self.model, cell).id: number for number, cell in enumerate(self.cells)}
        return sorted(records, key=lambda record: place[record.id])


def lay_out(
    model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> tuple[Suite, list[Cell], list[Skip]]:
    """The suite with the request's changes, its questions in order, and skips; `reason` says why a task does not apply
    (None: it does).

    Raises ValueError for settings that cannot be met or would have no effect.
    """
    if request.cache is not None:
        cache(request.cache)
    twice = [seed for seed, times in Counter(request.seeds).items() if times > 1]
    if twice:
        raise ValueError(f"seed {twice[0]} is given twice; give it once")
    if request.corpus is not None and request.suite is not None:
        raise ValueError(
            f"suite {request.suite!r} has no effect on a corpus of your own; leave it out, and name a packing as task"
        )
    suite = _with_tasks(read_suite(request.suite or model.recipe.suite), model, request)
    samples = request.most_samples if request.samples is None else request.samples
    _check_effects(suite, model, request, samples, reason)
    if samples is not None:
        suite = _with_samples(suite, samples, exactly=request.samples is not None)
    return suite, *cells(suite, model, request, reason)


def _with_tasks(suite: Suite, model: Model, request: Request) -> Suite:
    """The suite with the tasks that the request names, and its options for lm-eval's tasks."""
    tasks = suite.tasks
    if request.corpus is not None:
        packings = [None] if request.tasks is None else request.tasks
        tasks = [corpus_task(request.corpus, packing, model.data) for packing in packings]
    elif request.tasks is not None:
        tasks = tasks_by_name(request.tasks, suite.name, suite.tasks, model)
    options = TaskOptions(request.estimator, request.shots, request.template)
    tasks = options.apply(tasks, model)
    if not tasks:
        raise ValueError(
            f"suite {suite.name!r} holds no task; name some with --tasks, or give another --suite"
        )
    return dataclasses.replace(suite, tasks=tasks)


def _check_effects(
    suite: Suite,
    model: Model,
    request: Request,
    samples: int | None,
    reason: Callable[[Task, Model], str | None],
) -> None:
    """ValueError for settings of generation if nothing is generated, or if every sampler ignores them."""
    given = {
        "samplers": list(request.samplers) != ["all"],
        "tokens per step": request.tokens_per_step is not None,
        "samples": samples is not None,
        "block length": request.block_length is not None,
        "cache": request.cache is not None,
    }
    what = next((name for name, is_given in given.items() if is_given), None)
    if what and not any(task.generates and reason(task, model) is None for task in suite.tasks):
        raise ValueError(f"{what} given, but no task of suite {suite.name!r} that applies here generates")
    if request.tokens_per_step is not None and _all_adaptive(suite, model, request, reason):
        raise ValueError("tokens per step given, but every sampler here is adaptive and chooses them itself")


def _with_samples(suite: Suite, samples: int, exactly: bool) -> Suite:
    """The suite with `samples` samples in every task that counts them, or at most that many."""
    counts = [parts.leaves(task).get("samples") for task in suite.tasks]
    if all(count is None for count in counts):
        raise ValueError(f"samples given, but no task of suite {suite.name!r} counts samples; use a limit")
    tasks = [
        task
        if count is None or (not exactly and count <= samples)
        else parts.derive(task, {"samples": samples})
        for task, count in zip(suite.tasks, counts, strict=True)
    ]
    return dataclasses.replace(suite, tasks=tasks)


def _all_adaptive(
    suite: Suite, model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> bool:
    """Whether there are samplers and none takes a number of steps."""
    tasks = [task for task in suite.tasks if task.generates and reason(task, model) is None]
    ways = [way for task in tasks for way in suite.ways(task.name)]
    names = {name for way in ways for name in chosen_presets(request.samplers, way.presets, model)[0]}
    return bool(names) and all(preset(name).capabilities.plan == "adaptive" for name in names)


def _resolved(cells: list[Cell]) -> tuple[list[Cell], list[Skip]]:
    """Questions with every pin resolved, and skips of those whose corpus cannot be reached."""
    found: list[Cell] = []
    lost: list[Skip] = []
    for cell in cells:
        try:
            found.append(dataclasses.replace(cell, task=cell.task.resolved()))
        except ConnectionError as error:
            instead = replacement_note(cell.task.corpus) if isinstance(cell.task, Perplexity) else ""
            lost.append(Skip(f"task {cell.task.name}", f"{error}{instead}"))
    return found, lost


def prepare(model: Model, request: Request) -> Prepared:
    """The grid of a request; makes the folder of its records. ConnectionError if no corpus can be reached."""
    chosen, laid, skipped = lay_out(model, request, lambda task, model: task.skip(model))
    found, lost = _resolved(laid)
    if lost and not found:
        raise ConnectionError(lost[0].reason)
    skipped += lost
    if request.corpus is not None and not found:
        raise ValueError(f"{skipped[0].what} cannot be run: {skipped[0].reason}")
    folder = default_store(model, model.recipe.name) if request.out is None else request.out / "raw"
    os.makedirs(folder, exist_ok=True)
    return Prepared(model, chosen, found, skipped, Store(folder), request.batch)
