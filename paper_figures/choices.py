"""What each choice of the founding Duo costs: bound and excess of its recipe at nano, changed one choice at a time.

Drawn from results/choices. Dots are means over train seeds, bars their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from pandas import DataFrame

from paper_figures import INK, PAGE, bar, bar_sentence, colour, empty, footer
from repro.results.record import Record
from repro.results.tables.choices import rows

PANELS = {
    "bound": ("held-out bound, nats per token", (2, 3, 5, 8)),
    "excess": ("excess of samples, nats per token", (1, 1.5, 2, 3)),
}
"""Measure -> label and ticks of its axis."""


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per measure, one line per arm in the order of the table; logarithmic axes."""
    if not records:
        return empty("no records of scripts.choices yet"), DataFrame()
    numbers = rows(records)
    drawn = numbers[numbers.measure.isin(list(PANELS))].reset_index(drop=True)
    says = list(dict.fromkeys(drawn.says))
    drawing = Figure(figsize=(PAGE, 0.7 + 0.27 * len(says)))
    panels = drawing.subplots(1, len(PANELS), sharey=True)
    for axes, (measure, (label, ticks)) in zip(panels, PANELS.items(), strict=True):
        for line in drawn[drawn.measure == measure].to_dict("records"):
            height = len(says) - 1 - says.index(line["says"])
            half = bar(float("nan"), line["sd"], line["seeds"])
            axes.errorbar(
                line["value"], height, xerr=half, fmt="o", color=colour(line["arm"]), capsize=2, elinewidth=1
            )
            axes.annotate(
                f"{line['value']:.2f}",
                (line["value"] + half, height),
                (5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=7,
            )
        axes.set_xscale("log")
        span = drawn[drawn.measure == measure].value
        axes.set_xlim(0.9 * span.min(), 1.25 * span.max())
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_xlabel(label)
        axes.set_ylim(-0.6, len(says) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(says)), list(reversed(says)))
    footer(drawing, bar_sentence(drawn.seeds))
    return drawing, drawn
