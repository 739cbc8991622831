"""How time and memory grow: with rows, length, vocabulary, steps, processes and records, on logarithmic axes.

Drawn from results/bench/cost.json (`make bench`) instead of records. Values are relative to those at the smallest size,
and labels give the exponent of the fitted power law; the grey line is proportional growth. CPU seconds are those of one
machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from pandas import DataFrame

from paper_figures import OTHER, PAGE, End, empty, footer, label_ends, log10_axis

COLUMNS = ["work", "axis", "quantity", "size", "value", "slope"]
PANELS = {
    "rows": "rows",
    "length": "length, tokens a row",
    "vocabulary": "vocabulary",
    "steps": "decoding steps",
    "processes": "processes that share one evaluation",
    "records": "records",
}
INKS = {
    "training step": "#0072B2",
    "decoding": "#D55E00",
    "busiest process": "#D55E00",
    "all processes": "#009E73",
    "tables": "#0072B2",
    "figures": "#E69F00",
}
"""Colour of each work."""
TIME = "CPU seconds"
ACROSS = 3
"""Panels side by side."""


def query(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Benchmark rows as points, one a size, in the order of the panels."""
    points = [
        {**row, "size": size, "value": value}
        for row in rows
        for size, value in zip(row["sizes"], row["values"], strict=True)
    ]
    made = DataFrame(points, columns=COLUMNS)
    return made.sort_values(
        "axis", key=lambda axis: axis.map(list(PANELS).index), kind="stable", ignore_index=True
    )


def figure(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, DataFrame]:
    """One panel an axis; solid and filled: time, dashed and hollow: memory; one colour a kind of work."""
    drawn = query(rows)
    if drawn.empty:
        return empty("no bench rows of cost yet"), drawn
    names = list(drawn.axis.unique())
    high = -(-len(names) // ACROSS)
    drawing = Figure(figsize=(PAGE, 0.4 + 1.9 * high))
    grid = drawing.subplots(high, ACROSS, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        _panel(axes, drawn[drawn.axis == name])
        axes.set_xlabel(PANELS[name], fontsize=7)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("times the smallest", fontsize=7)
    footer(
        drawing,
        "solid: CPU seconds, dashed: memory (tensors beyond the weights); "
        "labels: exponent of the fitted power law; grey: in proportion",
    )
    return drawing, drawn


def _panel(axes: Axes, points: DataFrame) -> None:
    sizes = sorted(points["size"].unique())
    ends = []
    for key, line in points.groupby(["work", "quantity"], sort=False):
        assert isinstance(key, tuple)
        work, time = str(key[0]), key[1] == TIME
        y = line.value / line.value.iloc[0]
        ink, face = INKS[work], INKS[work] if time else "white"
        axes.plot(line["size"], y, "o-" if time else "o--", color=ink, markerfacecolor=face, markersize=3)
        text = f"{work}: {line.slope.iloc[0]:.2f}".replace("-", "\N{MINUS SIGN}")
        ends.append(End(float(sizes[-1]), float(y.iloc[-1]), text, ink, "o", not time))
    axes.plot(sizes, [size / sizes[0] for size in sizes], color=OTHER, linewidth=0.8, alpha=0.6, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1000 else f"{x / 1000:.0f}k"))
    axes.xaxis.set_minor_locator(NullLocator())
    log10_axis(axes, (1, 2, 5))
    label_ends(axes, ends, 6)
