"""Published numbers against records: pass, fail, inconclusive, not comparable, or not run and at which cost.

    python -m repro.verify [RAW]                  # default results/raw; an empty folder is fine
    python -m repro.verify --cell duo.t5.mdlm.1024    # one cell, its cost first
    python -m repro.verify --json

d = ours - published, m = the cell's margin (evals/published.toml), se = of both together. *pass*: d lies within
+-m, by two one-sided tests at 5 % (Schuirmann 1987). *fail*: |d| exceeds m, at a family-wise 5 % over all cells that
could be compared (Holm 1979). Neither: *inconclusive*. A perplexity is of the rows that were published, so its error
is that of its draws alone; that of the published one is not known. A record is compared only where every field asked
is the published one; else the fields that differ are named. A published number without a count of items is taken as
exact, which its source may not be.
Exit code 1 if a cell fails, else 0.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from repro import parts
from repro.command import Parser, run
from repro.published import FILE, Cell, Disagreement, disagreements, find, read, said
from repro.record import Question, Record, difference, text
from repro.results import RAW, collect
from repro.stats import holm

ALPHA = 0.05
ANSWERS = ("pass", "fail", "inconclusive", "not comparable", "not run")
PERPLEXITY = "perplexity"  # the part whose `draws_error` is the error on the rows at hand
FEW = 8  # runs and disagreements printed; --json has all of them
BUDGETS = (0.5, 2, 6, 24)  # hours


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One cell's answer; `why` says in words what stands behind it. `p`: of a difference beyond the margin, by Holm."""

    cell: Cell
    answer: str
    why: str
    ours: float | None = None
    se: float | None = None
    p: float | None = None


# --- one cell -----------------------------------------------------------------------------------------------


def verify(cells: Sequence[Cell], records: Sequence[Record]) -> list[Verdict]:
    """The verdict on every cell, in order."""
    made = [_answer(cell, records) for cell in cells]
    compared = [i for i, verdict in enumerate(made) if verdict.p is not None]
    for i, p in zip(compared, holm([made[i].p or 0.0 for i in compared]), strict=True):
        made[i] = _judged(replace(made[i], p=p))
    return made


def _answer(cell: Cell, records: Sequence[Record]) -> Verdict:
    named = [
        record
        for record in (each for name in cell.of for each in _labelled(records, name))
        if cell.task in _tasks(record) and _metric(cell, record) is not None
    ]
    if cell.unstated:
        return Verdict(
            cell=cell, answer="not comparable", why=f"its source does not state {', '.join(cell.unstated)}"
        )
    if not named:
        return Verdict(cell=cell, answer="not run", why=cell.cost)
    differing = [(_differing(cell, record), record) for record in named]
    fit = [record for differs, record in differing if not differs]
    if not fit:
        nearest = min((differs for differs, _ in differing), key=len)
        return Verdict(cell=cell, answer="not comparable", why="; ".join(nearest))
    fit = next(found for found in (_labelled(fit, name) for name in cell.of) if found)
    if len({record["cell"] for record in fit}) > 1:
        return Verdict(
            cell=cell, answer="not comparable", why=f"two questions would answer it: {_apart(fit)}"
        )
    return _compared(cell, [metric for record in fit if (metric := _metric(cell, record)) is not None])


def _metric(cell: Cell, record: Record) -> Mapping[str, Any] | None:
    """A record's value of what a cell prints, None without one.

    Perplexities are compared on the rows that were published: of their error only that of the draws counts, and an
    exact value answers where others have a bound.
    """
    metrics, exact = record["answer"]["metrics"], cell.metric.removesuffix("_bound")
    if record["question"]["task"].get("part") != PERPLEXITY:
        return metrics.get(cell.metric)
    found, drawn = metrics.get(cell.metric), metrics.get("draws_error")
    if found is None:
        return None if exact not in metrics else {**metrics[exact], "se": 0.0}
    return found if drawn is None or exact != "ppl" else {**found, "se": found["value"] * drawn["value"]}


def _tasks(record: Record) -> tuple[str, ...]:
    """What a record's task is called: in its suite, in lm-eval (a suite may ask one task at several lengths), and by
    its part (a suite may ask the perplexity of several corpora)."""
    label, asked = record["labels"]["task"], record["question"]["task"]
    return tuple(name for name in (label, asked.get("task"), asked.get("part")) if isinstance(name, str))


def _differing(cell: Cell, record: Record) -> list[str]:
    """`PLACE is OURS, published PUBLISHED` for every place asked that differs; a limited task differs too.

    A preset is compared by the rule that it names: its label also tells blocks and caches, which the plan does.
    """
    found = []
    for place, value in cell.asked.items():
        ours = look(record, place)
        if place == "preset":
            same = record["question"]["sampler"] == _rule(str(value))
        else:
            same = ours is not None and difference(ours, value) is None
        if not same:
            words = "not said" if ours is None else text(ours)
            found.append(f"{place} is {words}, published {text(value)}")
    if record["question"]["limit"] is not None:
        found.append(f"limit is {record['question']['limit']}, published whole")
    return found


