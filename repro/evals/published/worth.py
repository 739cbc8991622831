"""What is worth running: which published cells a run would answer, most cells for the fewest hours, and what the others
wait for.

    cheapest(pairs)    runs that can be typed, most cells an hour first
    rows(pairs)        the same by lines of published tables, which one command asks
    summary(pairs)     both for a person, and what the other cells wait for

`pairs`: cells that nothing answers yet, each with its price (repro.evals.published.price). A run paid for once answers
every cell of its question. Hours are estimates by arithmetic on one H100.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.evals.published.cells import Cell
from repro.evals.published.price import Price, shown

Pairs = Sequence[tuple[Cell, Price]]
BUDGETS = (0.5, 2, 6, 24)
"""Hours."""
FEW = 8
"""Rows, and things that cells wait for, printed."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run worth making: its cells that nothing answers yet, its hours, both summed with the runs before it;
    `trained`: whether the hours are those of a recipe's training."""

    run: str
    command: str
    trained: bool
    cells: tuple[str, ...]
    hours: float
    cells_so_far: int
    hours_so_far: float


def cheapest(pairs: Pairs) -> list[Step]:
    """Runs that can be typed and whose cost is known, most cells an hour first."""
    runs: dict[str, list[tuple[Cell, Price]]] = {}
    for cell, price in pairs:
        if price.command and price.hours is not None:
            runs.setdefault(price.run, []).append((cell, price))
    costs = {name: members[0][1].hours or 0.0 for name, members in runs.items()}
    steps, count, spent = [], 0, 0.0
    for name in sorted(runs, key=lambda name: (costs[name] / len(runs[name]), name)):
        members = runs[name]
        count, spent = count + len(members), spent + costs[name]
        steps.append(
            Step(
                run=name,
                command=members[0][1].command,
                trained=members[0][1].trained,
                cells=tuple(cell.name for cell, _ in members),
                hours=costs[name],
                cells_so_far=count,
                hours_so_far=spent,
            )
        )
    return steps


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a published table as one command: the cells and hours that it adds to the rows before it."""

    name: str
    cells: int
    hours: float
    cells_so_far: int
    hours_so_far: float


def rows(pairs: Pairs) -> list[Row]:
    """Rows by falling gain: each time the one with most further cells an hour, questions of earlier rows being paid."""
    gains: dict[str, set[str]] = {}
    questions: dict[str, set[str]] = {}
    hours: dict[str, float] = {}
    for cell, price in pairs:
        if price.command and price.hours is not None and not price.trained:
            questions.setdefault(cell.row, set()).add(price.run)
            gains.setdefault(price.run, set()).add(cell.name)
            hours[price.run] = price.hours
    found: list[Row] = []
    paid: set[str] = set()
    count, spent = 0, 0.0

    def added(row: str) -> tuple[int, float]:
        """Cells and hours that a row would add."""
        new = sorted(questions[row] - paid)
        return sum(len(gains[run]) for run in new), round(sum(hours[run] for run in new), 9)

    left = set(questions)
    while left := {row for row in left if questions[row] - paid}:
        best = min(left, key=lambda row: (added(row)[1] / added(row)[0], row))
        cells, cost = added(best)
        count, spent = count + cells, spent + cost
        found.append(Row(name=best, cells=cells, hours=cost, cells_so_far=count, hours_so_far=spent))
        paid |= questions[best]
    return found


def summary(pairs: Pairs) -> Iterator[str]:
    """What to type for how many hours, what would have to be trained, and what the other cells wait for."""
    steps = [step for step in cheapest(pairs) if not step.trained]
    if steps:
        hours, cells = sum(step.hours for step in steps), sum(len(step.cells) for step in steps)
        yield (
            f"most cells for the fewest hours: {cells} by {len(steps)} questions to released checkpoints,"
            f" {shown(hours)} hours of one H100 (estimated)"
        )
        yield f"  {', '.join(_budgets(steps))} (question by question: --json)"
        best = rows(pairs)
        for row in best[:FEW]:
            yield (
                f"  {row.cells_so_far:3d} cells {shown(row.hours_so_far):>7} h  +{row.cells} for {shown(row.hours)} h:"
                f" python -m repro.evals --cell {row.name}"
            )
        if len(best) > FEW:
            yield f"  {best[-1].cells_so_far - best[FEW - 1].cells_so_far:3d} more cells by {len(best) - FEW} more rows"
    for step in cheapest(pairs):
        if step.trained:
            yield f"  {len(step.cells):3d} cells after about {shown(step.hours)} h of training: {step.command}"
    yield from _waiting(pairs)


def _budgets(steps: Sequence[Step]) -> Iterator[str]:
    """How many cells the cheapest questions answer within each budget."""
    for budget in BUDGETS:
        count, spent = 0, 0.0
        for step in steps:
            spent += step.hours
            count += len(step.cells) if spent <= budget else 0
        if count:
            yield f"{count} within {budget:g} h"


def _waiting(pairs: Pairs) -> Iterator[str]:
    """What cells lack that no command answers, the most wanted first."""
    lacks: dict[str, list[tuple[Cell, Price]]] = {}
    for cell, price in pairs:
        if not price.command or price.hours is None:
            lacks.setdefault(price.missing, []).append((cell, price))
    if not lacks:
        return
    count = sum(len(members) for members in lacks.values())
    yield f"{count} cells wait for something else:"
    order = sorted(lacks, key=lambda what: (-len(lacks[what]), what))
    for what in order[:FEW]:
        members = lacks[what]
        priced = {price.run: price.hours for _, price in members if price.hours is not None}
        cost = f", then about {shown(sum(priced.values()))} h" if len(priced) else ""
        yield f"  {len(members):3d} for {what}{cost}"
    if len(order) > FEW:
        rest = sum(len(lacks[what]) for what in order[FEW:])
        yield f"  {rest:3d} for {len(order) - FEW} other things (--json has them all)"
