"""Factors: settings that `python -m repro.evals --factors` crosses (evaluates in all combinations of their values), so
that their effects can be told apart.

    python -m repro.evals --ckpt CKPT --tasks arc_easy --factors "template=none|chat,batch=1|8,draws=8|64"

Each combination of levels is an ordinary evaluation with a record of its own. The batch size does not enter the id of a
record, because results do not depend on it up to rounding; so with this factor the records of each batch size go to a
folder of their own, and their measurements state the size. `repro.results.factors` has the analysis.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core import parts
from repro.core.files import runs
from repro.evals.factor_levels import FACTORS, Factors, said, shown
from repro.evals.lm.harness import HarnessTask
from repro.evals.lm.lm_tasks import LmTask
from repro.evals.planning import plan as planning
from repro.evals.request import Prepared, Request, default_store, prepare
from repro.evals.runner import Cell, Skip
from repro.hub.release import is_release
from repro.model import Model, Precision

LIMIT = 300
"""Number of items per task where the request has no limit."""
WITHIN = ("steps", "seed")
"""Factors whose levels one request takes together, as a list; each level of any other factor needs a request of its
own."""


@dataclass(frozen=True)
class Combination:
    """One combination of the values (levels) of varied settings (factors), and the `request` that evaluates it.
    `settings`: factor -> its level as text; `precision`: of the weights. The factors steps and seed are not part of a
    combination, since each request covers all of their levels."""

    settings: dict[str, str]
    precision: Precision
    request: Request


def check(ckpt: str, factors: Factors, given: dict[str, bool]) -> None:
    """Raise ValueError for a setting in --factors that a flag also sets to a single value (`given`: setting -> whether
    a flag does), and for the setting precision if the checkpoint `ckpt` has only one precision."""
    for name in factors:
        if given.get(name):
            raise ValueError(
                f"{name} is a factor, and {FACTORS[name].flag} sets it to a single value; leave one of them out"
            )
    folder = Path(ckpt)
    ours = folder.is_dir() and not is_release(folder)
    if "precision" in factors and (ckpt.startswith("oracle:") or ours):
        raise ValueError(
            f"factor precision: {ckpt} holds no released weights, the only ones whose precision can be chosen; leave"
            " precision out of --factors"
        )


def combinations(request: Request, factors: Factors, precision: Precision) -> list[Combination]:
    """The requests that together evaluate all combinations of the values (levels) of the varied settings `factors`,
    those with equal precision of the weights next to each other. Settings that are no factors are as in `request`,
    which gets a limit of 300 items (`LIMIT`) if it has none.

    `precision`: precision of the weights in all requests if precision is no factor. ValueError for a limit of one item.
    """
    if request.limit == 1:
        raise ValueError("limit=1: one item has no variance that factors could explain; give 2 or more")
    outer = {name: factors[name] for name in FACTORS if name in factors and name not in WITHIN}
    request = dataclasses.replace(
        request,
        limit=request.limit or LIMIT,
        tokens_per_step=list(factors["steps"]) if "steps" in factors else request.tokens_per_step,
        seeds=list(factors.get("seed", request.seeds)),
    )
    found = []
    for levels in itertools.product(*outer.values()):
        chosen = dict(zip(outer, levels, strict=True))
        settings = {name: shown(level) for name, level in chosen.items()}
        weights = chosen.pop("precision", precision)
        found.append(Combination(settings, weights, dataclasses.replace(request, **chosen)))
    return found


def folder_of(model: Model) -> Path:
    """Default folder for a model's records of evaluations with factors: runs/factors/NAME, where NAME is the name of
    the model's run folder, or of its recipe if it has none."""
    return runs() / "factors" / default_store(model, model.recipe.name).parent.name


def grids(model: Model, some: Iterable[Combination]) -> list[Prepared]:
    """The grids of evaluations of the combinations `some` for one model, ready to run. Records go to OUT/raw, or to
    OUT/batch-N/raw if the batch size is a factor; OUT is the `out` of a request (default: `folder_of`).

    Raises ValueError, before anything is computed, for an invalid request, a task without a result per item, and
    samplers and steps that cannot all be combined.
    """
    found = []
    for each in some:
        out = each.request.out or folder_of(model)
        if "batch" in each.settings:
            out /= f"batch-{each.settings['batch']}"
        found.append(prepare(model, dataclasses.replace(each.request, out=out)))
    for grid in found:
        check_crossed(grid.cells, grid.skipped)
    return found


