"""Lossless lookahead: tokens per round of forwards against the tokens forwarded for them, by the number of states.

One line per checkpoint and rule at temperature 1, dashed at temperature 0; the best number of states by the stated rule
is filled (`repro.results.tables.lookahead`). One token per step is the point (1, 1). The tokens are those of one token
per step in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from paper_figures import INK, OTHER, empty, footer
from repro.results.record import Record
from repro.results.tables.lookahead import MOST, rows

INKS = {
    "random": "#0072B2",
    "low_confidence": "#E69F00",
    "margin": "#009E73",
    "entropy": "#CC79A7",
    "sample": "#000000",
    "greedy": "#000000",
}
"""Colour of each rule."""


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per scale."""
    drawn = rows(records)
    if drawn.empty:
        return empty("no records of task lookahead_cost yet"), drawn
    scales = list(drawn.scale.unique())
    drawing = Figure(figsize=(1.4 + 2.9 * len(scales), 3.2))
    panels = drawing.subplots(1, len(scales), squeeze=False)[0]
    for axes, scale in zip(panels, scales, strict=True):
        for (_, preset), line in drawn[drawn.scale == scale].groupby(["checkpoint", "preset"], sort=False):
            rule = str(preset).partition(":")[0]
            ink, greedy = INKS.get(rule, OTHER), str(preset) in INKS and rule != "sample"
            dash = "--" if greedy else "-"
            axes.plot(line.tokens, line.per_round, color=ink, linestyle=dash, linewidth=1, zorder=2)
            for each in line.to_dict("records"):
                fill, x, y = ink if each["best"] else "white", each["tokens"], each["per_round"]
                axes.plot(x, y, "o", color=ink, markerfacecolor=fill, markersize=4)
        axes.plot(1, 1, "x", color=INK, markersize=5)
        axes.axvline(MOST, color=OTHER, linewidth=0.6, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axes.set_ylim(bottom=0)
        axes.set_title(scale)
        axes.set_xlabel("tokens forwarded, relative to one per step")
    panels[0].set_ylabel("tokens per round")
    names = {rule: ink for rule, ink in INKS.items() if rule != "greedy"} | {"sample": INKS["sample"]}
    handles = [
        Line2D([], [], color=ink, label="left to right" if rule == "sample" else rule)
        for rule, ink in names.items()
    ]
    handles += [Line2D([], [], color=OTHER, linestyle="--", label="temperature 0")]
    panels[-1].legend(handles=handles, fontsize=6.5)
    footer(
        drawing,
        f"filled: fewest rounds at up to {MOST:g} times the tokens forwarded; cross: one token per step",
    )
    return drawing, drawn
