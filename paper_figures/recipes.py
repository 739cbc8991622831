"""Which recipes a figure shows: at most as many of each scale as there are colours, so that lines can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

from paper_figures import COLOURS, order
from repro.core.errors import nearest
from repro.results.record import Record
from repro.results.store import scale_of

MOST = len(COLOURS)
"""Recipes of one scale in a figure, at most: those of COLOURS first, others by name."""


def shown(records: Sequence[Record], names: Sequence[str] = ()) -> tuple[list[Record], list[str]]:
    """The records to draw, in their order, and a sentence for each scale with more than MOST recipes.

    `names`: draw these recipes alone, however many. ValueError for one without records, naming the nearest.
    """
    recipes = sorted({record.labels.recipe for record in records}, key=order)
    for name in names:
        if name not in recipes:
            raise ValueError(f"no records of recipe {name!r} to draw; {nearest(name, recipes)}")
    by_scale: dict[str, list[str]] = {}
    for recipe in recipes:
        by_scale.setdefault(scale_of(recipe), []).append(recipe)
    chosen = set(names) or {recipe for some in by_scale.values() for recipe in some[:MOST]}
    said = [
        f"{scale or 'full scale'}: {MOST} of {len(some)} recipes drawn; --recipes NAME,NAME draws others"
        for scale, some in sorted(by_scale.items())
        if not names and len(some) > MOST
    ]
    return [record for record in records if record.labels.recipe in chosen], said
