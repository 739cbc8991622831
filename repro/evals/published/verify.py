"""Compare published numbers (cells) with records, and estimate the cost of those that are not run.

    python -m repro.verify [RAW]                  # folder of records (default results/raw); may be empty
    python -m repro.verify --cell duo.t5.mdlm.1024    # one published number, its cost first
    python -m repro.verify --json
    python -m repro.evals cells duo.t5.mdlm.1024      # run the evaluation that reproduces it

With d = our value - published value, m the margin of the cell (evals/published.toml) and se the standard error of d:

pass             d lies within +-m, by two one-sided tests at 5 % (Schuirmann 1987)
fail             |d| exceeds m, at a family-wise error of 5 % over all cells that could be compared (Holm 1979)
inconclusive     neither
not comparable   no record has all the settings of the published number; the settings that differ are named
not run          no record, or only records of another sampler or plan

Both numbers are computed on the same items, so the choice of items adds no error to d: its standard error is that of
the random draws alone (`_errors`). A share of items fails only if d is also too large for two independent samples of as
many items, because rounding on other hardware changes single answers. A published number that is no share of items is
taken as exact. Exit code 1 if a cell fails, else 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import msgspec

from repro.core.stats import holm, two_sided
from repro.evals.published.cells import Disagreement, PublishedCell, disagreements, stated
from repro.evals.published.matching import another_plan, called, differing, labelled
from repro.evals.published.price import Price, price, shown
from repro.results.difference import difference
from repro.results.record import Metric, Question, Record, text

ALPHA = 0.05
ANSWERS = ("pass", "fail", "inconclusive", "not comparable", "not run")
PERPLEXITY = (
    "perplexity"  # a task; its `draws_error` is the standard error of random draws alone, in nats per token
)
FEW = 8  # disagreements printed; --json prints all of them


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of the comparison of one published number with records: `answer` is one of ANSWERS ("pass", "fail", ...),
    `why` a sentence with the reason. `ours`: our value, the mean over seeds; `se`: standard error of our value minus
    the published one, both on the same items; `p`: p-value, adjusted by Holm, of the hypothesis that the true
    difference is within the margin, as if both values were from independent samples of items; `price`: estimated cost,
    set if the number is not run."""

    cell: PublishedCell
    answer: str
    why: str
    ours: float | None = None
    se: float | None = None
    p: float | None = None
    price: Price | None = None


# --- one cell -----------------------------------------------------------------------------------------------
def verify(cells: Sequence[PublishedCell], records: Sequence[Record]) -> list[Verification]:
    """For each of the published numbers `cells`, in their order, whether `records` agree with it: pass, fail,
    inconclusive, not comparable or not run. p-values are adjusted for the number of cells that could be compared (Holm
    1979)."""
    made = [_answer(cell, records) for cell in cells]
    compared = [i for i, verdict in enumerate(made) if verdict.p is not None]
    for i, p in zip(compared, holm([made[i].p or 0.0 for i in compared]), strict=True):
        made[i] = _decided(replace(made[i], p=p))
    return made


def _answer(cell: PublishedCell, records: Sequence[Record]) -> Verification:
    named = [
        record
        for record in (each for name in cell.of for each in labelled(records, name))
        if cell.task in called(record.question.task, record.labels.task) and _metric(cell, record) is not None
    ]
    if cell.unstated:
        return Verification(
            cell=cell, answer="not comparable", why=f"its source does not state {', '.join(cell.unstated)}"
        )
    if not named:
        return _not_run(cell)
    differences = [(differing(cell, each.question.data(), each.labels.preset), each) for each in named]
    fit = [record for differs, record in differences if not differs]
    if not fit:
        nearest = min(
            (differs for differs, _ in differences), key=lambda each: (not another_plan(each), len(each))
        )
        if another_plan(nearest):
            return _not_run(cell)
        return Verification(cell=cell, answer="not comparable", why="; ".join(nearest.values()))
    fit = next(found for found in (labelled(fit, name) for name in cell.of) if found)
    if len({record.cell for record in fit}) > 1:
        return Verification(
            cell=cell,
            answer="not comparable",
            why=f"two evaluations would answer it: {_first_difference(fit)}",
        )
    runs = {record.id: record for record in fit}.values()  # one per seed, also if two machines evaluated it
    metrics = [metric for record in runs if (metric := _metric(cell, record)) is not None]
    return _compared(cell, metrics, _draws(fit[0].question))


