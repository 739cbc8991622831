"""Records of older versions of a part: the same question but for a version, so marked in tables and in no figure.

A part's `version` is raised when what it computes changes; records that it gave before stay in their file. Which of two
versions is the older is read from the records alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from repro.results.record import Question, Record, text


def older(subjects: Iterable[str]) -> dict[str, str]:
    """Canonical JSON of each question -> `older: PART version N`, or "" where no other one has a newer version."""
    alike: dict[str, list[tuple[str, dict[str, tuple[str, int]]]]] = defaultdict(list)
    for subject in dict.fromkeys(subjects):
        question = json.loads(subject)
        alike[text(_bare(question))].append((subject, dict(_versions(question, ""))))
    marks: dict[str, str] = {}
    for same in alike.values():
        latest = {path: max(found[path][1] for _, found in same) for path in same[0][1]}
        for subject, found in same:
            old = [f"{part} version {n}" for path, (part, n) in found.items() if n < latest[path]]
            marks[subject] = f"older: {', '.join(old)}" if old else ""
    return marks


def latest(records: Sequence[Record]) -> list[Record]:
    """The records that no newer version of a part has answered anew."""
    subjects = [text(Question.read(record["question"]).subject) for record in records]
    marks = older(subjects)
    return [record for record, subject in zip(records, subjects, strict=True) if not marks[subject]]


def _versions(data: Any, path: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Where each part stands in a question -> its name and version."""
    if isinstance(data, dict):
        if "part" in data and "version" in data:
            yield path, (data["part"], data["version"])
        for name, value in data.items():
            yield from _versions(value, f"{path}.{name}")
    if isinstance(data, list):
        for number, value in enumerate(data):
            yield from _versions(value, f"{path}[{number}]")


def _bare(data: Any) -> Any:
    """A question without the versions of its parts."""
    if isinstance(data, dict):
        return {k: _bare(v) for k, v in data.items() if not (k == "version" and "part" in data)}
    return [_bare(value) for value in data] if isinstance(data, list) else data
