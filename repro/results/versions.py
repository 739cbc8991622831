"""Records of older versions of a part: the same question except for a version. Tables mark them, figures omit them.

A part's `version` is raised when what it computes changes; its earlier records stay in their files. Which of two
versions is older follows from the records alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from repro.results.difference import without
from repro.results.record import Record, text


def older(subjects: Iterable[str]) -> dict[str, str]:
    """Canonical JSON of each question -> `older: PART version N`, or "" if no other question has a newer version."""
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


def latest(records: Sequence[Record]) -> list[Record]:
    """The records without those that a newer version of a part has answered again."""
    subjects = [text(record.question.subject) for record in records]
    marks = older(subjects)
    return [record for record, subject in zip(records, subjects, strict=True) if not marks[subject]]


def _versions(data: Any, place: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each part of a question: its place (`plan.`, with a dot at the end), name and version."""
    if isinstance(data, dict) and "part" in data and "version" in data:
        yield place, (data["part"], data["version"])
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in inner:
        yield from _versions(value, f"{place}{name}.")
