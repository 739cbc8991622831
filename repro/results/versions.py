"""Records whose task, sampler, plan or other component (part) has an older version than in another record of otherwise
the same evaluation. Tables mark them, figures omit them. Neither shows records of an evaluation that was also made with
more items.

The `version` of a component is raised when what it computes changes; its earlier records stay in their files. Which of
two versions is older follows from the records alone.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from repro.results.difference import without
from repro.results.record import Record, text


def older(subjects: Iterable[str]) -> dict[str, str]:
    """Dictionary evaluation -> mark, for evaluations given as canonical JSON of `Question.subject`. The mark is
    `older: NAME version N` if another evaluation in `subjects`, equal apart from versions, has a newer version of the
    component (part) NAME, else ""."""
    alike: dict[str, list[tuple[str, dict[str, tuple[str, int]]]]] = defaultdict(list)
    for subject in dict.fromkeys(subjects):
        question = json.loads(subject)
        found = dict(_versions(question, ""))
        bare = without(question, *(f"{place}version" for place in found))
        alike[text(bare)].append((subject, found))
    marks: dict[str, str] = {}
    for same in alike.values():
        newest = {place: max(found[place][1] for _, found in same) for place in same[0][1]}
        for subject, found in same:
            old = [f"{part} version {n}" for place, (part, n) in found.items() if n < newest[place]]
            marks[subject] = f"older: {', '.join(old)}" if old else ""
    return marks


def largest(records: Sequence[Record]) -> list[Record]:
    """The records, without those of an evaluation that was also made with more items, such as a first try with a
    `limit`."""
    items = [math.inf if each.question.limit is None else each.question.limit for each in records]
    if all(each == math.inf for each in items):
        return list(records)
    names = [text(without(each.question.data(), "limit")) for each in records]
    most: dict[str, float] = {}
    for name, count in zip(names, items, strict=True):
        most[name] = max(most.get(name, 0), count)
    return [each for each, name, count in zip(records, names, items, strict=True) if count == most[name]]


def latest(records: Sequence[Record]) -> list[Record]:
    """The records without those whose evaluation was repeated with a newer version of a component (part)."""
    cells = {record.cell: record for record in records}
    subjects = {cell: text(record.question.subject) for cell, record in cells.items()}
    marks = older(subjects.values())
    return [record for record in records if not marks[subjects[record.cell]]]


def _versions(data: Any, place: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Pairs (path, (name, version)) of every component (part) nested in JSON `data`; a path ends in a dot: `plan.`.
    `place`: path of `data`."""
    if isinstance(data, dict) and "part" in data and "version" in data:
        yield place, (data["part"], data["version"])
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in inner:
        yield from _versions(value, f"{place}{name}.")
