"""Time and memory of a training step by vocabulary size: fused head and sparse soft tokens against the dense step.

Drawn from results/bench/vocabulary.json (`make bench`) instead of records; seconds are those of one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from pandas import DataFrame

from paper_figures import COLOURS, PAGE, End, empty, label_ends

COLUMNS = ["step", "vocabulary", "quantity", "ours", "dense", "ratio"]
STEPS = {"duo": ("Duo", COLOURS["duo"]), "masked": ("masked", COLOURS["llada"])}
PANELS = {"seconds": "seconds a step, one thread", "MiB": "memory beyond the weights, MiB"}


def query(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Benchmark rows as points, sorted by step and vocabulary."""
    points = [{**row, "dense": row["opponent"]} for row in rows]
    return DataFrame(points, columns=COLUMNS).sort_values(COLUMNS[:3], ignore_index=True)


def figure(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, DataFrame]:
    """One panel for time and one for memory; ours solid, dense dashed, one colour per training step."""
    drawn = query(rows)
    if drawn.empty:
        return empty("no bench rows of vocabulary yet"), drawn
    drawing = Figure(figsize=(PAGE, 2.5))
    for axes, (quantity, name) in zip(drawing.subplots(1, 2), PANELS.items(), strict=True):
        ends = []
        for step, points in drawn[drawn.quantity == quantity].groupby("step"):
            title, ink = STEPS[str(step)]
            for side, dash in (("ours", "o-"), ("dense", "o--")):
                axes.plot(points.vocabulary, points[side], dash, color=ink, markersize=3)
                x, y = float(points.vocabulary.iloc[-1]), float(points[side].iloc[-1])
                ends.append(End(x, y, f"{title}, {side}", ink))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(0.8 * drawn.vocabulary.min(), 1.15 * drawn.vocabulary.max())
        axes.xaxis.set_major_locator(FixedLocator(sorted(drawn.vocabulary.unique())))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:.0f}k"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.set_xlabel("vocabulary")
        axes.set_title(name)
        label_ends(axes, ends)
    return drawing, drawn
