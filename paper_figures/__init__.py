"""Figures of the paper: one module per figure, each with a query of the records and a drawing.

A module defines `figure(records) -> (Figure, DataFrame)`: the drawing and the numbers that it shows. A figure of
benchmarks or certificates takes those instead of records (`FIGURES` in `__main__.py`). Shared here: the colours of
recipes (Okabe and Ito's palette for colour-blind readers; those of samplers are in `samplers.py`), error bars, labels
at line ends, and the page for a figure without data. Figures are drawn COLUMN or PAGE inches wide, as they are printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import offset_copy

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
NOISE: dict[str, Literal["masked", "uniform", "left to right"]] = {
    "ar": "left to right",
    "llada": "masked",
    "mdlm": "masked",
    "duo": "uniform",
    "duo_nelbo": "uniform",
    "duo_script": "uniform",
    "duo_mended": "uniform",
}
"""What each recipe's model starts from, by the recipe's name: masks, random tokens, or nothing."""
DASHES = {"masked": "-", "uniform": "--", "left to right": ":"}
"""Line style by noise, in figures with samplers of several models."""
COLUMN, PAGE = 3.25, 6.75
"""Widths of a figure in inches: a column, and the text of a two-column page."""
OTHER = "#777777"
INK = "#333333"


def family(recipe: str) -> str:
    """The recipe's name without its scale: `mdlm@nano.text` -> `mdlm`."""
    return recipe.partition("@")[0]


def colour(recipe: str) -> str:
    """The recipe's colour in every figure; grey if it has none in COLOURS."""
    return COLOURS.get(family(recipe), OTHER)


def dash(recipe: str) -> str:
    """Line style of a recipe's model: solid masked, dashed uniform, dotted left to right."""
    return DASHES[NOISE.get(family(recipe), "masked")]


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
    single = "; of the evaluation where there is one seed" if min(seeds) == 1 else ""
    return f"bars: 95 % interval of the mean over {count} train seeds{single}"


def spread_out(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Label heights at least `gap` apart, in the same order and from `low` to `high`, moved as little as possible
    (least squares). Where there are too many for that, they extend beyond both ends alike."""
    from scipy.optimize import isotonic_regression

    beyond = max(0.0, gap * (len(heights) - 1) - (high - low)) / 2
    most = high + beyond - gap * (len(heights) - 1)
    rank = sorted(range(len(heights)), key=lambda i: heights[i])
    close = isotonic_regression([heights[i] - gap * k for k, i in enumerate(rank)]).x.clip(low - beyond, most)
    placed = {i: float(close[k]) + gap * k for k, i in enumerate(rank)}
    return [placed[i] for i in range(len(heights))]


@dataclass(frozen=True)
class End:
    """Label of a line: the point `x`, `y` (in data) that it belongs to, its text, colour and marker. `leader`: whether
    a thin line leads to the point."""

    x: float
    y: float
    text: str
    ink: str
    marker: str = ""
    hollow: bool = False
    leader: bool = True


def label_ends(axes: Axes, ends: Sequence[End], size: float = 6.5) -> None:
    """Write labels to the right of an axes, at the heights of their points and without overlap; call after setting
    limits and scales. Labels of (nearly) equal heights stand in the order given, from below. `size`: of the font, in
    points."""
    if not ends:
        return
    root = axes.get_figure(root=True)
    assert root is not None
    axes.autoscale_view()  # the transform below does not do so by itself
    place = axes.transData + axes.transAxes.inverted()
    panel = 72 * axes.get_window_extent().height / root.dpi  # in points, before the layout: about right
    points = [round(float(place.transform((end.x, end.y))[1]), 2) for end in ends]
    # the lowest may stand half a line below the panel; above it is the title
    heights = spread_out(
        [height + 1e-6 * i for i, height in enumerate(points)], 1.6 * size / panel, -0.05, 1.0
    )
    for end, height in zip(ends, heights, strict=True):
        tip, middle, start = (offset_copy(axes.transAxes, root, x=x, units="points") for x in (4, 8, 13))
        if end.leader:
            axes.annotate(
                "",
                (end.x, end.y),
                (1, height),
                textcoords=tip,
                arrowprops={
                    "arrowstyle": "-",
                    "linewidth": 0.4,
                    "color": end.ink,
                    "shrinkA": 0,
                    "shrinkB": 1,
                },
                annotation_clip=False,
            )
        if end.marker:
            face = "white" if end.hollow else end.ink
            axes.plot(
                *([1], [height], end.marker),
                color=end.ink,
                markerfacecolor=face,
                markersize=4 if end.hollow else 3.4,
                markeredgewidth=0.8,
                transform=middle,
                clip_on=False,
            )
        axes.text(
            *(1, height, end.text),
            color=end.ink,
            va="center",
            fontsize=size,
            transform=start if end.marker else middle,
            clip_on=False,
            gid=End.__name__,
        )


def name_row(panels: Sequence[Axes], text: str, above: float = 0) -> None:
    """Write `text` above a row of panels, from the left, `above` points higher than their titles."""
    panels[0].set_title(
        " ", pad=6 + above
    )  # room for it; a title wider than its panel would move the panels apart
    panels[0].annotate(
        text,
        *((0, 1), (0, 6 + above)),
        xycoords="axes fraction",
        textcoords="offset points",
        color=INK,
        fontsize=7.5,
        in_layout=False,
    )


def footer(drawing: Figure, text: str, x: float = 0.02) -> None:
    """Write small grey text below a figure, in lines that fit its width."""
    most = math.floor(23 * drawing.get_figwidth() - 5)  # characters of a line at this size
    lines = [line for paragraph in text.split("\n") for line in wrap(paragraph, most)]
    drawing.supxlabel("\n".join(lines), fontsize=6, color=OTHER, x=x, ha="left")


def log2_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the x axis logarithmic in base 2, with plain numbers at `ticks`."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def log10_axis(axes: Axes, subs: Sequence[int]) -> None:
    """Make the y axis logarithmic in base 10, with plain numbers at the multiples `subs` of powers of 10."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def empty(sentence: str) -> Figure:
    """A page with a sentence that says why nothing is drawn."""
    drawing = Figure(figsize=(3.4, 0.8))
    drawing.text(0.5, 0.5, sentence, ha="center", va="center", color=INK)
    return drawing
