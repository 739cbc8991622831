"""Figures of the paper: one script a figure, each a query of the records and a drawing.

A script has `figure(records) -> (Figure, DataFrame)`: the drawing, and the numbers it was drawn from (one that
draws a bench takes its rows instead). Shared here: colours (Okabe and Ito's, told apart by colour-blind readers;
one recipe has one colour in every figure), the error that a bar shows, and the page that is drawn when there are
no records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ar": "#000000",
    "llada": "#E69F00",
    "mdlm": "#0072B2",
    "duo": "#CC79A7",
    "duo_nelbo": "#009E73",
    "duo_script": "#D55E00",
}
"""By recipe, without its scale, in the order in which recipes are drawn."""
OTHER = "#777777"
INK = "#333333"


def family(recipe: str) -> str:
    """`mdlm@nano.text` -> `mdlm`."""
    return recipe.partition("@")[0]


def colour(recipe: str) -> str:
    """The recipe's colour in every figure (grey for one that has no line in COLOURS)."""
    return COLOURS.get(family(recipe), OTHER)


def order(recipe: str) -> tuple[int, str]:
    """Sorts recipes as COLOURS lists them, unknown ones last."""
    names = list(COLOURS)
    name = family(recipe)
    return names.index(name) if name in names else len(names), recipe


def bar(se: float, sd_seeds: float) -> float:
    """Half length of an error bar: standard deviation over train seeds, or standard error of a single one."""
    half = se if math.isnan(sd_seeds) else sd_seeds
    return 0.0 if math.isnan(half) else half


def bar_sentence(seeds: Sequence[int]) -> str:
    """What the bars of a figure show, for its footer."""
    if not len(seeds) or max(seeds) == 1:
        return "bars: ± 1 standard error of the evaluation (one train seed)"
    count = str(max(seeds)) if min(seeds) in (1, max(seeds)) else f"up to {max(seeds)}"
    single = "; oracles: standard error of the evaluation" if min(seeds) == 1 else ""
    return f"bars: ± 1 standard deviation over {count} train seeds{single}"


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Heights of labels at least `gap` apart, same order, moved as little as possible (least squares)."""
    from scipy.optimize import isotonic_regression

    rank = sorted(range(len(heights)), key=lambda i: heights[i])
    close = isotonic_regression([heights[i] - gap * k for k, i in enumerate(rank)]).x
    placed = {i: float(close[k]) + gap * k for k, i in enumerate(rank)}
    return [placed[i] for i in range(len(heights))]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write (x, y, text, colour) right of line ends without overlap; call once the limits are final."""
    place = axes.transData + axes.transAxes.inverted()
    heights = spread_out([float(place.transform((x, y))[1]) for x, y, _, _ in ends], 0.085)
    for (x, _, text, ink), height in zip(ends, heights, strict=True):
        axes.annotate(
            text,
            (x, height),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=ink,
            va="center",
            fontsize=7,
            annotation_clip=False,
        )


def empty(sentence: str) -> Figure:
    """A page that says why nothing is drawn."""
    drawing = Figure(figsize=(3.4, 0.8))
    drawing.text(0.5, 0.5, sentence, ha="center", va="center", color=INK)
    return drawing
