"""pass@k: probability that one of k draws of an item is right, by the number of draws.

One panel per checkpoint and number of tokens per step; adaptive rules, whose draws are all equal at temperature 0, are
in the panel of one token per step. A rule that always writes the same text gains nothing from draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import PAGE, End, empty, family, footer, label_ends, log2_axis
from paper_figures.samplers import name_of, style_of
from repro.core.stats import NORMAL
from repro.results.record import Record
from repro.results.tables.pass_at_k import rows
from repro.results.tables.text import per_step


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per checkpoint and tokens per step."""
    drawn = rows(records)
    if drawn.empty:
        return empty("no records of task pass_at_k yet"), drawn
    panels = _panels(drawn)
    drawing = Figure(figsize=(PAGE, 2.3))
    grid = drawing.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (checkpoint, rate, part) in zip(grid, panels, strict=True):
        _panel(axes, part)
        axes.set_title(f"{family(checkpoint)}, {rate}", fontsize=7)
        axes.set_xlabel("draws (k)")
    grid[0].set_ylabel("pass@k, share of puzzles\nsolved by one of k draws")
    footer(
        drawing,
        f"{drawn.n.min()} puzzles, {drawn.draws.min()} draws each, one train seed; bars: 95 % interval over puzzles; "
        "hollow: adaptive samplers, which give the same text in each draw at temperature 0",
    )
    return drawing, drawn


def _panels(drawn: DataFrame) -> list[tuple[str, str, DataFrame]]:
    """Checkpoint, tokens per step in words, and rows of each panel."""
    rate = [per_step(each) if each else "adaptive" for each in drawn.tokens_per_step]
    panels = drawn.assign(rate=rate).groupby(["checkpoint", "rate"], sort=True)
    return [(part.checkpoint.iloc[0], part.rate.iloc[0], part) for _, part in panels]


def _panel(axes: Axes, part: DataFrame) -> None:
    ends = []
    for preset, line in part.groupby("preset", sort=True):
        style = style_of(str(preset))
        axes.errorbar(
            *(line.k, line.value, NORMAL * line.se),
            fmt=f"{style.marker}-",
            color=style.ink,
            markerfacecolor="white" if style.adaptive else style.ink,
            markersize=3.4,
            linewidth=0.9,
            elinewidth=0.6,
        )
        last = line.iloc[-1]
        ends.append(End(last.k, last.value, name_of(str(preset)), style.ink, style.marker, style.adaptive))
    log2_axis(axes, [1, 2, 4, 8])
    label_ends(axes, ends, 6)
