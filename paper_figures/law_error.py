"""Error of the output distribution against tokens per step: which samplers converge, which are biased by construction.

One column per noise process and denoiser (exact; mixed with unigrams; with noise on its logits), which separates a
sampler's own error from its response to a wrong network. Above: total variation on 27 sentences, by enumeration and
free of sampling noise. Below: squared bigram distance on the oracle language. Solid lines converge to the law or reach
it, dashed ones do not; dotted ones are rules that seek modes and do not claim to. Open markers are adaptive rules at
their realised number of tokens per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from pandas import DataFrame

from paper_figures import INK, empty
from repro.results.certificates import Stored, to_frame

COLUMNS = [
    (noise, oracle) for noise in ("absorbing", "uniform") for oracle in ("exact", "mixed 0.1", "noisy 0.5")
]
ROWS = {
    "total variation": ("27 sentences", "total variation\n(27 sentences, exact)", 1e-3),
    "bigram distance squared": ("strong", "bigram distance²\n(oracle language)", 1e-4),
}
TITLES = {"exact": "exact", "mixed 0.1": "+ .1 unigrams", "noisy 0.5": "logits ± .5"}
INKS = ("#4477AA", "#228833", "#EE6677", "#AA3377", "#66CCEE", "#BB5500", "#222255", "#999933", "#CC6677")
MARKERS = "osD^vPX<>"
MODES = "#bbbbbb"
TICKS = [1 / 8, 1 / 2, 2, 8, 32]


def query(certificates: Sequence[Stored]) -> DataFrame:
    """The points to draw, one row each."""
    frame = to_frame(certificates)
    wanted = [
        (frame.statistic == statistic) & (frame.space == space) for statistic, (space, *_) in ROWS.items()
    ]
    drawn = frame[wanted[0] | wanted[1]]
    drawn = drawn[drawn.verdict != "lossless"]  # lookahead has the law of its rule, which is drawn
    drawn = drawn[drawn.noise.isin([n for n, _ in COLUMNS]) & drawn.oracle.isin([o for _, o in COLUMNS])]
    columns = ["noise", "oracle", "statistic", "preset", "claim", "verdict", "steps", "tokens_per_step"]
    drawn = drawn[[*columns, "value", "se", "true"]].sort_values(
        ["noise", "oracle", "statistic", "preset", "tokens_per_step"], kind="stable"
    )
    return drawn.assign(steps=drawn.steps.astype("Int64")).reset_index(drop=True)


def style_of(presets: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each preset, assigned in alphabetical order."""
    return {
        name: (INKS[i % len(INKS)], MARKERS[(i + i // len(INKS)) % len(MARKERS)])
        for i, name in enumerate(sorted(presets))
    }


def figure(certificates: Sequence[Stored]) -> tuple[Figure, DataFrame]:
    """One row per statistic, one column per noise process and denoiser."""
    drawn = query(certificates)
    if drawn.empty:
        return empty("no certificates yet"), drawn
    styles = style_of(drawn[drawn.verdict != "modes"].preset.unique())
    entries = len(styles) + 2
    drawing = Figure(figsize=(7.4, 3.6 + 0.16 * (entries // 4)))
    grid = drawing.subplots(len(ROWS), len(COLUMNS), sharex="row", sharey="row")
    for line, (statistic, (_, label, floor)) in zip(grid, ROWS.items(), strict=True):
        for axes, (noise, oracle) in zip(line, COLUMNS, strict=True):
            chosen = drawn[(drawn.noise == noise) & (drawn.oracle == oracle) & (drawn.statistic == statistic)]
            _panel(axes, chosen, styles, floor)
        line[0].set_ylabel(label)
    for axes, (noise, oracle) in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(f"{noise}\n{TITLES[oracle]}", color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("tokens per step")
    drawing.legend(handles=_legend(drawn, styles), loc="outside lower left", ncols=4)
    return drawing, drawn


def _panel(axes: Axes, points: DataFrame, styles: dict[str, tuple[str, str]], floor: float) -> None:
    for preset, line in points.groupby("preset", sort=True):
        modes, adaptive = line.verdict.iloc[0] == "modes", bool(line.steps.isna().all())
        ink, marker = (MODES, ".") if modes else styles[str(preset)]
        axes.plot(
            *(line.tokens_per_step, line.value),
            linestyle=_dash(line.verdict.iloc[0]),
            color=ink,
            marker=marker,
            markerfacecolor="white" if adaptive else ink,
            markersize=2.5,
            linewidth=0.9,
            zorder=1 if modes else 2,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}"))
    axes.set_yscale("symlog", linthresh=floor, linscale=0.4)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.set_yticks([0, *(floor * 10**i for i in range(4))])
    axes.set_ylim(-floor / 2, 1.2)


def _dash(verdict: str) -> Literal[":", "--", "-"]:
    dashes: dict[str, Literal[":", "--"]] = {"modes": ":", "biased": "--", "stuck": "--"}
    return dashes.get(verdict, "-")


def _legend(drawn: DataFrame, styles: dict[str, tuple[str, str]]) -> list[Line2D]:
    handles = []
    for preset, (ink, marker) in styles.items():
        rows = drawn[drawn.preset == preset]
        adaptive = bool(rows.steps.isna().all())
        handles.append(
            Line2D(
                *([], []),
                color=ink,
                marker=marker,
                markersize=3,
                linestyle=_dash(rows.verdict.iloc[0]),
                markerfacecolor="white" if adaptive else ink,
                label=preset.replace(":temperature=1.0", ", T = 1"),
            )
        )
    handles.append(Line2D([], [], color=MODES, marker=".", linestyle=":", label="seeks modes (T = 0)"))
    return handles
