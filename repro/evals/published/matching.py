"""Which questions answer a published number: places that are asked, against what a question says there.

differing(cell, question, preset)    places that differ, in words; none: it answers the cell
labelled(records, name)              records of a checkpoint or recipe
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from repro.core import parts
from repro.evals.published.cells import Cell
from repro.results.difference import difference, look
from repro.results.record import Record, text


def differing(cell: Cell, question: Mapping[str, Any], preset: str | None) -> dict[str, str]:
    """`PLACE is OURS, published PUBLISHED` by place for every place asked that differs; a limited task differs too.

    A preset is compared by the rule that it names: its label also tells blocks and caches, which the plan does.
    """
    found = {}
    for place, value in cell.asked.items():
        ours = preset if place == "preset" else look(question, place)
        if place == "preset":
            same = question["sampler"] == _rule(str(value))
        else:
            same = ours is not None and difference(ours, value) is None
        if not same:
            words = "not said" if ours is None else text(ours)
            found[place] = f"{place} is {words}, published {text(value)}"
    if question["limit"] is not None:
        found["limit"] = f"limit is {question['limit']}, published whole"
    return found


def another_plan(differences: Mapping[str, str]) -> bool:
    """Whether questions differ in sampler and plan alone: asked under one protocol, a grid's next question."""
    return all(place == "preset" or place.startswith("plan.") for place in differences)


@lru_cache
def _rule(name: str) -> dict[str, Any]:
    """The canonical form of a preset's rule."""
    from repro.samplers.presets import preset

    return parts.canonical(preset(name))


def called(task: Mapping[str, Any], label: str) -> tuple[str, ...]:
    """What a task is called: in its suite, in lm-eval (a suite may ask one at several lengths), and by its part."""
    return tuple(name for name in (label, task.get("task"), task.get("part")) if isinstance(name, str))


def labelled(records: Sequence[Record], name: str) -> list[Record]:
    """Records of a checkpoint or recipe; a released one `lab/NAME` is labelled by its folder, NAME."""
    wanted = {name, name.rpartition("/")[2]}
    return [record for record in records if wanted & {record.labels.checkpoint, record.labels.recipe}]
