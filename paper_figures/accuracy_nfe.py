"""Accuracy against forward passes per text: one curve per model and sampler, one point per setting.

The records hold accuracy and speed of the same decodings (`repro.results.tables.speed`); `accuracy_speed` draws these
points against tokens per second. Each engine, device and numerics class has its own panels. Colour and marker: sampler;
line style: noise of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from paper_figures import COLUMN, PAGE, End, dash, empty, family, footer, label_ends, order
from paper_figures.samplers import name_of, style_of
from repro.results.record import Record
from repro.results.store import scale_of
from repro.results.tables.speed import ADAPTIVE_PINS, WHERE, speeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLUMNS = [*WHERE, "recipe", "preset", "rule", "tokens_per_step", "accuracy", "accuracy_low", "accuracy_high"]
NONE = "no records of task speed yet"
BARS = "bars: 95 % Wilson interval of {n} documents"
DASHED = "solid: masked diffusion, dashed: uniform, dotted: left to right"


def query(records: Sequence[Record]) -> DataFrame:
    """The rows of the speed table, sorted by recipe, with column `rule`: the sampler whose curve a setting is a point
    of."""
    drawn = speeds(records)
    adaptive = drawn.tokens_per_step == ""
    drawn["rule"] = drawn.preset.where(~adaptive, drawn.preset.map(lambda name: ADAPTIVE_PINS.sub("", name)))
    key = [order(recipe) for recipe in drawn.recipe]
    return drawn.iloc[sorted(range(len(drawn)), key=lambda i: (*drawn[list(WHERE)].iloc[i], key[i], i))]


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per suite, scale, engine, device and numerics class."""
    found = query(records)
    drawn = found[[*COLUMNS, "nfe", "n", "seeds"]].reset_index(drop=True)
    if drawn.empty:
        return empty(NONE), drawn
    sections = list(drawn.groupby(list(WHERE), sort=True))
    wide = COLUMN if len(sections) == 1 else PAGE
    drawing = Figure(figsize=(wide, 2.9))
    for axes, (_, rows) in zip(drawing.subplots(1, len(sections), squeeze=False)[0], sections, strict=True):
        lines(axes, rows, "nfe")
        most = max(2.0, float(rows.nfe.max()))
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(0.9, 0.9 * rows.nfe.min()), 1.1 * most)
        ticks = [2**i for i in range(12) if 2**i <= 1.1 * most]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_xlabel("forward passes per text (NFE)")
        axes.set_title(scale_of(rows.recipe.iloc[0]) or "full scale")
        label_ends(axes, list(ends(rows, "nfe")), 6)
    finish(drawing, drawn, BARS.format(n=drawn.n.min()))
    return drawing, drawn


def curves(rows: DataFrame) -> Iterator[tuple[str, str, DataFrame]]:
    """Recipe, rule and points of each curve, the points in order of forward passes."""
    for key, line in rows.groupby(["recipe", "rule"], sort=False):
        assert isinstance(key, tuple)
        yield str(key[0]), str(key[1]), line.sort_values(["nfe", "preset"], kind="stable")


def lines(axes: Axes, rows: DataFrame, x: str) -> None:
    """One curve per recipe and rule over column `x`, in order of forward passes, with intervals of accuracy, and of `x`
    where columns `x_low` and `x_high` exist."""
    for recipe, rule, line in curves(rows):
        across = None
        if f"{x}_low" in line:
            across = [line[x] - line[f"{x}_low"], line[f"{x}_high"] - line[x]]
        style = style_of(rule)
        axes.errorbar(
            line[x],
            line.accuracy,
            yerr=[line.accuracy - line.accuracy_low, line.accuracy_high - line.accuracy],
            xerr=across,
            color=style.ink,
            linestyle=dash(recipe),
            marker=style.marker,
            markerfacecolor="white" if style.adaptive else style.ink,
            markersize=4.5 if style.adaptive else 3.2,
            markeredgewidth=0.8,
            linewidth=0.9,
            elinewidth=0.6,
        )
    axes.set_ylim(min(0.95 * float(rows.accuracy_low.min()), 0.5), 1.02)


def ends(rows: DataFrame, x: str) -> Iterator[End]:
    """The label of each curve, at its most accurate point."""
    for recipe, rule, line in curves(rows):
        best, style = line.loc[line.accuracy.idxmax()], style_of(rule)
        text = f"{family(recipe)}: {name_of(rule)}"
        yield End(best[x], best.accuracy, text, style.ink, style.marker, style.adaptive)


def finish(drawing: Figure, drawn: DataFrame, bars: str) -> None:
    """Add the axis label, and a footer that names seeds, engine, device and numerics class."""
    drawing.axes[0].set_ylabel("share of puzzles solved" if _sudoku(drawn) else "accuracy")
    classes = dict.fromkeys(_class(*row) for row in drawn[list(WHERE)].itertuples(index=False))
    seeds = sorted({int(count) for count in drawn.seeds})
    networks = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    said = f"{bars}; train seeds: {networks}; {DASHED}; hollow: adaptive samplers"
    footer(drawing, "\n".join([said, *classes]))


def _sudoku(drawn: DataFrame) -> bool:
    return all(scale_of(recipe).endswith("sudoku") for recipe in drawn.recipe)


def _class(suite: str, scale: str, engine: str, device: str, numerics: str) -> str:
    kind = json.loads(numerics)
    shown = ", ".join(f"{name} {kind[name]}" for name in ("device", "dtype", "torch", "attention", "threads"))
    return f"{scale or 'full scale'}: engine {engine} on {device} ({shown})"
