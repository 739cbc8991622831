"""Whether a question answers a published number: the settings of the number, compared with those of the question.

differing(cell, question, preset)    the settings that differ, in words; empty: the question answers the cell
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
    """`SETTING is OURS, published PUBLISHED` for every setting of the cell that differs; a limited task differs too.

    Presets are compared by their samplers, because labels also describe blocks and caches, which belong to the plan.
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
    """Whether questions differ in sampler and plan alone, so that they belong to one grid under one protocol."""
    return all(place == "preset" or place.startswith("plan.") for place in differences)


@lru_cache
def _rule(name: str) -> dict[str, Any]:
    """The canonical form of a preset's sampler."""
    from repro.samplers.presets import preset

    return parts.canonical(preset(name))


def called(task: Mapping[str, Any], label: str) -> tuple[str, ...]:
    """The names of a task: in its suite (`label`), in lm-eval, and of its part."""
    return tuple(name for name in (label, task.get("task"), task.get("part")) if isinstance(name, str))


def labelled(records: Sequence[Record], name: str) -> list[Record]:
    """Records of a checkpoint or recipe; records of a released checkpoint `lab/NAME` may have the label NAME."""
    wanted = {name, name.rpartition("/")[2]}
    return [record for record in records if wanted & {record.labels.checkpoint, record.labels.recipe}]
