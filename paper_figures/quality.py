"""Quality against tokens per step: the cost of parallel decoding, one panel per model, one curve per sampler.

Rows: excess cross-entropy and bigram distance of the samples, accuracy on sudoku. An exact denoiser shows the sampler's
error alone; a trained network adds its own. Hollow markers are adaptive samplers at their realised tokens per forward
pass. The grey band is the score of as many true samples, ± 2 standard errors; black lines are the left-to-right model,
with one token per step. A model with more than MOST samplers has two panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from pandas import DataFrame

from paper_figures import (
    COLOURS,
    INK,
    NOISE,
    PAGE,
    End,
    bar,
    bar_sentence,
    empty,
    family,
    footer,
    label_ends,
    log2_axis,
    order,
)
from paper_figures.samplers import name_of, style_of
from repro.results.record import Record
from repro.results.store import checkpoint_order, one_protocol, scale_of, summarise, to_frame, tokens_order

METRICS = {"law": ("excess", "bigram"), "sudoku": ("accuracy",)}
UNITS = {
    "excess": "excess over the true\nlaw, nats per token",
    "bigram": "bigram distance²\nfrom the true law",
    "accuracy": "share of puzzles solved",
}
TRUE = {"excess": "true_excess", "bigram": "true_bigram"}
TRUTH = "#dddddd"
MOST = 8
"""Curves of a panel at most, without those of the left-to-right model."""
SAYS = (
    "Exact denoiser: no network, so only the sampler errs. Grey band: as many true samples. Hollow: adaptive samplers, "
    "at their realised tokens per step."
)
COLUMNS = ["task", "scale", "metric", "checkpoint", "preset", "tokens_per_step", "tokens_per_nfe", "x"]
COLUMNS += ["value", "se", "sd_seeds", "seeds", "true_value", "true_se"]


def query(records: Sequence[Record]) -> DataFrame:
    """Points to draw; `x`: planned tokens per step, or realised ones (adaptive samplers and all tokens at once)."""
    rows = to_frame(record for record in records if record.labels.task in METRICS)
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
    made = DataFrame(points, columns=COLUMNS)
    return made.assign(recipe_family=made.checkpoint.map(family))


class Panel(NamedTuple):
    """A panel: the checkpoint and the presets that it shows; `note` tells panels of one checkpoint apart."""

    checkpoint: str
    presets: list[str]
    note: str


def panels(points: DataFrame) -> list[Panel]:
    """The panels of one task at one scale: uniform noise first, exact denoisers before networks, those of the
    confidence rules last where a model has more than MOST presets."""
    found = []
    for checkpoint in sorted(points.checkpoint.unique(), key=_place):
        presets = sorted(points[points.checkpoint == checkpoint].preset.unique())
        sure = [name for name in presets if style_of(name).kind == "confidence"]
        rest = [name for name in presets if name not in sure]
        split = {"": presets}
        if len(presets) > MOST:
            split = {"random order, or revising": rest, "surest positions first": sure}
        for note, part in split.items():
            found += [Panel(checkpoint, part[i : i + MOST], note) for i in range(0, len(part), MOST)]
    return found


def _place(checkpoint: str) -> tuple[bool, bool, tuple[int, str]]:
    recipe = checkpoint.removeprefix("oracle:")
    return NOISE.get(family(recipe)) != "uniform", checkpoint == recipe, order(recipe)


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One block per task and scale: one row per metric, one column per panel."""
    drawn = query(records)
    left = drawn.recipe_family == "ar"
    blocks = [
        (task, scale, points) for (task, scale), points in drawn[~left].groupby(["task", "scale"], sort=True)
    ]
    drawn = drawn.drop(columns="recipe_family")
    if not blocks:
        return empty("no records of tasks law and sudoku yet"), drawn
    # a panel is as high as the labels beside it
    heights = [0.62 + max(1.6, 1.3 * len(METRICS[str(task)])) for task, _, _ in blocks]
    drawing = Figure(figsize=(PAGE, sum(heights) + 0.3))
    strips = drawing.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for strip, (task, scale, points) in zip(strips, blocks, strict=True):
        same = left & (drawn.task == task) & (drawn.scale == scale)
        _block(strip, points, drawn[same], [m for m in METRICS[str(task)] if m in set(points.metric)])
        strip.suptitle(_title(str(task), str(scale)), x=0.01, ha="left", fontsize=7.5, color=INK)
    footer(drawing, f"{SAYS} {bar_sentence(drawn[~left].seeds).capitalize()}.", x=0.01)
    return drawing, drawn


