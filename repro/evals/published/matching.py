"""Comparison of the settings of a published number (cell) with those of an evaluation, which are the `question` of its
stored record (checkpoint, task, sampler, decoding plan, seed, limit, protocol).

differing(cell, question, preset)    the settings that differ, as sentences; empty: the result is comparable
labelled(records, name)              the records of a checkpoint or recipe
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from repro.core import parts
from repro.evals.published.cells import PublishedCell
from repro.results.difference import difference, look
from repro.results.record import Record, text


def differing(cell: PublishedCell, question: Mapping[str, Any], preset: str | None) -> dict[str, str]:
    """Setting (a dotted path) -> sentence `SETTING is OURS, published PUBLISHED`, for each setting of the published
    number `cell` in which an evaluation differs; empty if the two are comparable. `question`: the evaluation's settings
    as in a record; `preset`: label of its sampler, None if it has no sampler. An evaluation with a limit on the number
    of items differs too (setting `limit`).

    Presets are compared by their samplers, because labels also describe blocks and caches, which belong to the decoding
    plan.
    """
    found = {}
    for place, value in cell.asked.items():
        ours = preset if place == "preset" else look(question, place)
        if place == "preset":
            same = question["sampler"] == _rule(str(value))
        else:
            same = ours is not None and difference(ours, value) is None
        if not same:
            words = "not given" if ours is None else text(ours)
            found[place] = f"{place} is {words}, published {text(value)}"
    if question["limit"] is not None:
        found["limit"] = f"limit is {question['limit']}, published whole"
    return found


def another_plan(differences: Mapping[str, str]) -> bool:
    """Whether the `differences` (a result of `differing`) are of sampler and decoding plan alone, so that the published
    number and the evaluation follow the same protocol."""
    return all(place == "preset" or place.startswith("plan.") for place in differences)


@lru_cache
def _rule(name: str) -> dict[str, Any]:
    """Canonical form (a JSON object of name, version and settings) of the sampler of the preset `name`."""
    from repro.samplers.presets import preset

    return parts.canonical(preset(name))


def called(task: Mapping[str, Any], label: str) -> tuple[str, ...]:
    """All names of a task: in its suite (`label`), in lm-eval (its field `task`, if any), and of its class in the
    registry (its field `part`); `task` is the canonical form, a JSON object of its settings."""
    return tuple(name for name in (label, task.get("task"), task.get("part")) if isinstance(name, str))


def labelled(records: Sequence[Record], name: str) -> list[Record]:
    """Records whose label of checkpoint or recipe is `name`; if `name` is a released checkpoint `lab/NAME`, also those
    with the label NAME."""
    wanted = {name, name.rpartition("/")[2]}
    return [record for record in records if wanted & {record.labels.checkpoint, record.labels.recipe}]