@lru_cache
def _rule(name: str) -> dict[str, Any]:
    """The canonical form of a preset's rule."""
    from repro.samplers.presets import preset

    return parts.canonical(preset(name))


def look(record: Record, place: str) -> Any:
    """What a record says at a dotted place of its question (`preset`: of its labels); None if nothing."""
    value: Any = record["labels"] if place == "preset" else record["question"]
    for name in place.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _labelled(records: Sequence[Record], name: str) -> list[Record]:
    """Records of a checkpoint or recipe; a released one `lab/NAME` is labelled by its folder, NAME."""
    wanted = {name, name.rpartition("/")[2]}
    return [
        record for record in records if wanted & {record["labels"][each] for each in ("checkpoint", "recipe")}
    ]


def _apart(records: Sequence[Record]) -> str:
    """The first place where the questions of two cells differ."""
    subjects = {record["cell"]: Question.read(record["question"]).subject for record in records}
    first, other, *_ = subjects.values()
    return difference(first, other) or "rounding differs"


def _compared(cell: Cell, metrics: Sequence[Mapping[str, Any]]) -> Verdict:
    """Ours: mean over seeds. Its standard error is not divided by their number: seeds share the rows evaluated."""
    ours = fmean(metric["value"] for metric in metrics)
    errors = [metric["se"] for metric in metrics]
    if any(error is None for error in errors):
        return Verdict(
            cell=cell, answer="inconclusive", why="the record carries no standard error", ours=ours
        )
    theirs = math.sqrt(cell.value * (1 - cell.value) / cell.items) if cell.items else 0.0
    se = math.hypot(math.sqrt(fmean(error**2 for error in errors)), theirs)
    return Verdict(
        cell=cell, answer="", why="", ours=ours, se=se, p=beyond(ours - cell.value, se, cell.margin)
    )


def beyond(d: float, se: float, margin: float) -> float:
    """p-value of "the true difference is at most `margin`" (a shifted two-sided z-test at its worst case)."""
    from scipy.stats import norm

    if se == 0:
        return 1.0 if abs(d) <= margin else 0.0
    return float(norm.sf((abs(d) - margin) / se) + norm.sf((abs(d) + margin) / se))


def equivalent(d: float, se: float, margin: float) -> bool:
    """Two one-sided tests: is the true difference within +-`margin`, at ALPHA?"""
    from scipy.stats import norm

    return abs(d) + float(norm.ppf(1 - ALPHA)) * se <= margin


def _judged(verdict: Verdict) -> Verdict:
    cell, ours, se, p = verdict.cell, verdict.ours, verdict.se, verdict.p
    assert ours is not None and se is not None and p is not None
    d = ours - cell.value
    words = f"ours {ours:.4g}, published {cell.value:.4g}, margin {cell.margin:.2g}, se {se:.2g}"
    if equivalent(d, se, cell.margin):
        return replace(verdict, answer="pass", why=words)
    if p <= ALPHA:
        return replace(verdict, answer="fail", why=f"{words}, p {p:.2g}")
    return replace(verdict, answer="inconclusive", why=f"{words}, p {p:.2g}; more rows would tell")


# --- all of them --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run worth making: its cells that nothing answers yet, its hours, both summed with the runs before it."""

    run: str
    needs: str
    cells: tuple[str, ...]
    hours: float
    cells_so_far: int
    hours_so_far: float


def cheapest(verdicts: Iterable[Verdict]) -> list[Step]:
    """Runs of known cost, most cells an hour first."""
    runs: dict[str, list[Cell]] = {}
    for verdict in verdicts:
        if verdict.answer == "not run" and verdict.cell.hours is not None:
            runs.setdefault(verdict.cell.run, []).append(verdict.cell)
    order = sorted(runs, key=lambda name: ((runs[name][0].hours or 0.0) / len(runs[name]), name))
    steps, count, spent = [], 0, 0.0
    for name in order:
        members, hours = runs[name], runs[name][0].hours or 0.0
        count, spent = count + len(members), spent + hours
        steps.append(
            Step(
                run=name,
                needs=members[0].needs,
                cells=tuple(cell.name for cell in members),
                hours=hours,
                cells_so_far=count,
                hours_so_far=spent,
            )
        )
    return steps


# --- printing -----------------------------------------------------------------------------------------------


