"""Accuracy against useful tokens per second, in batches and at batch 1; the same points as `accuracy_nfe`.

Seconds depend on the machine: each engine, device and numerics class has its own panels, and the footer names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from paper_figures import PAGE, empty, label_ends
from paper_figures.accuracy_nfe import BARS, COLUMNS, NONE, WHERE, ends, finish, lines, query
from repro.results.record import Record
from repro.results.store import scale_of

if TYPE_CHECKING:
    from pandas import DataFrame

TIMED = [f"{mode}_per_second{end}" for mode in ("useful", "alone") for end in ("", "_low", "_high")]

CLOCKS = {"process": "CPU time", "wall": "wall clock"}


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One row of panels per suite, scale, engine, device and numerics class: throughput on the left, batch 1 on the
    right."""
    found = query(records)
    drawn = found[[*COLUMNS, "nfe", *TIMED, "batch", "n", "seeds", "clock"]].reset_index(drop=True)
    if drawn.empty:
        return empty(NONE), drawn
    sections = list(drawn.groupby(list(WHERE), sort=True))
    drawing = Figure(figsize=(PAGE, 0.6 + 2.7 * len(sections)))
    grid = drawing.subplots(len(sections), 2, squeeze=False, sharey="row")
    for row, (_, rows) in zip(grid, sections, strict=True):
        batches = ", ".join(map(str, sorted(rows.batch.unique())))
        for axes, x, label in (
            (row[0], "useful_per_second", f"tokens per second, batch {batches}"),
            (row[1], "alone_per_second", "tokens per second, batch 1"),
        ):
            lines(axes, rows, x)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            axes.set_xlabel(f"{label} ({CLOCKS[rows.clock.iloc[0]]})", fontsize=7)
            axes.set_title(scale_of(rows.recipe.iloc[0]) or "full scale")
        label_ends(row[1], list(ends(rows, "alone_per_second")), 6)
    across = "tokens: useful ones; across: the least and the most of any pass and network"
    finish(drawing, drawn, f"{BARS.format(n=drawn.n.min())}, {across}")
    return drawing, drawn
