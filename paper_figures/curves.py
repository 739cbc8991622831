"""Training curves: the held-out bound of all recipes in one panel per scale, and the training loss of each recipe.

Bounds are comparable; losses of different objectives are not, so each recipe's loss has its own panel. A loss is drawn
as means over BINS equal parts of the run. Thin lines are train seeds, labels stand at their mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import INK, PAGE, End, colour, empty, family, label_ends, log10_axis, order
from repro.results.record import Record
from repro.results.store import scale_of

BINS = 60
COLUMNS = ["scale", "recipe", "train_seed", "curve", "step", "value"]
WIDE = 3  # panels of training loss side by side


def binned(steps: Sequence[float], values: Sequence[float], bins: int) -> list[tuple[float, float]]:
    """(mean step, mean value) of up to `bins` consecutive groups with equally many points."""
    assert len(steps) == len(values)
    count = min(bins, len(steps))
    cuts = [len(steps) * i // count for i in range(count + 1)] if count else [0]
    return [(fmean(steps[a:b]), fmean(values[a:b])) for a, b in pairwise(cuts)]


def query(records: Sequence[Record]) -> DataFrame:
    """Points to draw, one row each: `curve` is `loss` (binned) or `nll_bound` (as measured, nats per token)."""
    found = {}
    for record in sorted(records, key=lambda record: record.sha256):
        labels, curve = record.labels, record.answer.curve
        if labels.task == "training" and curve:
            found[labels.recipe, record.question.checkpoint.seed] = curve
    points = []
    for recipe, seed in sorted(found, key=lambda key: (scale_of(key[0]), order(key[0]), key[1])):
        curve = found[recipe, seed]
        lines = {"loss": binned(curve["step"], curve["loss"], BINS)}
        if "nll_bound" in curve:
            lines["nll_bound"] = list(zip(curve["heldout_step"], curve["nll_bound"], strict=True))
        points += [
            [scale_of(recipe), recipe, seed, name, *point] for name, line in lines.items() for point in line
        ]
    return DataFrame(points, columns=COLUMNS)


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """Held-out bounds above, one panel per scale; training losses below, one panel per recipe."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task training yet"), drawn
    bounds, losses = drawn[drawn.curve == "nll_bound"], drawn[drawn.curve == "loss"]
    scales, recipes = list(bounds.scale.unique()), list(losses.recipe.unique())
    rows = math.ceil(len(recipes) / WIDE)
    above = 2.1 if scales else 0.0
    drawing = Figure(figsize=(PAGE, above + 1.35 * rows))
    halves = drawing.subfigures(2, 1, squeeze=False, height_ratios=[max(above, 0.01), 1.35 * rows])[:, 0]
    top, bottom = halves
    panels = list(top.subplots(1, len(scales), squeeze=False)[0]) if scales else []
    if scales:
        for axes, scale in zip(panels, scales, strict=True):
            _bounds(axes, bounds[bounds.scale == scale])
            axes.set_title(scale or "full scale")
        panels[0].set_ylabel("held-out bound, nats a token")
    grid = bottom.subplots(rows, WIDE, squeeze=False)
    for axes, recipe in zip(grid.flat, recipes, strict=False):
        _lines(axes, losses[losses.recipe == recipe])
        axes.set_title(recipe, color=colour(recipe) if colour(recipe) != "#000000" else INK)
    for axes in grid.flat[len(recipes) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("training loss")
    for axes in drawing.axes:
        axes.locator_params(axis="x", nbins=3 if axes in panels and len(panels) > 3 else 5)
    for column in range(WIDE):
        below = [axes for axes in grid[:, column] if axes.get_visible()]
        if below:
            below[-1].set_xlabel("optimizer step")
    return drawing, drawn


def _lines(axes: Axes, points: DataFrame) -> list[End]:
    """Draw every seed of every recipe; returns the label of each recipe's lines."""
    ends = []
    for recipe, of_recipe in points.groupby("recipe", sort=False):
        last = []
        for _, line in of_recipe.groupby("train_seed"):
            axes.plot(line.step, line.value, color=colour(str(recipe)), linewidth=0.9, alpha=0.8)
            last.append(line.iloc[-1])
        x, y = max(p.step for p in last), fmean(p.value for p in last)
        ends.append(End(x, y, family(str(recipe)), colour(str(recipe))))
    return ends


def _bounds(axes: Axes, points: DataFrame) -> None:
    ends = _lines(axes, points)
    axes.set_xlim(0, 1.02 * max(end.x for end in ends))
    if (
        points.value.min() > 0 and points.value.max() > 3 * points.value.min()
    ):  # one recipe is far above the rest
        log10_axis(axes, (1, 2, 5))
    axes.set_xlabel("optimizer step")
    label_ends(axes, ends)
