"""Crossed evaluations: one task and checkpoint under every combination of the levels of some settings (factors), with
the outcome of each item.

    for crossing in crossings(stored(Path("runs/factors/NAME"))):
        crossing.outcomes        # [items, levels of the first factor, levels of the second factor, ...]

The design is read from the records: a factor is one of the settings in SETTINGS (chat template, number of shots,
precision, batch size, draws, sampler, steps, seed) that has several levels among the records of one task and
checkpoint. All other settings must be equal, and no combination of the levels may be missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.results.difference import difference, look, without
from repro.results.flips import Items, outcomes_of, read_items
from repro.results.record import Record, text
from repro.results.store import items_file, read, record_files

if TYPE_CHECKING:
    import numpy as np

NAMED = 6
"""Largest number of missing combinations that a message names."""
AGAIN = "run the same command of repro.evals again, which computes what is missing, or give another folder"
Level = str


def _of_task(name: str) -> Callable[[Record], Level | None]:
    """A function that returns the level (value as text) that the setting `name`, such as `shots`, of a record's lm-eval
    task has; None if the task has no such setting."""

    def level(record: Record) -> Level | None:
        task = record.question.task
        task = task.get("of", task)
        if name not in task:
            return None
        return "default" if task[name] is None else str(task[name])

    return level


def _batch(record: Record) -> Level:
    batch = record.measurements.batch
    return str(batch) if batch else "default"


def _draws(record: Record) -> Level | None:
    found = look(record.question.task, "estimator.draws") or look(
        record.question.task, "estimator.rule.draws"
    )
    return None if found is None else str(found)


def _steps(record: Record) -> Level | None:
    adaptive = None if record.question.sampler is None else "adaptive"
    return record.labels.tokens_per_step or adaptive


SETTINGS: dict[str, Callable[[Record], Level | None]] = {
    "template": _of_task("template"),
    "shots": _of_task("shots"),
    "precision": lambda record: record.measurements.numerics.dtype,
    "batch": _batch,
    "draws": _draws,
    "sampler": lambda record: record.labels.preset,
    "steps": _steps,
    "seed": lambda record: str(record.question.seed),
}
"""Setting -> its level in a record (None: the evaluation has no such setting). `template`: chat template; `shots`:
number of few-shot examples; `precision`: of the weights; `batch`: rows of one forward; `draws`: of the likelihood
estimator; `sampler`: preset; `steps`: tokens per step; `seed`: of sampling."""
_PLACES = (
    *("seed", "sampler", "plan.steps", "protocol.overridden", "protocol.weights_precision"),
    *("task.template", "task.shots", "task.of.template", "task.of.shots"),
    *("task.estimator.draws", "task.estimator.rule.draws"),
)
"""Dotted paths of the SETTINGS in a record's question; at all other paths the records of a crossing must be equal."""