def _metric(cell: PublishedCell, record: Record) -> Metric | None:
    """Metric of a record that is compared with a published number; None if the record does not have it.

    A perplexity is evaluated on the published rows, so its standard error is that of its random draws. Where the
    published number is a bound, an exact value of ours is compared too.
    """
    metrics, exact = record.answer.metrics, cell.metric.removesuffix("_bound")
    if record.question.task.get("part") != PERPLEXITY:
        return metrics.get(cell.metric)
    found, drawn = metrics.get(cell.metric), metrics.get("draws_error")
    if found is None:
        return msgspec.structs.replace(metrics[exact], se=0.0) if exact in metrics else None
    if drawn is None or exact != "ppl":
        return found
    return msgspec.structs.replace(found, se=found.value * drawn.value)


def _not_run(cell: PublishedCell) -> Verification:
    cost = price(cell)
    return Verification(cell=cell, answer="not run", why=cost.say(cell.needs), price=cost)


def _first_difference(records: Sequence[Record]) -> str:
    """Sentence about the first difference between two evaluations among `records`, which all match one published
    number; "rounding differs" if their settings are the same."""
    subjects = {record.cell: record.question.subject for record in records}
    first, other, *_ = subjects.values()
    return difference(first, other) or "rounding differs"


def _draws(question: Question) -> bool:
    """Whether an evaluation, described by the `question` of its record, uses random numbers: false for likelihoods
    without Monte Carlo draws, and for decoding at temperature 0 unless the order of the positions is random."""
    if question.sampler is None:
        return '"draws":' in text(question.task)
    rule = text(question.sampler)
    temperatures = re.findall(r'"temperature":([^,}]+)', rule)
    return '"part":"random"' in rule or not temperatures or any(float(each) for each in temperatures)


def _compared(cell: PublishedCell, metrics: Sequence[Metric], drawn: bool) -> Verification:
    """Result for a published number, not decided yet (`answer` empty), from `metrics`, one per seed: their mean, its
    standard error and the p-value of a difference beyond the margin; "inconclusive" if a metric has no standard error.
    `drawn`: whether the evaluation uses random numbers."""
    ours = fmean(metric.value for metric in metrics)
    errors = [metric.se for metric in metrics if metric.se is not None]
    if len(errors) < len(metrics):
        return Verification(
            cell=cell, answer="inconclusive", why="the record carries no standard error", ours=ours
        )
    same, other = _errors(cell, metrics, math.sqrt(fmean(error**2 for error in errors)), drawn)
    p = beyond(ours - cell.value, other, cell.margin)
    return Verification(cell=cell, answer="", why="", ours=ours, se=same, p=p)


def _errors(cell: PublishedCell, metrics: Sequence[Metric], se: float, drawn: bool) -> tuple[float, float]:
    """(first, second): standard errors of our mean minus the published number if both are measured on the same items,
    and if they are measured on independent samples of items. `metrics`: ours, one per seed; `se`: standard error over
    items of their mean; `drawn`: whether the evaluation uses random numbers.

    More seeds do not reduce the second error, since they share their items. The first is 0 without random draws. With
    draws it follows from the standard deviation s of our values over k >= 2 seeds: a mean of k runs minus one run has
    the standard error s sqrt(1 + 1/k), widened to Student's t. With one seed, or if the numbers of items differ or are
    unknown, the first is unknown, and the second is returned as its upper bound.
    """
    theirs = math.sqrt(cell.value * (1 - cell.value) / cell.items) if cell.items else 0.0
    other, seeds = math.hypot(se, theirs), len(metrics)
    if cell.items == 0 or any(metric.n != cell.items for metric in metrics):
        return other, other
    if not drawn:
        return 0.0, other
    if seeds == 1:
        return other, other
    wide = two_sided(1 - 2 * ALPHA, seeds - 1) / two_sided(1 - 2 * ALPHA, math.inf)
    spread = stdev(metric.value for metric in metrics)
    return min(other, wide * spread * math.sqrt(1 + 1 / seeds)), other


def beyond(d: float, se: float, margin: float) -> float:
    """p-value of the hypothesis that a true difference is at most `margin` in absolute value (two-sided z-test at
    +-margin). `d`: measured difference; `se`: its standard error."""
    from scipy.stats import norm

    if se == 0:
        return 1.0 if abs(d) <= margin else 0.0
    return float(norm.sf((abs(d) - margin) / se) + norm.sf((abs(d) + margin) / se))


def equivalent(d: float, se: float, margin: float) -> bool:
    """Whether a true difference is shown to lie within +-`margin`, by two one-sided tests at level ALPHA (5 %). `d`:
    measured difference; `se`: its standard error."""
    from scipy.stats import norm

    return abs(d) + float(norm.ppf(1 - ALPHA)) * se <= margin


