"""Estimated cost (cost plan) of a suite group, row by row: evaluations, forward passes and hours. Nothing is loaded or
run.

python -m repro.evals plan --suite flagship [--device h100|h200|a100|cpu] [--json]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from repro.evals.planning import plan as plans
from repro.evals.planning.plan import Plan
from repro.evals.published.suite_group import Step
from repro.model import Precision


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A row of a suite group (`step`: evaluation requests for checkpoints), and the cost plan of each of its requests:
    forward passes and hours of each evaluation."""

    step: Step
    plans: list[Plan]

    @property
    def hours(self) -> float:
        return sum(each.hours for each in self.plans)

    @property
    def questions(self) -> int:
        return sum(len(each.lines) for each in self.plans)

    @property
    def unknown(self) -> int:
        return sum(each.unknown for each in self.plans)


def planned(steps: Sequence[Step], device: str, precision: Precision | None = None) -> list[Planned]:
    """Cost plan of every row of a suite group (`steps`) on the device of this name (h100, a100, cpu, ...), with weights
    in `precision` (None: bfloat16 for released checkpoints, else float32). For an unknown device, ValueError suggests
    the name of most similar spelling."""
    return [Planned(step=step, plans=[part.plan(device, precision) for part in step.parts]) for step in steps]


def data(rows: Sequence[Planned]) -> dict[str, Any]:
    """The JSON object that `--json` prints for the rows of a suite group: total hours, number of evaluations of unknown
    cost, and of each row its hours, published numbers (cells), cost plans and what is skipped."""
    return {
        "hours": sum(row.hours for row in rows),
        "questions_of_unknown_cost": sum(row.unknown for row in rows),
        "rows": [
            {
                "name": row.step.name,
                "title": row.step.title,
                "verdict": row.step.verdict,
                "hours": row.hours,
                "cells": [cell.name for cell in row.step.cells],
                "plans": [plans.data(each) for each in row.plans],
                "skipped": [vars(skip) for skip in row.step.skipped],
            }
            for row in rows
        ],
    }


def text(rows: Sequence[Planned]) -> Iterator[str]:
    """The estimated cost of the rows of a suite group as lines of text: evaluations of each row, totals,
    assumptions."""
    assumed: dict[str, None] = {}
    for row in rows:
        yield f"{row.step.name}: {row.step.title}: {row.questions} evaluations, {_hours([row])}"
        for each in row.plans:
            lines = list(plans.text(each))
            assumed |= dict.fromkeys(line for line in lines if line.startswith("assumed"))
            yield from (f"  {line}" for line in lines[:-1] if not line.startswith("assumed"))
        yield from (f"  skipped {skip.what}: {skip.reason}" for skip in row.step.skipped)
    yield f"{sum(row.questions for row in rows)} evaluations in {len(rows)} rows: {_hours(rows)}"
    yield from assumed


def _hours(rows: Sequence[Planned]) -> str:
    unknown = sum(row.unknown for row in rows)
    words = f"{sum(row.hours for row in rows):.3g} hours"
    return words + (f" at least, {unknown} evaluations of unknown cost" if unknown else "")
