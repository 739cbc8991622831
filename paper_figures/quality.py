"""Quality against tokens per step: the cost of parallel decoding, one column per checkpoint, one line per sampler.

Rows: excess cross-entropy and bigram distance of the samples, accuracy on sudoku. An exact denoiser (oracle) shows the
sampler's error alone; a trained network adds its own. Open markers are adaptive samplers at their realised tokens per
forward pass. The grey band is the score of as many true samples, ± 2 standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from paper_figures import COLOURS, OTHER, bar, bar_sentence, colour, empty, footer, log2_axis, order
from repro.results.record import Record
from repro.results.report import checkpoint_order, scale_of, tokens_order
from repro.results.store import one_protocol, summarise, to_frame

METRICS = {"law": ("excess", "bigram"), "sudoku": ("accuracy",)}
UNITS = {"excess": "excess, nats a token", "bigram": "bigram distance²", "accuracy": "accuracy"}
TRUE = {"excess": "true_excess", "bigram": "true_bigram"}
SAMPLERS = {
    "ancestral": ("#4477AA", "o"),
    "random": ("#228833", "s"),
    "low_confidence": ("#EE6677", "^"),
    "margin": ("#AA3377", "v"),
    "entropy": ("#66CCEE", "D"),
    "threshold": ("#BB5500", "P"),
}
"""Colour and marker by preset name without its number (Tol's bright palette, distinct from the recipes' colours)."""
Dash = tuple[int, tuple[float, float]]
DASHES: tuple[Dash, ...] = ((0, (1, 1.5)), (0, (4, 2)), (0, (8, 2)))
COLUMNS = ["task", "scale", "metric", "checkpoint", "preset", "tokens_per_step", "tokens_per_nfe", "x"]
COLUMNS += ["value", "se", "sd_seeds", "seeds", "true_value", "true_se"]


def query(records: Sequence[Record]) -> DataFrame:
    """Points to draw; `x`: planned tokens per step, or realised ones (adaptive samplers and all tokens at once)."""
    frame = to_frame(records)
    rows = frame[frame.task.isin(list(METRICS))]
    rows = rows.assign(scale=rows.recipe.map(scale_of))
    for _, section in rows.groupby(["suite", "scale", "task"]):
        one_protocol(section)
    points = []
    for _, cell in summarise(rows).groupby("cell"):
        by_metric = cell.set_index("metric")
        for metric in METRICS[cell.task.iloc[0]]:
            if metric not in by_metric.index:
                continue
            point = by_metric.loc[metric].to_dict()
            planned = point["tokens_per_step"]
            point |= {"metric": metric, "scale": scale_of(point["recipe"])}
            point["x"] = float(planned) if planned not in ("", "all") else point["tokens_per_nfe"]
            if TRUE.get(metric) in by_metric.index:
                true = by_metric.loc[TRUE[metric]]
                point |= {"true_value": true.value, "true_se": true.se}
            points.append(point)
    points.sort(
        key=lambda p: (
            *(
                p["task"],
                p["scale"],
                METRICS[p["task"]].index(p["metric"]),
                checkpoint_order(p["checkpoint"]),
            ),
            *(p["preset"], tokens_order(p["tokens_per_step"])),
        )
    )
    return DataFrame(points, columns=COLUMNS)


def column_of(checkpoint: str) -> str:
    """`oracle:mdlm@nano` -> `oracle:mdlm`: tasks law and sudoku of one recipe share a column."""
    return checkpoint.partition("@")[0]


def column_order(column: str) -> tuple[bool, tuple[int, str]]:
    return not column.startswith("oracle:"), order(column.removeprefix("oracle:"))


def style_of(preset: str) -> tuple[str, str]:
    """Colour and marker of a sampler."""
    base = family_of(preset)
    return SAMPLERS.get(base, SAMPLERS.get(base.rpartition("_")[0], (OTHER, "X")))


def family_of(preset: str) -> str:
    """`low_confidence:temperature=1.0` -> `low_confidence`: one colour per sampler; row labels give the temperature."""
    return preset.partition(":")[0]


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One row per (scale, metric), one column per checkpoint; AR, with one token per step, is a horizontal line."""
    drawn = query(records)
    named = drawn.assign(column=drawn.checkpoint.map(column_of))
    reference = named[named.column == "ar"]
    named = named[named.column != "ar"]
    if named.empty:
        return empty("no records of tasks law and sudoku yet"), drawn
    dashes = dict(zip(sorted(reference.preset.unique()), DASHES, strict=False))
    rows = list(named[["scale", "metric"]].drop_duplicates().itertuples(index=False, name=None))
    columns = sorted(named.column.unique(), key=column_order)
    drawing = Figure(figsize=(0.9 + 1.2 * len(columns), 0.9 + 1.35 * len(rows)))
    grid = drawing.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
    for i, (scale, metric) in enumerate(rows):
        row = named[(named.scale == scale) & (named.metric == metric)]
        for axes, column in zip(grid[i], columns, strict=True):
            points = row[row.column == column]
            axes.set_visible(not points.empty)
            if not points.empty:
                _panel(axes, points)
            if not column.startswith("oracle:"):
                for line in reference[(reference.scale == scale) & (reference.metric == metric)].itertuples():
                    axes.axhline(
                        line.value, color=COLOURS["ar"], linewidth=0.8, linestyle=dashes[line.preset]
                    )
        drawn_at = ", T = 1" if row.preset.str.endswith(":temperature=1.0").any() else ""
        _name_row(grid[i], f"{UNITS[metric]}\n({scale or 'full scale'}{drawn_at})")
        if metric == "accuracy":
            grid[i, 0].set_ylim(0, 1.04)
        if metric == "bigram":  # values span a factor of 1,000, and an unbiased estimate may be negative
            grid[i, 0].set_yscale("symlog", linthresh=1e-4, linscale=0.5)
            grid[i, 0].set_ylim(min(-2e-4, 2 * row.value.min()), 2 * max(1e-3, row.value.max()))
    for axes, column in zip(grid.T, columns, strict=True):
        _name_column(axes, column)
    widest = float(named.x.max())
    grid[0, 0].set_xlim(0.8 * min(1.0, float(named.x.min())), 1.3 * widest)
    entries = max(2, int(drawing.get_figwidth() / 1.7))
    drawing.legend(handles=_legend(named, dashes), loc="outside upper left", ncols=entries)
    footer(drawing, bar_sentence(named.seeds), x=0.01)
    return drawing, drawn