def _decided(verdict: Verification) -> Verification:
    cell, ours, se, p = verdict.cell, verdict.ours, verdict.se, verdict.p
    assert ours is not None and se is not None and p is not None
    d = ours - cell.value
    words = f"ours {ours:.4g}, published {cell.value:.4g}, margin {cell.margin:.2g}, se {se:.2g}"
    if equivalent(d, se, cell.margin):
        return replace(verdict, answer="pass", why=words)
    if p <= ALPHA:
        return replace(verdict, answer="fail", why=f"{words}, p {p:.2g}")
    return replace(verdict, answer="inconclusive", why=f"{words}, p {p:.2g}; evaluate more seeds or rows")


# --- printing -----------------------------------------------------------------------------------------------
def render(verdicts: Sequence[Verification]) -> Iterator[str]:
    """Lines of the summary that `python -m repro.verify` prints: counts of results by table, every cell that was
    compared, and published numbers that share a name but disagree."""
    yield from _counts(verdicts)
    for verdict in verdicts:
        if verdict.ours is not None or (verdict.answer == "not comparable" and not verdict.cell.unstated):
            yield f"{verdict.cell.name}: {verdict.answer}: {verdict.why}"
    disagreeing = disagreements([verdict.cell for verdict in verdicts])
    if disagreeing:
        yield ""
        yield f"one name, several published numbers ({len(disagreeing)} names):"
        for each in disagreeing[:FEW]:
            yield from _disagreement(each)


def _counts(verdicts: Sequence[Verification]) -> Iterator[str]:
    total = Counter(verdict.answer for verdict in verdicts)
    tables: dict[str, list[Verification]] = {}
    for verdict in verdicts:
        tables.setdefault(verdict.cell.table, []).append(verdict)
    for name, members in tables.items():
        counts = Counter(verdict.answer for verdict in members)
        words = ", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS if counts[answer])
        yield f"{name}, {members[0].cell.title}: {words}{_priced(members)}"
    yield f"all {len(verdicts)} cells: " + ", ".join(f"{total[answer]} {answer}" for answer in ANSWERS)


def _priced(verdicts: Sequence[Verification]) -> str:
    """Text " (N of M priced, ...)": of the M published numbers that are not run, N have an estimated cost; then the
    total hours of their runs, of evaluation and of training apart, each run counted once. "" if every number is run."""
    prices = [each.price for each in verdicts if each.price is not None]
    if not prices:
        return ""
    known = [each for each in prices if each.hours is not None]
    words = [f"{len(known)} of {len(prices)} priced"]
    for trained, unit in ((False, "h"), (True, "h of training")):
        hours = {each.run: each.hours or 0.0 for each in known if each.trained is trained}
        words += [f"{shown(sum(hours.values()))} {unit}"] if hours else []
    return f" ({', '.join(words)})"


def _disagreement(each: Disagreement) -> Iterator[str]:
    yield f"  {each.called}:"
    for cell in each.cells:
        places = [place for place in each.fields if place in cell.asked or place in cell.unstated]
        asked = (
            ", ".join(f"{place} {stated(cell, place)}" for place in places)
            or "nothing that the others do not state"
        )
        yield f"    {cell.printed:g}  {cell.name}: {asked}"


def card(verdict: Verification, among: Sequence[Verification]) -> Iterator[str]:
    """Lines that `python -m repro.verify --cell` prints about one published number, its cost first; `among`: the
    results for all published numbers, which show how many others the same run would answer."""
    cell, cells = verdict.cell, [each.cell for each in among]
    cost = verdict.price or price(cell)
    shared = sum(
        each.price is not None and each.price.run == cost.run and each.cell != cell for each in among
    )
    yield f"cost: {cost.say(cell.needs)}" + (f" (the same run answers {shared} more)" if shared else "")
    yield f"{cell.name}: {verdict.answer}: {verdict.why}"
    yield f"published: {cell.printed:g} ({cell.metric}, {cell.title}), {cell.source}, {cell.date}"
    yield f"margin: {cell.margin:.3g}; answered by: {' or '.join(cell.of) or 'nothing in the suite'}, task {cell.task}"
    yield "settings: " + (
        ", ".join(f"{place} = {text(value)}" for place, value in cell.asked.items()) or "nothing"
    )
    for each in disagreements(cells):
        if each.called == cell.called:
            yield "one name, several published numbers:"
            yield from _disagreement(each)
