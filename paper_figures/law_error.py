"""Error of the output distribution against tokens per step: which samplers converge, which are biased by construction.

One row per noise process and kind of sampler (at most MOST curves), one column per measure and denoiser. First column:
total variation on 27 sentences under the exact denoiser, by enumeration and free of sampling noise. The others: squared
bigram distance of samples on the oracle language, under the exact denoiser and two wrong ones (mixed with unigrams;
with noise on its logits), which separates a sampler's own error from its response to a wrong network. Solid lines
converge to the true law or reach it, dashed ones do not. The grey band is the range of the rules that seek modes
(temperature 0) and do not claim to. Hollow markers are adaptive rules at their realised number of tokens per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from pandas import DataFrame, Series, concat

from paper_figures import INK, PAGE, End, empty, footer, label_ends, name_row
from paper_figures.samplers import KINDS, name_of, style_of
from repro.results.certificates import Stored, to_frame

MOST = 8
"""Curves of a panel at most."""


class Column(NamedTuple):
    """A column of panels: which numbers of certificates it shows (`statistic`, `space`, `oracle`), its title, and the
    value `floor` below which its axis is linear."""

    statistic: str
    space: str
    oracle: str
    title: str
    floor: float


COLUMNS = (
    Column("total variation", "27 sentences", "exact", "3-word sentences,\nexact denoiser", 1e-3),
    *(
        Column("bigram distance squared", "strong", oracle, f"long sentences,\n{title}", 1e-4)
        for oracle, title in (
            ("exact", "exact denoiser"),
            ("mixed 0.1", "with 10 % unigrams"),
            ("noisy 0.5", "noise on its logits"),
        )
    ),
)
NOISES = {"absorbing": "Masked noise", "uniform": "Uniform noise"}
MODES = "#dddddd"
TICKS = [1 / 8, 1 / 2, 2, 8, 32]
SAYS = (
    "Each curve is a sampler: left few tokens per step (slow), right many (fast); 0 is the true law. Solid: converges "
    "to the true law or reaches it; dashed: does not. Hollow: adaptive, at its realised tokens per step. Grey: range "
    "of rules at temperature 0, which seek likely texts."
)


def query(certificates: Sequence[Stored]) -> DataFrame:
    """The points to draw, one row each."""
    frame = to_frame(certificates)
    frame = frame[frame.noise.isin(list(NOISES))]
    frame = frame[frame.verdict != "lossless"]  # lookahead has the law of its rule, which is drawn
    drawn = concat([frame[_of(frame, column)] for column in COLUMNS])
    columns = [
        "noise",
        "oracle",
        "statistic",
        "space",
        "preset",
        "claim",
        "verdict",
        "steps",
        "tokens_per_step",
    ]
    drawn = drawn[[*columns, "value", "se", "true"]].sort_values(
        ["noise", "oracle", "statistic", "preset", "tokens_per_step"], kind="stable"
    )
    return drawn.assign(steps=drawn.steps.astype("Int64")).reset_index(drop=True)


def _of(frame: DataFrame, column: Column) -> Series:
    """Mask of the rows that a column shows."""
    return (
        (frame.statistic == column.statistic)
        & (frame.space == column.space)
        & (frame.oracle == column.oracle)
    )


def rows(drawn: DataFrame) -> list[tuple[str, str, list[str]]]:
    """Noise, kind and presets of each row of panels: at most MOST presets, in alphabetical order."""
    found = []
    claimed = drawn[drawn.verdict != "modes"]
    for noise in NOISES:
        presets = sorted(claimed[claimed.noise == noise].preset.unique())
        for kind in KINDS:
            of_kind = [name for name in presets if style_of(name).kind == kind]
            found += [(noise, kind, of_kind[i : i + MOST]) for i in range(0, len(of_kind), MOST)]
    return found


def figure(certificates: Sequence[Stored]) -> tuple[Figure, DataFrame]:
    """One row per noise process and kind of sampler, one column per measure and denoiser."""
    drawn = query(certificates)
    if drawn.empty:
        return empty("no certificates yet"), drawn
    parts = rows(drawn)
    drawing = Figure(figsize=(PAGE, 0.6 + 1.42 * len(parts)))
    grid = drawing.subplots(len(parts), len(COLUMNS), squeeze=False)
    for i, (panels, (noise, kind, presets)) in enumerate(zip(grid, parts, strict=True)):
        name_row(panels, f"{NOISES[noise]}: {KINDS[kind]}", 18 if i == 0 else 0)
        for axes, column in zip(panels, COLUMNS, strict=True):
            chosen = drawn[(drawn.noise == noise) & _of(drawn, column)]
            _panel(axes, chosen, presets, column, band=kind == "confidence")
            if i == 0:
                axes.text(
                    0, 1.04, column.title, fontsize=6.5, color=INK, transform=axes.transAxes, in_layout=False
                )
        panels[0].set_ylabel("total variation", fontsize=6.5)
        panels[1].set_ylabel("bigram distance²", fontsize=6.5)
        last = drawn[(drawn.noise == noise) & _of(drawn, COLUMNS[-1])]
        means = last.groupby("preset").value.mean()
        ends = [
            _end(last[last.preset == preset], preset) for preset in sorted(presets, key=means.__getitem__)
        ]
        label_ends(panels[-1], ends, 6)
    for axes in grid[-1]:
        axes.set_xlabel("tokens per step")
    footer(drawing, SAYS)
    return drawing, drawn


def _end(line: DataFrame, preset: str) -> End:
    """The label of a curve, at its last point."""
    style = style_of(preset)
    x, y = float(line.tokens_per_step.iloc[-1]), float(line.value.iloc[-1])
    return End(x, y, name_of(preset), style.ink, style.marker, style.adaptive)


def _panel(axes: Axes, points: DataFrame, presets: Sequence[str], column: Column, band: bool) -> None:
    modes = points[points.verdict == "modes"].groupby("tokens_per_step").value
    if band and len(modes) > 1:
        low, high = modes.min(), modes.max()
        axes.fill_between(low.index, low, high, color=MODES, linewidth=0)
    for preset in presets:
        line, style = points[points.preset == preset], style_of(preset)
        biased = len(line) and line.verdict.iloc[0] in ("biased", "stuck")
        axes.plot(
            *(line.tokens_per_step, line.value),
            linestyle="--" if biased else "-",
            color=style.ink,
            marker=style.marker,
            markerfacecolor="white" if style.adaptive else style.ink,
            markersize=4.5 if style.adaptive else 2.6,
            markeredgewidth=0.8,
            linewidth=0.8,
            zorder=3 if style.adaptive else 2,
        )
    axes.set_xscale("log", base=2)
    axes.set_xlim(*((0.1, 4) if column.statistic == "total variation" else (0.4, 40)))
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}"))
    axes.set_yscale("symlog", linthresh=column.floor, linscale=0.4)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.set_yticks([0, *(column.floor * 10**i for i in range(4))])
    axes.set_ylim(-column.floor / 2, 1.2)