def _title(task: str, scale: str) -> str:
    what = {"law": "Samples of a synthetic language", "sudoku": "4x4 sudoku"}[task]
    return f"{what} (scale {scale})" if scale else what


def _block(strip: SubFigure, points: DataFrame, left: DataFrame, metrics: Sequence[str]) -> None:
    """Panels of one task and scale; `left`: points of the left-to-right model."""
    columns = panels(points)
    grid = strip.subplots(len(metrics), len(columns), squeeze=False, sharex=True, sharey="row")
    widest, least = float(points.x.max()), min(1.0, float(points.x.min()))
    for row, metric in zip(grid, metrics, strict=True):
        here = points[points.metric == metric]
        lines = left[left.metric == metric]
        for axes, panel in zip(row, columns, strict=True):
            _panel(axes, here[(here.checkpoint == panel.checkpoint) & here.preset.isin(panel.presets)])
            if not panel.checkpoint.startswith("oracle:"):
                for value in lines.value:
                    axes.axhline(value, color=COLOURS["ar"], linewidth=0.8, linestyle=":")
        row[0].set_ylabel(UNITS[metric], fontsize=7)
        row[0].set_xlim(0.8 * least, 1.25 * widest)
        if metric == "accuracy":
            row[0].set_ylim(0, 1.04)
        if metric == "bigram":  # values span a factor of 1,000, and an unbiased estimate may be negative
            row[0].set_yscale("symlog", linthresh=1e-4, linscale=0.5)
            row[0].set_ylim(min(-2e-4, 2 * here.value.min()), 2 * max(1e-3, here.value.max()))
        for i, (axes, panel) in enumerate(zip(row, columns, strict=True)):
            later = {name for other in columns[i + 1 :] for name in other.presets}
            shown = here[(here.checkpoint == panel.checkpoint) & here.preset.isin(panel.presets)]
            ends = _ends(shown[~shown.preset.isin(later)])
            if i == len(columns) - 1:
                ends += [End(1.25 * widest, x.value, f"ar: {x.preset}", INK) for x in lines.itertuples()]
            label_ends(axes, ends, 6)
    for axes, panel in zip(grid[0], columns, strict=True):
        axes.set_title(_name(panel), fontsize=6.5, color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("tokens per step", fontsize=7)


def _name(panel: Panel) -> str:
    """Title of a panel: what denoises, and from what noise."""
    recipe = family(panel.checkpoint.removeprefix("oracle:"))
    who = "exact denoiser" if panel.checkpoint.startswith("oracle:") else recipe
    lines = [who, f"{NOISE[recipe]} noise" if recipe in NOISE else "", panel.note]
    return "\n".join([lines[0], ", ".join(filter(None, lines[1:]))])


def _ends(points: DataFrame) -> list[End]:
    """Labels of the curves in a panel, from the lowest."""
    means = points.groupby("preset").value.mean().sort_values(kind="stable")
    ends = []
    for preset in means.index:
        last, style = points[points.preset == preset].iloc[-1], style_of(str(preset))
        ends.append(End(last.x, last.value, name_of(str(preset)), style.ink, style.marker, style.adaptive))
    return ends


def _panel(axes: Axes, points: DataFrame) -> None:
    true = points[["true_value", "true_se"]].dropna()
    if not true.empty:
        value, half = true.true_value.mean(), 2 * true.true_se.mean()
        axes.axhspan(value - half, value + half, color=TRUTH, linewidth=0)
    for preset, line in points.groupby("preset", sort=True):
        style = style_of(str(preset))
        half = [bar(*each) for each in zip(line.se, line.sd_seeds, line.seeds, strict=True)]
        axes.errorbar(
            *(line.x, line.value, half),
            fmt=style.marker if style.adaptive else f"{style.marker}-",
            color=style.ink,
            markerfacecolor="white" if style.adaptive else style.ink,
            markersize=4.5 if style.adaptive else 2.8,
            markeredgewidth=0.8,
            linewidth=0.9,
            elinewidth=0.7,
            zorder=3 if style.adaptive else 2,
        )
    log2_axis(axes, [1, 4, 16])
