"""Lossless lookahead: tokens per round of forwards against the tokens forwarded for them, by the number of states.

One curve per checkpoint and rule, at temperature 1 above and 0 below; the best number of states (`best` of
`repro.results.tables.lookahead.rows`) is filled. One token per step is the point (1, 1), and all curves write the same
tokens as it.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import INK, OTHER, PAGE, End, empty, footer, label_ends
from paper_figures.samplers import base, style_of
from repro.results.record import Record
from repro.results.tables.lookahead import MOST, rows


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One column per scale, one row per temperature."""
    drawn = rows(records)
    if drawn.empty:
        return empty("no records of task lookahead_cost yet"), drawn
    scales = list(drawn.scale.unique())
    drawing = Figure(figsize=(PAGE, 4.4))
    grid = drawing.subplots(2, len(scales), squeeze=False, sharex=True)
    for panels, greedy in zip(grid, (False, True), strict=True):
        for axes, scale in zip(panels, scales, strict=True):
            _panel(axes, drawn[(drawn.scale == scale) & (drawn.preset.map(_greedy) == greedy)])
            axes.set_title(f"{scale}, temperature {'0' if greedy else '1'}")
        panels[0].set_ylabel("tokens per round\nof forward passes")
    for axes in grid[-1]:
        axes.set_xlabel("tokens computed (one per step: 1)")
    footer(
        drawing,
        "cross: one token per step, whose text all of these write; points of a curve: number of states; "
        f"filled: fewest rounds at up to {MOST:g} times the tokens computed",
    )
    return drawing, drawn


def _panel(axes: Axes, rows: DataFrame) -> None:
    ends = []
    for key, line in rows.groupby(["checkpoint", "preset"], sort=False):
        assert isinstance(key, tuple)
        preset = str(key[1])
        style = style_of(preset)
        axes.plot(line.tokens, line.per_round, color=style.ink, linewidth=1, zorder=2)
        for each in line.to_dict("records"):
            fill, x, y = style.ink if each["best"] else "white", each["tokens"], each["per_round"]
            axes.plot(x, y, style.marker, color=style.ink, markerfacecolor=fill, markersize=4)
        name, last = base(preset), line.iloc[-1]
        text = "left to right" if style.kind == "left to right" else name
        ends.append(End(last.tokens, last.per_round, text, style.ink, style.marker))
    axes.plot(1, 1, "x", color=INK, markersize=5)
    axes.axvline(MOST, color=OTHER, linewidth=0.6, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.95, 8)
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.set_ylim(bottom=0)
    label_ends(axes, ends, 6)


def _greedy(preset: str) -> bool:
    """Whether a preset takes the most likely token: its name has no temperature and is not `sample`."""
    return base(preset) != "sample" and "temperature" not in preset
