"""Figures of the paper: one module per figure, each with a query of the records and a drawing.

A module defines `figure(records) -> (Figure, DataFrame)`: the drawing and the numbers that it shows. A figure of
benchmarks or certificates takes those instead of records (`FIGURES` in `__main__.py`). Shared here: colours (Okabe and
Ito's palette for colour-blind readers; a recipe has the same colour in every figure), error bars, labels at line ends,
and the page for a figure without data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from repro.core.stats import NORMAL, two_sided

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ar": "#000000",
    "llada": "#E69F00",
    "mdlm": "#0072B2",
    "duo": "#CC79A7",
    "duo_nelbo": "#009E73",
    "duo_script": "#D55E00",
    "duo_mended": "#56B4E9",
}
"""Colour of each recipe (without its scale), in drawing order."""
OTHER = "#777777"
INK = "#333333"


def family(recipe: str) -> str:
    """The recipe's name without its scale: `mdlm@nano.text` -> `mdlm`."""
    return recipe.partition("@")[0]


def colour(recipe: str) -> str:
    """The recipe's colour in every figure; grey if it has none in COLOURS."""
    return COLOURS.get(family(recipe), OTHER)


def order(recipe: str) -> tuple[int, str]:
    """Sort key: recipes in the order of COLOURS, others after them by name."""
    names = list(COLOURS)
    name = family(recipe)
    return names.index(name) if name in names else len(names), recipe


def bar(se: float, sd_seeds: float, seeds: int) -> float:
    """Half length of an error bar, half of a 95 % interval of the mean: over train seeds by Student's t, for a single
    seed 1.96 standard errors of the evaluation."""
    half = NORMAL * se if math.isnan(sd_seeds) else two_sided(0.95, seeds - 1) * sd_seeds / math.sqrt(seeds)
    return 0.0 if math.isnan(half) else half


def bar_sentence(seeds: Sequence[int]) -> str:
    """Footer sentence that says what the error bars of a figure show; `seeds`: train seeds behind each point."""
    if not len(seeds) or max(seeds) == 1:
        return "bars: 95 % interval of the evaluation (one train seed)"
    count = str(max(seeds)) if min(seeds) in (1, max(seeds)) else f"up to {max(seeds)}"
    single = "; oracles: of the evaluation" if min(seeds) == 1 else ""
    return f"bars: 95 % interval of the mean over {count} train seeds{single}"


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Label heights at least `gap` apart, in the same order, moved as little as possible (least squares)."""
    from scipy.optimize import isotonic_regression

    rank = sorted(range(len(heights)), key=lambda i: heights[i])
    close = isotonic_regression([heights[i] - gap * k for k, i in enumerate(rank)]).x
    placed = {i: float(close[k]) + gap * k for k, i in enumerate(rank)}
    return [placed[i] for i in range(len(heights))]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels (x, y, text, colour) to the right of line ends without overlap; call after setting the limits."""
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


def footer(drawing: Figure, text: str, x: float = 0.02) -> None:
    """Write small grey text below a figure."""
    drawing.supxlabel(text, fontsize=6.5, color=OTHER, x=x, ha="left")


def log2_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the x axis logarithmic in base 2, with plain numbers at `ticks`."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def empty(sentence: str) -> Figure:
    """A page with a sentence that says why nothing is drawn."""
    drawing = Figure(figsize=(3.4, 0.8))
    drawing.text(0.5, 0.5, sentence, ha="center", va="center", color=INK)
    return drawing