def check_crossed(cells: Sequence[Cell], skipped: Sequence[Skip]) -> None:
    """Raise ValueError unless the evaluations `cells` show how each varied setting (factor) changes the accuracy: every
    task gives a result per item (as lm-eval's tasks do) and runs with all combinations of its samplers, steps and
    seeds. `skipped`: evaluations that cannot be run; the message gives the reasons."""
    by_task: dict[str, list[tuple[str | None, str | None, int]]] = {}
    for cell in cells:
        if not isinstance(cell.task, LmTask | HarnessTask):
            raise ValueError(
                f"task {cell.task.name!r} has no result per item, by which --factors compares settings; name lm-eval"
                " tasks with --tasks"
            )
        by_task.setdefault(cell.task.name, []).append((cell.preset, cell.tokens_per_step, cell.ask.seed))
    if not cells:
        raise ValueError(
            f"no evaluation is left to run with factors ({'; '.join(each.reason for each in skipped)}); give other"
            " tasks or samplers"
        )
    for task, places in by_task.items():
        axes = [dict.fromkeys(each) for each in zip(*places, strict=True)]
        missing = [each for each in itertools.product(*axes) if each not in places]
        if missing:
            sampler, steps, _ = missing[0]
            why = next((f" ({each.reason})" for each in skipped if str(sampler) in each.what), "")
            raise ValueError(
                f"task {task!r}: sampler {sampler} does not run at {steps or 'an adaptive number of'} tokens per step,"
                f" at which another sampler runs{why}; give --samplers only those that run at the same tokens per step"
            )


# --- cost -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Priced:
    """Estimated cost of evaluating all combinations of the values (levels) of the settings `factors`: the cost plan of
    each combination (`plans`), the number of `evaluations` (one that several combinations share counts once), their
    `hours`, and the number of evaluations of `unknown` cost, which `hours` leaves out."""

    factors: Factors
    plans: list[tuple[Combination, planning.Plan]]
    evaluations: int
    hours: float
    unknown: int

    @property
    def levels(self) -> int:
        """Number of combinations of the levels of all factors."""
        return len(list(itertools.product(*self.factors.values())))


def price(ckpt: str, some: Sequence[Combination], factors: Factors, device: str) -> Priced:
    """Estimated cost of evaluating the combinations `some` of the values (levels) of the settings `factors`, for the
    checkpoint `ckpt` on the device of this name. Raises ValueError if tasks, samplers and steps cannot all be combined
    (`check_crossed`), and for an unknown checkpoint, suite or device, or a precision that the checkpoint cannot
    have."""
    plans = [(each, planning.plan(ckpt, _untemplated(each.request), device, each.precision)) for each in some]
    once: dict[tuple[Any, ...], float | None] = {}
    for each, plan in plans:
        check_crossed(plan.cells, plan.skipped)
        for cell, line in zip(plan.cells, plan.lines, strict=True):
            asked = each.request
            same = (each.precision, asked.batch, asked.template, parts.digest(cell.task), cell.ask)
            once.setdefault(same, line.hours)
    known = [hours for hours in once.values() if hours is not None]
    return Priced(factors, plans, len(once), sum(known), len(once) - len(known))


def _untemplated(request: Request) -> Request:
    """The request without its choice of chat template: cost plans do not count the few tokens of a template."""
    return dataclasses.replace(request, template=None)


def priced_text(found: Priced) -> Iterator[str]:
    """The estimated cost of all combinations of settings as lines of text: the total, the cost of each, the
    assumptions."""
    plan = found.plans[0][1]
    unknown = f" ({found.unknown} of unknown cost)" if found.unknown else ""
    yield f"{plan.checkpoint}: all combinations of {said(found.factors)}, plan for {plan.device.name}"
    yield (
        f"{found.levels} combinations, {found.evaluations} evaluations{unknown} of at most"
        f" {found.plans[0][0].request.limit} items: {found.hours:.3g} hours"
        + (" at least" if unknown else "")
    )
    for each, plan in found.plans:
        where = " ".join(f"{name}={level}" for name, level in each.settings.items()) or "all"
        yield f"  {where}: {len(plan.lines)} evaluations, {plan.hours:.3g} hours"
    for line in dict.fromkeys(line for _, plan in found.plans for line in planning.assumptions(plan)):
        yield f"assumed: {line}"
    if "template" in found.factors:
        yield "assumed: the tokens of a chat template are not counted"


def priced_data(found: Priced) -> dict[str, Any]:
    """The predicted cost of evaluating all combinations of the factors' levels, as the plain JSON that
    `python -m repro.evals plan --factors ... --json` prints."""
    return {
        "factors": {name: [shown(level) for level in levels] for name, levels in found.factors.items()},
        "combinations": found.levels,
        "evaluations": found.evaluations,
        "of_unknown_cost": found.unknown,
        "hours": found.hours,
        "plans": [{"settings": each.settings, **planning.data(plan)} for each, plan in found.plans],
    }