def _panel(axes: Axes, points: DataFrame) -> None:
    true = points[["true_value", "true_se"]].dropna()
    if not true.empty:
        value, half = true.true_value.mean(), 2 * true.true_se.mean()
        axes.axhspan(value - half, value + half, color="#dddddd", linewidth=0)
    for preset, line in points.groupby("preset", sort=True):
        ink, marker = style_of(str(preset))
        half = [bar(*each) for each in zip(line.se, line.sd_seeds, line.seeds, strict=True)]
        adaptive = (line.tokens_per_step == "").all()
        face = "white" if adaptive else ink
        axes.errorbar(
            *(line.x, line.value, half),
            fmt=marker if adaptive else f"{marker}-",
            color=ink,
            markerfacecolor=face,
            markersize=4.5 if adaptive else 3.2,
            elinewidth=0.8,
            zorder=3 if adaptive else 2,
        )
    log2_axis(axes, [0.5, 1, 2, 4, 8, 16, 32])


def _name_row(panels: Sequence[Axes], text: str) -> None:
    first = next(axes for axes in panels if axes.get_visible())
    first.tick_params(axis="y", labelleft=True)
    if first is panels[0]:
        first.set_ylabel(text)
    else:  # the hidden panel beside it leaves room, so the layout need not move the columns apart
        name = first.annotate(text, (0, 0.5), (-26, 0), xycoords="axes fraction", textcoords="offset points")
        name.set(rotation=90, ha="right", va="center", multialignment="center", in_layout=False)
        name.set(color=first.yaxis.label.get_color(), fontsize=first.yaxis.label.get_fontsize())


def _name_column(panels: Sequence[Axes], column: str) -> None:
    visible = [axes for axes in panels if axes.get_visible()]
    visible[0].set_title(column, color=colour(column.removeprefix("oracle:")))
    visible[-1].set_xlabel("tokens per step")
    visible[-1].tick_params(axis="x", labelbottom=True)


def _legend(named: DataFrame, dashes: Mapping[str, Dash]) -> list[Line2D]:
    handles = []
    for preset, line in named.groupby(named.preset.map(family_of), sort=True):
        ink, marker = style_of(str(preset))
        adaptive = (line.tokens_per_step == "").all()
        handle = Line2D(
            [], [], color=ink, marker=marker, label=f"{preset} (adaptive)" if adaptive else f"{preset}"
        )
        if adaptive:
            handle.set(linestyle="none", markerfacecolor="white")
        handles.append(handle)
    for preset, dash in dashes.items():
        handles.append(
            Line2D([], [], color=COLOURS["ar"], linewidth=0.8, linestyle=dash, label=f"ar: {preset}")
        )
    if named.true_value.notna().any():
        handles.append(Line2D([], [], color="#dddddd", linewidth=5, label="true samples"))
    return handles