@dataclass(frozen=True)
class Stored:
    """A record, and the path of the file of its per-item results (`items`), which may be missing if the record itself
    holds the outcome of each item."""

    record: Record
    items: Path

    def read(self) -> Items:
        """The per-item results of the record, from the file or else from its outcomes; ValueError if it has neither."""
        if self.items.is_file():
            return read_items(self.items)
        if not self.record.answer.outcomes:
            raise ValueError(
                f"no items of {_label(self.record)}: {self.items} is missing; factors need the outcome of each item,"
                " which lm-eval tasks store: give a folder with records of such tasks"
            )
        return outcomes_of(self.record)


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The outcomes (0 or 1, in `metric` under the answer filter `filter`) of one task and checkpoint in every
    combination of the levels of its factors: an array [items, levels of the first factor, ...]. `fixed`: level of each
    setting that was not varied."""

    checkpoint: str
    task: str
    metric: str
    filter: str
    factors: dict[str, tuple[Level, ...]]
    fixed: dict[str, Level]
    outcomes: np.ndarray


def stored(folder: Path) -> list[Stored]:
    """All records of a folder with the paths of their per-item results; ValueError at an invalid line."""
    return [
        Stored(record, items_file(path.parent, record))
        for path in record_files(folder)
        for record in read(path)
    ]


def crossings(entries: Iterable[Stored]) -> Iterator[Crossing]:
    """The crossings (outcomes under all combinations of levels) among records: for each checkpoint and task that was
    evaluated with several levels of a setting, one for each answer filter and each metric that is 0 or 1 for every
    item.

    ValueError if no setting has several levels, if a combination of levels is missing (the message names it) or stored
    twice, and if the records differ in another setting or in their documents.
    """
    groups: dict[tuple[str, str], list[Stored]] = {}
    for entry in entries:
        question = entry.record.question
        groups.setdefault((text(question.checkpoint), entry.record.labels.task), []).append(entry)
    found = 0
    for group in groups.values():
        factors, fixed = _levels([entry.record for entry in group])
        if factors:
            found += 1
            yield from _crossing(group, factors, fixed)
    if not found:
        raise ValueError(
            "no task of a checkpoint in this folder was evaluated under several levels of a setting; run"
            " `python -m repro.evals --ckpt CKPT --tasks NAME --factors template,batch` first"
        )


def _label(record: Record) -> str:
    return f"{record.labels.task} of {record.labels.marked(record.labels.checkpoint)}"


def _levels(records: Sequence[Record]) -> tuple[dict[str, tuple[Level, ...]], dict[str, Level]]:
    """Two dictionaries by setting: the levels of each setting that varies, sorted if all are numbers, else in the order
    of the records; and the level of each other setting."""
    factors, fixed = {}, {}
    for name, level in SETTINGS.items():
        seen = {found: None for record in records if (found := level(record)) is not None}
        numbers = all(each.replace(".", "", 1).isdigit() for each in seen)
        levels = tuple(sorted(seen, key=float)) if numbers else tuple(seen)
        if len(levels) > 1:
            factors[name] = levels
        elif levels:
            fixed[name] = levels[0]
    return factors, fixed


def _crossing(
    group: Sequence[Stored], factors: dict[str, tuple[Level, ...]], fixed: dict[str, Level]
) -> Iterator[Crossing]:
    """A `Crossing` for each metric that is 0 or 1 for every item, under each answer filter, from the records `group` of
    one task and checkpoint. ValueError as in `crossings`, and if there is no such metric."""
    import numpy as np

    _check_rest(group)
    cells = _cells(group, factors)
    items = {levels: entry.read() for levels, entry in cells.items()}
    first = next(iter(items.values()))
    for levels, each in items.items():
        _check_documents(_label(group[0].record), named(factors, levels), first, each)
    labels = group[0].record.labels
    made = Crossing(
        checkpoint=labels.marked(labels.checkpoint),
        task=labels.task,
        metric="",
        filter="",
        factors=factors,
        fixed=fixed,
        outcomes=np.empty(0),
    )
    found = 0
    for way in dict.fromkeys(place[2] for place in first):
        places = [place for place in sorted(first) if place[2] == way]
        for metric in _binary(items.values(), places):
            values = [[items[levels][place].metrics[metric] for levels in items] for place in places]
            shape = (len(places), *map(len, factors.values()))
            outcomes = np.array(values, dtype=float).reshape(shape)
            found += 1
            yield replace(made, metric=metric, filter=way, outcomes=outcomes)
    if not found:
        raise ValueError(
            f"{_label(group[0].record)} has no metric that is 0 or 1 for every item; factors need one, such as acc or"
            " exact_match"
        )


def _check_rest(group: Sequence[Stored]) -> None:
    """ValueError if the evaluations or numerics classes (device, torch, ...) of the records of `group` differ in
    anything but the settings that may be factors (SETTINGS)."""
    first, *others = (
        without(entry.record.question.data(), *_PLACES)
        | {"numerics": without(entry.record.measurements.numerics.data(), "dtype")}
        for entry in group
    )
    for entry, other in zip(group[1:], others, strict=True):
        found = difference(first, other)
        if found is not None:
            raise ValueError(
                f"{_label(entry.record)}: {found}, which --factors cannot vary; give a folder with the records of one"
                " --factors run"
            )


def _cells(group: Sequence[Stored], factors: dict[str, tuple[Level, ...]]) -> dict[tuple[Level, ...], Stored]:
    """The record of every combination of levels, in the order of the levels; ValueError if a combination has no record
    or two."""
    found: dict[tuple[Level, ...], Stored] = {}
    for entry in group:
        levels = tuple(str(SETTINGS[name](entry.record)) for name in factors)
        if levels in found:
            raise ValueError(
                f"{_label(entry.record)}: two records have {named(factors, levels)}"
                f" ({found[levels].record.sha256[:12]} and {entry.record.sha256[:12]}); give a folder with the"
                " records of one --factors run on one machine"
            )
        found[levels] = entry
    every = list(itertools.product(*factors.values()))
    missing = [named(factors, levels) for levels in every if levels not in found]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ValueError(
            f"{_label(group[0].record)}: {len(missing)} of {len(every)} combinations of {' x '.join(factors)} are"
            f" missing: {'; '.join(missing[:NAMED])}{more}; {AGAIN}"
        )
    return {levels: found[levels] for levels in every}


def named(factors: Iterable[str], levels: Iterable[Level]) -> str:
    """Text `A=1 B=2` of one combination of levels of factors."""
    return " ".join(f"{name}={level}" for name, level in zip(factors, levels, strict=True))


def _check_documents(label: str, cell: str, first: Items, other: Items) -> None:
    """ValueError unless the items of two combinations of levels, `first` and `other`, are of the same documents and
    answer filters. For the message: `label`, task and checkpoint; `cell`, the levels of `other`."""
    if first.keys() != other.keys():
        odd = sorted(first.keys() ^ other.keys())[0]
        which = "lacks" if odd in first else "has, unlike the first combination of levels,"
        raise ValueError(
            f"{label}: the evaluation with {cell} {which} document {odd[1]} (filter {odd[2]}); {AGAIN}"
        )
    for place, item in first.items():
        ours, theirs = item.doc_hash, other[place].doc_hash
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(
                f"{label}: document {place[1]} has another content in the evaluation with {cell}, so the task's data"
                " has changed; evaluate all combinations again with a new --out folder"
            )


def _binary(cells: Iterable[Items], places: Sequence[tuple[str, int, str]]) -> list[str]:
    """Names of the metrics that are 0 or 1 for every item in every combination of levels. `cells`: the items of each
    combination; `places`: the keys (task, document, filter) of the items that count."""
    shown: list[dict[str, Any]] = [items[place].metrics for items in cells for place in places]
    return [
        name
        for name in shown[0]
        if all(isinstance(each.get(name), bool | int | float) and each[name] in (0, 1) for each in shown)
    ]
