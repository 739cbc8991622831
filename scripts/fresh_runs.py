"""Runs that are trained for their records alone: those of scripts/choices.py and scripts/claims.py."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro.results.record import Record

if TYPE_CHECKING:
    from repro.training.recipe import Recipe

Cell = tuple[str, str, str]
"""Task, sampler preset and tokens per step; the last two are empty where no sampler runs or the suite decides."""


def measured(recipe: Recipe, seed: int, cells: Sequence[Cell]) -> list[Record]:
    """Train a recipe with the train seed `seed` in a folder that is deleted again, and return the records of its
    `cells`; ValueError for a cell that does not fit the recipe."""
    from repro.evals.request import Request, prepare
    from repro.model import load
    from repro.training.loop import train

    records = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = train(recipe, seed=seed, out=Path(scratch) / "run", stop=None, resume=False)
        model = load(folder)
        for task, preset, tokens in cells:
            request = Request(
                tasks=[task],
                samplers=[preset] if preset else None,
                tokens_per_step=[float(tokens)] if tokens else None,
                out=folder,
            )
            records += [record for record, _ in prepare(model, request).run()]
    return records
