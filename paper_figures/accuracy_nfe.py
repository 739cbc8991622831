"""Accuracy against forward passes per text: one line per recipe and decoding rule, one point per setting.

The records hold accuracy and speed of the same decodings (`repro.results.tables.speed`); `accuracy_speed` draws these
points against tokens per second. Each engine, device and numerics class has its own panels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from paper_figures import OTHER, colour, empty, family, order
from repro.results.record import Record
from repro.results.report import scale_of
from repro.results.tables.speed import ADAPTIVE_PINS, WHERE, speeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MARKERS = "osD^vPX*"
COLUMNS = [*WHERE, "recipe", "preset", "rule", "tokens_per_step", "accuracy", "accuracy_low", "accuracy_high"]
NONE = "no records of task speed yet"
BARS = "bars: 95 % Wilson interval of {n} documents"


def query(records: Sequence[Record]) -> DataFrame:
    """The rows of the speed table, sorted by recipe, with column `rule`: the line to which a setting belongs."""
    drawn = speeds(records)
    adaptive = drawn.tokens_per_step == ""
    drawn["rule"] = drawn.preset.where(~adaptive, drawn.preset.map(lambda name: ADAPTIVE_PINS.sub("", name)))
    key = [order(recipe) for recipe in drawn.recipe]
    return drawn.iloc[sorted(range(len(drawn)), key=lambda i: (*drawn[list(WHERE)].iloc[i], key[i], i))]


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per section."""
    found = query(records)
    drawn = found[[*COLUMNS, "nfe", "n", "seeds"]].reset_index(drop=True)
    if drawn.empty:
        return empty(NONE), drawn
    sections = list(drawn.groupby(list(WHERE), sort=True))
    drawing = Figure(figsize=(0.8 + 3.6 * len(sections), 3.5))
    for axes, (_, rows) in zip(drawing.subplots(1, len(sections), squeeze=False)[0], sections, strict=True):
        lines(axes, rows, "nfe")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_xlabel("forwards a text (NFE)")
        axes.set_title(scale_of(rows.recipe.iloc[0]) or "full scale")
    finish(drawing, drawn, BARS.format(n=drawn.n.min()))
    return drawing, drawn


def lines(axes: Axes, rows: DataFrame, x: str) -> None:
    """One line per recipe and rule over column `x`, in order of forward passes, with intervals of accuracy, and of `x`
    where columns `x_low` and `x_high` exist."""
    markers = rule_markers(rows)
    for key, line in rows.groupby(["recipe", "rule"], sort=False):
        assert isinstance(key, tuple)
        recipe, rule = map(str, key)
        line = line.sort_values(["nfe", "preset"], kind="stable")
        across = None
        if f"{x}_low" in line:
            across = [line[x] - line[f"{x}_low"], line[f"{x}_high"] - line[x]]
        adaptive = (line.tokens_per_step == "").all()
        axes.errorbar(
            line[x],
            line.accuracy,
            yerr=[line.accuracy - line.accuracy_low, line.accuracy_high - line.accuracy],
            xerr=across,
            color=colour(recipe),
            marker=markers[rule],
            markerfacecolor="white" if adaptive else colour(recipe),
            markersize=3.6,
            linewidth=0.9,
            elinewidth=0.7,
        )
    axes.set_ylim(min(0.95 * float(rows.accuracy_low.min()), 0.5), 1.02)


def rule_markers(rows: DataFrame) -> dict[str, str]:
    """Marker of each rule, assigned by name, so that it is the same in every panel."""
    return {rule: MARKERS[i % len(MARKERS)] for i, rule in enumerate(sorted(rows.rule.unique()))}


def finish(drawing: Figure, drawn: DataFrame, bars: str) -> None:
    """Add the axis label, the legend, and a footer that names seeds, engine, device and numerics class."""
    drawing.axes[0].set_ylabel("accuracy")
    markers = rule_markers(drawn)
    handles = []
    for key, line in drawn.groupby(["recipe", "rule"], sort=False):
        assert isinstance(key, tuple)
        recipe, rule = map(str, key)
        face = "white" if (line.tokens_per_step == "").all() else colour(recipe)
        label = f"{family(recipe)}, {rule}"
        handles.append(
            Line2D([], [], color=colour(recipe), marker=markers[rule], markerfacecolor=face, label=label)
        )
    wide = max(2, math.floor(drawing.get_figwidth() / 1.9))
    drawing.legend(handles=handles, loc="outside upper left", ncols=wide, fontsize=6.5)
    classes = dict.fromkeys(_class(*row) for row in drawn[list(WHERE)].itertuples(index=False))
    seeds = sorted({int(count) for count in drawn.seeds})
    networks = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    most = math.floor(22 * drawing.get_figwidth())  # characters of a line at this size
    said = [f"{bars}; train seeds: {networks}; hollow: adaptive", *classes]
    text = "\n".join(line for each in said for line in wrap(each, most))
    drawing.supxlabel(text, fontsize=6, color=OTHER, x=0.02, ha="left")


def _class(suite: str, scale: str, engine: str, device: str, numerics: str) -> str:
    kind = json.loads(numerics)
    shown = ", ".join(f"{name} {kind[name]}" for name in ("device", "dtype", "torch", "attention", "threads"))
    return f"{scale or 'full scale'}: engine {engine} on {device} ({shown})"
