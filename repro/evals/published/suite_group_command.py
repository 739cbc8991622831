"""The command line of a programme: --cell, and suites of rows; asked one checkpoint after another, or planned."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.core.cli import Parser, first
from repro.evals.published.suite_group import (
    Step,
    by_checkpoint,
    is_programme,
    of_cells,
    precision,
    read_programme,
    steps,
)

if TYPE_CHECKING:
    from repro.evals.planning.time_budget import TimeBudget
    from repro.evals.request import Prepared, Request
    from repro.results.record import Record

TAKES = ("cell", "suite", "limit", "samples", "seeds", "precision", "plan", "json")
"""Flags that a programme takes; beyond them those that only matter where something is asked."""
ASKING = ("out", "max_hours", "batch_size")


def meant(args: argparse.Namespace) -> bool:
    """Whether a command line asks for a programme."""
    return args.cell is not None or is_programme(args.suite)


def command(
    parser: Parser,
    args: argparse.Namespace,
    request: Request,
    ask: Callable[[Prepared, TimeBudget | None], list[Record]],
    show: Callable[[Prepared, list[Record]], None],
) -> int:
    """Ask (and show) several requests one after another, or print what they would cost; every flag that would have no
    effect on them is an error."""
    what = "--cell" if args.cell is not None else f"the rows of --suite {args.suite}"
    takes = {*TAKES, *(() if args.cell is None else ("ckpt",)), *(ASKING if args.plan is None else ())}
    for name, value in vars(args).items():
        if name not in takes and value != parser.get_default(name):
            where = "--plan" if name in ASKING else what
            parser.error(f"--{name.replace('_', '-')} has no effect on {where}; leave it out")
    if args.cell is not None and args.suite is not None:
        parser.error("--cell finds its suites; leave --suite out")
    if args.cell is not None:
        found = of_cells(args.cell.split(","), request, args.ckpt)
    else:
        found = steps(read_programme(args.suite), request)
    if args.plan is None:
        return _asked(args, found, ask, show)
    from repro.evals.published.suite_group_plan import data, planned, text

    rows = planned(found, args.plan, args.precision)
    print(json.dumps(data(rows), indent=1) if args.json else "\n".join(text(rows)))
    return 0


def _asked(
    args: argparse.Namespace,
    found: list[Step],
    ask: Callable[[Prepared, TimeBudget | None], list[Record]],
    show: Callable[[Prepared, list[Record]], None],
) -> int:
    """Every part in order, each checkpoint loaded once; Stopped, with what is left, where the hours do not do."""
    from repro.evals.planning.time_budget import limit, over
    from repro.model import load, take_device

    take_device()
    pace, records = limit(args.max_hours), []
    skipped = [skip for step in found for skip in step.skipped]
    for skip in skipped if first() else []:
        print(f"skipped {skip.what}: {skip.reason}", file=sys.stderr)
    for ckpt, parts in by_checkpoint(found):
        model = load(ckpt, precision=precision(ckpt, args.precision))
        for part in parts:
            grid = part.prepare(model)
            answered = ask(grid, pace)
            records += answered
            skipped += grid.skipped
            if first() and not args.json:
                show(grid, answered)
    if first() and args.json:
        print(json.dumps({"records": records, "skipped": [vars(skip) for skip in skipped]}, indent=1))
    return over(pace)