def render(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The summary, line by line: counts by table, every cell that was compared, cheapest runs, disagreements."""
    yield from _counts(verdicts)
    for verdict in verdicts:
        if verdict.ours is not None or (verdict.answer == "not comparable" and not verdict.cell.unstated):
            yield f"{verdict.cell.name}: {verdict.answer}: {verdict.why}"
    steps = cheapest(verdicts)
    if steps:
        yield ""
        yield f"most cells for the fewest hours (estimates; {len(steps)} runs, all {steps[-1].hours_so_far:.3g} h):"
        for budget in BUDGETS:
            within = [step for step in steps if step.hours_so_far <= budget]
            if within:
                yield f"  within {budget:g} h: {within[-1].cells_so_far} cells by {len(within)} runs"
        for step in steps[:FEW]:
            yield (
                f"  {step.cells_so_far:3d} cells {step.hours_so_far:7.2g} h  {step.run} "
                f"(+{len(step.cells)} for {step.hours:.2g} h): {step.needs}"
            )
    apart = disagreements([verdict.cell for verdict in verdicts])
    if apart:
        yield ""
        yield f"one name, several published numbers ({len(apart)} names):"
        for each in apart[:FEW]:
            yield from _disagreement(each)


def _counts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    total = Counter(verdict.answer for verdict in verdicts)
    tables: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        tables.setdefault(verdict.cell.table, []).append(verdict)
    for name, members in tables.items():
        counts = Counter(verdict.answer for verdict in members)
        known = {v.cell.run: v.cell.hours for v in members if v.answer == "not run"}
        hours = [each for each in known.values() if each is not None]
        words = ", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS if counts[answer])
        price = f" ({len(hours)} of {len(known)} runs estimated, {sum(hours):.2g} h)" if known else ""
        yield f"{name}, {members[0].cell.title}: {words}{price}"
    yield f"all {len(verdicts)} cells: " + ", ".join(f"{total[answer]} {answer}" for answer in ANSWERS)


def _disagreement(each: Disagreement) -> Iterator[str]:
    yield f"  {each.called}:"
    for cell in each.cells:
        places = [place for place in each.fields if place in cell.asked or place in cell.unstated]
        asked = (
            ", ".join(f"{place} {said(cell, place)}" for place in places) or "nothing that the others do not"
        )
        yield f"    {cell.printed:g}  {cell.name}: {asked}"


def card(verdict: Verdict, cells: Sequence[Cell]) -> Iterator[str]:
    """One cell, line by line, its cost first."""
    cell = verdict.cell
    shared = sum(other.run == cell.run for other in cells) - 1
    yield f"cost: {cell.cost}" + (f" (the same run answers {shared} more)" if shared else "")
    yield f"{cell.name}: {verdict.answer}: {verdict.why}"
    yield f"published: {cell.printed:g} ({cell.metric}, {cell.title}), {cell.source}, {cell.date}"
    yield f"margin: {cell.margin:.3g}; answered by: {' or '.join(cell.of) or 'nothing in the suite'}, task {cell.task}"
    yield "asked: " + (
        ", ".join(f"{place} = {text(value)}" for place, value in cell.asked.items()) or "nothing"
    )
    for each in disagreements(cells):
        if each.called == cell.called:
            yield "one name, several published numbers:"
            yield from _disagreement(each)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if a cell fails, else 0."""
    parser = Parser(prog="repro.verify", description="Do our records answer the published numbers?")
    parser.add_argument(
        "raw", nargs="?", type=Path, default=RAW, help="folder of records (default results/raw)"
    )
    parser.add_argument("--cell", help="one cell, its cost first, for example duo.t5.mdlm.1024")
    parser.add_argument(
        "--published", type=Path, default=FILE, help="the numbers (default evals/published.toml)"
    )
    parser.add_argument("--json", action="store_true", help="print every verdict as JSON")
    arguments = parser.parse_args(argv)
    cells = read(arguments.published)
    chosen = None if arguments.cell is None else find(cells, arguments.cell)
    verdicts = verify(cells, collect(arguments.raw))
    if chosen is not None:
        verdicts = [verdict for verdict in verdicts if verdict.cell == chosen]
    if arguments.json:
        data = {
            "cells": [asdict(verdict) for verdict in verdicts],
            "cheapest": [asdict(step) for step in cheapest(verdicts)],
            "disagreements": [
                {"called": each.called, "cells": [cell.name for cell in each.cells], "fields": each.fields}
                for each in disagreements(cells)
                if chosen is None or each.called == chosen.called
            ],
        }
        print(json.dumps(data, indent=1))
    else:
        print("\n".join(render(verdicts) if chosen is None else card(verdicts[0], cells)))
    return 1 if any(verdict.answer == "fail" for verdict in verdicts) else 0


if __name__ == "__main__":
    run(main, "repro.verify")
