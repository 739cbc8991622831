"""Requests: a suite's tasks x sampler presets x tokens per step x seeds, laid out as a grid of evaluations.

    prepare(model, Request(samplers=["all"])).run()      -> records

`repro.evals.runner` runs the grid. An evaluation is what a record's `question` describes: checkpoint, task, sampler,
decoding plan (length, block length, steps, KV cache), seed, largest number of items, and protocol. Combinations that
cannot be run are skipped, each with its reason.
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

from repro.core import parts
from repro.core.files import ADAPTERS, runs
from repro.evals.lm.prompts import Template
from repro.evals.lm.task_selection import TaskOptions, tasks_by_name
from repro.evals.perplexity.catalogue import replacement_note
from repro.evals.perplexity.corpora import corpus_task
from repro.evals.perplexity.corpus import Perplexity
from repro.evals.runner import Cell, Skip, question, run_grid
from repro.evals.suites import Plans, Suite, TokensPerStep, check_lists, read_suite
from repro.evals.task import Ask, Task
from repro.model import Model
from repro.results.record import Record
from repro.results.store import Store
from repro.results.tables.text import per_step
from repro.samplers.plan import Plan, ServedPlan, cache, check
from repro.samplers.presets import PRESETS, default_preset, preset

MOST_SAMPLES = 10_000_000
"""Largest number of samples of a task and seed; their ids are held in memory, 8 bytes a token."""


def chosen_presets(
    names: Sequence[str] | None, suite: Sequence[str], model: Model, task: Task, lenient: bool = False
) -> tuple[list[str], list[Skip]]:
    """Names of the sampler presets to run for a task, and those left out with the reason.

    For `names` = None: those of `suite` (the presets of the suite) that fit the model's noise process. For ["all"]:
    every preset of this package that fits, greedy ones at temperature 1 if the task compares distributions. Else all of
    `names`; ValueError if one does not exist or (unless `lenient`) does not fit the noise process.
    """
    noise = model.recipe.process.noise
    everything = names is not None and list(names) == ["all"]
    wanted = [_drawing(name, task) for name in PRESETS] if everything else suite if names is None else names
    fitting, skipped = [], []
    for name in wanted:
        processes = preset(name).capabilities.processes
        if noise in processes:
            fitting.append(name)
        elif wanted is names and not lenient:
            fits = [p for p, r in PRESETS.items() if noise in r.capabilities.processes]
            raise ValueError(
                f"preset {name!r} does not fit this model of {noise} noise; presets that do: {', '.join(fits)}"
            )
        else:
            skipped.append(Skip(name, f"for {' and '.join(sorted(processes))} models, this one is {noise}"))
    return fitting, skipped


def _drawing(name: str, task: Task) -> str:
    """Name of the preset to run for a task: `NAME:temperature=1.0` for a greedy preset NAME and a task that compares
    distributions (and so needs random draws), else `name` itself."""
    greedy = parts.leaves(PRESETS[name]).get("temperature") == 0
    return f"{name}:temperature=1.0" if greedy and task.needs_draws else name


def cells(
    suite: Suite, model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> tuple[list[Cell], list[Skip]]:
    """All evaluations of a request in order, and what is skipped with the reason.

    `reason` returns why a task does not apply to a model (None: it applies). If two presets give the same evaluation,
    it appears once.
    """
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
            presets, unfit = chosen_presets(request.samplers, way.presets, model, task, request.lenient)
            skipped += unfit
            rates = request.tokens_per_step or _rates(suite, model)
            for seed, name in itertools.product(request.seeds, presets):
                for cell in _plans(task, model, name, way, rates, request, seed):
                    if isinstance(cell, Skip):
                        skipped.append(cell)
                    elif cell.ask in asked:
                        same = f"the same evaluation as {asked[cell.ask]}"
                        skipped.append(Skip(f"{name} for {task.name}", same))
                    else:
                        asked[cell.ask] = name
                        found.append(cell)
    return found, list(dict.fromkeys(skipped))


def _rates(suite: Suite, model: Model) -> Sequence[TokensPerStep]:
    """The suite's numbers of tokens per step; for a left-to-right model, which always generates one token per step,
    only the number 1 if that is among them."""
    rates = suite.tokens_per_step
    return [1] if model.recipe.process.causal and 1 in rates else rates


def _plans(
    task: Task,
    model: Model,
    name: str,
    way: Plans,
    rates: Sequence[TokensPerStep],
    request: Request,
    seed: int,
) -> Iterator[Cell | Skip]:
    """The evaluations of the sampler preset `name` under one `[[plans]]` entry of the suite (`way`): one per number of
    steps (of the entry, else from `rates`, numbers of tokens per step), or a single one for an adaptive sampler; a
    Skip, with the reason, where sampler and steps do not fit.

    The label `tokens_per_step` is the rate that results from rounding the number of steps up: 32 tokens at 5 per step
    take 7 steps, 4.57143 tokens per step.
    """
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
        yield Skip(f"{name} for {task.name}", "the suite sets no number of steps; give --tokens-per-step")
    for steps, label in labelled.items():
        planned = dataclasses.replace(plan, steps=steps)
        try:
            check(sampler, model.recipe.process, planned)
        except ValueError as error:
            yield Skip(f"{name} at {per_step(label)}" if label else name, str(error))
            continue
        yield Cell(task, Ask(sampler, planned, seed, request.limit), shown, label)


def default_store(model: Model, name: str) -> Path:
    """Default folder for a model's records: `raw` in the run folder of its checkpoint; for an exact model (oracle),
    released weights or adapters runs/NAME/raw, where NAME is `name` with "_" in place of ":"."""
    own = model.folder is not None and not model.folder.resolve().is_relative_to(ADAPTERS.resolve())
    folder = model.folder.parent if own else runs() / name.replace(":", "_")
    return folder / "raw"


@dataclass(frozen=True)
class Request:
    """What to evaluate a model on; None in a field leaves the choice to the suite (`suite` None: the recipe's suite).

    `samplers`: names of presets, or "all"; `tasks`: names; `tokens_per_step`: numbers or "all"; `seeds`: of sampling;
    `limit`: largest number of items per task; `block_length`: tokens per block. The docstrings below have the rest.
    """

    samplers: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    tokens_per_step: Sequence[TokensPerStep] | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    samples: int | None = None
    """Number of samples for every task that draws samples; None: the task's, but at most `most_samples`."""
    suite: str | None = None
    block_length: int | None = None
    cache: str | None = None
    """KV cache: `prefix`, `dual` or `dual:refresh=4`; None: the suite's, by default none."""
    out: Path | None = None
    """Folder under which records are stored, in OUT/raw; None: `default_store`."""
    estimator: str | None = None
    """Likelihood estimator for lm-eval tasks; None: the suite's, else the default of the noise process."""
    shots: int | None = None
    template: Template | None = None
    """Whether prompts of lm-eval tasks are formatted with the chat template of the model's data ("chat") or not
    ("none"); None: the suite's setting; for tasks of no suite, "chat" if there is a template. `shots`: number of
    few-shot examples; None: the task's."""
    draws: int | None = None
    """Number of draws of the likelihood estimator of lm-eval tasks; None: the estimator's."""
    batch: int | None = None
    """Largest number of rows in one forward; None: what fits the GPU's memory, on a CPU the task's default. Results do
    not depend on it."""
    most_samples: int | None = None
    corpus: str | None = None
    """The user's own text, as `--corpus` takes it (`repro.evals.perplexity.corpora`); `tasks` then names packings (ways
    to cut it into rows)."""
    lenient: bool = False
    """Whether a preset of `samplers` that does not fit the model's noise process is skipped; else it is an error. For
    requests that several models share."""

    def __post_init__(self) -> None:
        check_lists(self.samplers, self.tokens_per_step, self.seeds)
        for name in ("limit", "samples", "batch", "block_length", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is too small; give 1 or more")
        if self.samples is not None and self.samples > MOST_SAMPLES:
            raise ValueError(
                f"samples={self.samples} is more than {MOST_SAMPLES}, the most that are held in memory at once; give"
                " fewer, or several seeds"
            )


@dataclass(frozen=True)
class Prepared:
    """A grid of evaluations ready to run (`cells`), what is skipped, and where records are stored (`store`). `batch`:
    largest number of rows in one forward (None: what fits the memory); `others`: names of the sampler presets that fit
    the model and that no evaluation uses, [] if the request names its samplers."""

    model: Model
    suite: Suite
    cells: list[Cell]
    skipped: list[Skip]
    store: Store
    batch: int | None
    others: list[str]

    def run(
        self, chunk: Callable[[Cell, int, int], None] = lambda cell, done, count: None
    ) -> Iterator[tuple[Record, bool]]:
        """Yield each record as soon as it exists, and whether this process wrote it. `chunk(cell, done, count)` is
        called when `done` of the `count` chunks (separately stored parts) of the evaluation `cell` are finished."""
        return run_grid(self.model, self.suite, self.cells, self.store, self.batch, chunk)

    def ordered(self, records: Iterable[Record]) -> list[Record]:
        """The `records` of these evaluations, sorted in the order of `cells`."""
        place = {question(self.model, cell).id: number for number, cell in enumerate(self.cells)}
        return sorted(records, key=lambda record: place[record.id])


def lay_out(
    model: Model, request: Request, reason: Callable[[Task, Model], str | None]
) -> tuple[Suite, list[Cell], list[Skip]]:
    """The suite with the request's changes, its evaluations in order, and what is skipped with the reason.

    `reason` returns why a task does not apply to a model (None: it applies). Raises ValueError for settings that are
    invalid or would have no effect.
    """
    if request.cache is not None:
        cache(request.cache)
    twice = [seed for seed, times in Counter(request.seeds).items() if times > 1]
    if twice:
        raise ValueError(f"seed {twice[0]} is given twice; give each seed once")
    if request.corpus is not None and request.suite is not None:
        raise ValueError(
            f"suite {request.suite!r} has no effect together with a corpus; leave out --suite (--tasks says how the"
            " corpus is cut into rows)"
        )
    suite = _with_tasks(read_suite(request.suite or model.recipe.suite), model, request)
    samples = request.most_samples if request.samples is None else request.samples
    _check_effects(suite, model, request, samples, reason)
    if samples is not None:
        suite = _with_samples(suite, samples, exactly=request.samples is not None)
    return suite, *cells(suite, model, request, reason)


def _with_tasks(suite: Suite, model: Model, request: Request) -> Suite:
    """The suite with only the tasks that the request names, and with the request's options for lm-eval tasks. A task
    from outside the suite gets one sampler preset, the default for the model's noise process."""
    tasks = suite.tasks
    if request.corpus is not None:
        packings = [None] if request.tasks is None else request.tasks
        tasks = [corpus_task(request.corpus, packing, model.data) for packing in packings]
    elif request.tasks is not None:
        tasks = tasks_by_name(request.tasks, suite.name, suite.tasks, model)
    others = {task.name: task.needs_draws for task in tasks} | {task.name: None for task in suite.tasks}
    noise = model.recipe.process.noise
    presets = {
        name: [default_preset(noise, likely=not draws)] for name, draws in others.items() if draws is not None
    }
    options = TaskOptions(request.estimator, request.shots, request.template, request.draws)
    tasks = options.apply(tasks, model)
    if not tasks:
        raise ValueError(
            f"suite {suite.name!r} holds no task; name some with --tasks, or give another --suite"
        )
    return dataclasses.replace(suite, tasks=tasks, presets=suite.presets | presets)


def _check_effects(
    suite: Suite,
    model: Model,
    request: Request,
    samples: int | None,
    reason: Callable[[Task, Model], str | None],
) -> None:
    """Raise ValueError if the request has settings of generation and no task generates text, or sets tokens per step
    and every sampler is adaptive."""
    given = {
        "samplers": request.samplers is not None,
        "tokens per step": request.tokens_per_step is not None,
        "samples": samples is not None,
        "block length": request.block_length is not None,
        "cache": request.cache is not None,
    }
    what = next((name for name, is_given in given.items() if is_given), None)
    if what and not any(task.generates and reason(task, model) is None for task in suite.tasks):
        raise ValueError(
            f"{what} given, but no task of suite {suite.name!r} that fits this model generates text; leave out {what}"
        )
    if request.tokens_per_step is not None and _all_adaptive(suite, model, request, reason):
        raise ValueError(
            "tokens per step given, but every sampler here is adaptive and chooses its number of steps"
            " itself; leave out tokens per step"
        )


def _with_samples(suite: Suite, samples: int, exactly: bool) -> Suite:
    """The suite with `samples` samples in every task that draws samples; if not `exactly`, a task that draws fewer
    keeps its number. ValueError if no task draws samples."""
    counts = [parts.leaves(task).get("samples") for task in suite.tasks]
    if all(count is None for count in counts):
        raise ValueError(
            f"samples given, but no task of suite {suite.name!r} draws samples; give --limit instead"
        )
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
    """Whether the request runs samplers and all of them are adaptive (choose their number of steps themselves)."""
    tasks = [task for task in suite.tasks if task.generates and reason(task, model) is None]
    ways = [(task, way) for task in tasks for way in suite.ways(task.name)]
    names = {
        name
        for task, way in ways
        for name in chosen_presets(request.samplers, way.presets, model, task, request.lenient)[0]
    }
    return bool(names) and all(preset(name).capabilities.plan == "adaptive" for name in names)


def _resolved(cells: list[Cell]) -> tuple[list[Cell], list[Skip]]:
    """The evaluations, with the settings filled in that only the data source of a task knows, such as a revision on the
    Hub (`Task.resolved`); and the evaluations that are skipped because this source cannot be reached."""
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
    """Grid of evaluations of a request, ready to run; creates the folder of its records.

    Raises ValueError for an invalid request, and ConnectionError if the data of none of its tasks can be reached.
    """
    chosen, laid, skipped = lay_out(model, request, lambda task, model: task.skip(model))
    found, lost = _resolved(laid)
    if lost and not found:
        raise ConnectionError(lost[0].reason)
    skipped += lost
    if request.corpus is not None and not found:
        raise ValueError(f"{skipped[0].what} cannot be run: {skipped[0].reason}")
    folder = default_store(model, model.recipe.name) if request.out is None else request.out / "raw"
    os.makedirs(folder, exist_ok=True)
    others = [] if request.samplers is not None else _others(model, found)
    return Prepared(model, chosen, found, skipped, Store(folder), request.batch, others)


def _others(model: Model, cells: Sequence[Cell]) -> list[str]:
    """Presets that fit the model's noise process and that no evaluation (`cells`) uses; [] if none has a sampler."""
    used = {cell.ask.sampler for cell in cells} - {None}
    noise = model.recipe.process.noise
    fitting = [name for name, rule in PRESETS.items() if noise in rule.capabilities.processes]
    return [name for name in fitting if PRESETS[name] not in used] if used else []
