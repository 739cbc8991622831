"""What the questions of two records differ in, and what each difference alone is known to do.

    python -m repro.results explain A B [--raw DIR] [--json]

A and B are the start of a hash (id, key, cell or sha256), or labels, CHECKPOINT/TASK[/PRESET[/TOKENS_PER_STEP]]; either
means every record of one cell (all seeds).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from repro.core.errors import nearest
from repro.core.stats import Interval, mean_interval
from repro.results.difference import difference, look, places, without
from repro.results.record import Record, text

LEVEL = 0.95
HEX = 6  # characters of a hash that name a record
WIDTH = 80  # of a value printed; --json has it whole


def select(records: Sequence[Record], name: str) -> list[Record]:
    """The records of the one cell that `name` means; ValueError if it means none, or several (they are listed)."""
    if len(name) >= HEX and all(letter in "0123456789abcdef" for letter in name):
        found = [r for r in records if any(hash.startswith(name) for hash in (r.id, r.key, r.cell, r.sha256))]
    else:
        found = [r for r in records if f"{label(r)}/".startswith(f"{name}/")]
    if not found:
        known = {label(record) for record in records}
        close = nearest(name, known) if len(known) > 1 else f"valid: {', '.join(known) or 'none'}"
        raise ValueError(f"no record is called {name!r}; {close}")
    cells = {record.cell: label(record) for record in found}
    if len(cells) > 1:
        some = ", ".join(f"{said} ({cell[:8]})" for cell, said in list(cells.items())[:4])
        raise ValueError(f"{name!r} means {len(cells)} cells: {some}; say more of the label, or give a hash")
    return found


def label(record: Record) -> str:
    """CHECKPOINT/TASK/PRESET/TOKENS_PER_STEP, as far as given."""
    labels = record.labels
    given = (labels.checkpoint, labels.task, labels.preset, labels.tokens_per_step)
    return "/".join(each for each in given if each is not None)


# --- explain ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Effect:
    """B - A in one metric over pairs that differ in one field alone; `interval` None where one context has one pair.

    A context is a question apart from that field and the seeds; `pairs` of train and sampling seed are averaged within.
    """

    metric: str
    mean: float
    interval: Interval | None
    contexts: int
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Field:
    """A place where two questions differ, its values, and the effects measured elsewhere (empty: none known)."""

    place: str
    a: Any
    b: Any
    effects: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Labels of both, `direct` differences of their metrics (paired by seeds), the fields that differ."""

    a: str
    b: str
    direct: tuple[Effect, ...]
    fields: tuple[Field, ...]


def explain(records: Sequence[Record], a: str, b: str) -> Explanation:
    """How two cells differ, and what other records say of each difference alone."""
    ours, theirs = select(records, a), select(records, b)
    rest = [record for record in records if record.cell not in (ours[0].cell, theirs[0].cell)]
    fields = tuple(
        Field(place=place, a=x, b=y, effects=_effects(rest, place, x, y))
        for place, x, y in places(ours[0].question.subject, theirs[0].question.subject)
    )
    direct = _summed([_paired(ours, theirs)])
    return Explanation(a=label(ours[0]), b=label(theirs[0]), direct=direct, fields=fields)


def _effects(records: Sequence[Record], place: str, a: Any, b: Any) -> tuple[Effect, ...]:
    """Of every context that was asked with both values at `place`."""
    contexts: dict[str, tuple[list[Record], list[Record]]] = {}
    for record in records:
        subject = record.question.subject
        for side, wanted in enumerate((a, b)):
            if difference(look(subject, place), wanted) is None:
                contexts.setdefault(text(without(subject, place)), ([], []))[side].append(record)
    return _summed([_paired(ours, theirs) for ours, theirs in contexts.values() if ours and theirs])


def _paired(ours: Sequence[Record], theirs: Sequence[Record]) -> dict[str, list[float]]:
    """Theirs - ours by metric, over pairs of one train seed, sampling seed and numerics class."""
    mine = {_pair(record): record.answer.metrics for record in ours}
    found: dict[str, list[float]] = {}
    for record in theirs:
        metrics = mine.get(_pair(record), {})
        for name, metric in record.answer.metrics.items():
            if name in metrics:
                found.setdefault(name, []).append(metric.value - metrics[name].value)
    return found


def _pair(record: Record) -> tuple[int, int, str]:
    question = record.question
    return question.checkpoint.seed, question.seed, text(record.measurements.numerics)


def _summed(contexts: Sequence[Mapping[str, Sequence[float]]]) -> tuple[Effect, ...]:
    """One effect a metric: over the means of contexts, or over the pairs of a single one."""
    made = []
    for metric in sorted({name for context in contexts for name in context}):
        groups = [context[metric] for context in contexts if metric in context]
        values = [fmean(group) for group in groups] if len(groups) > 1 else groups[0]
        interval = mean_interval(values, LEVEL) if len(values) > 1 else None
        pairs = sum(map(len, groups))
        made.append(
            Effect(metric=metric, mean=fmean(values), interval=interval, contexts=len(groups), pairs=pairs)
        )
    return tuple(made)


# --- printing -----------------------------------------------------------------------------------------------


def say(found: Explanation) -> Iterator[str]:
    """Line by line."""
    yield f"A {found.a}"
    yield f"B {found.b}"
    for effect in found.direct:
        yield f"B - A, {_said(effect)}"
    if not found.fields:
        yield "their questions differ in seeds and weights only"
    for field in found.fields:
        yield f"{field.place}: {_short(field.a)} -> {_short(field.b)}"
        if not field.effects:
            yield "    effect unknown: no other two records differ in it alone"
        for effect in field.effects:
            yield f"    elsewhere, {_said(effect)}"


def _short(value: Any) -> str:
    said = text(value)
    return said if len(said) <= WIDTH else f"{said[:WIDTH]}..."


def _said(effect: Effect) -> str:
    interval = (
        "one pair" if effect.interval is None else f"[{effect.interval.low:.4g}, {effect.interval.high:.4g}]"
    )
    return (
        f"{effect.metric} {effect.mean:+.4g} {interval} ({effect.pairs} pairs in {effect.contexts} contexts)"
    )
