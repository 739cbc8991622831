"""Likelihood estimators against cost: error, bias, and their effect on multiple choice by likelihood.

One column per model: the exact denoiser, whose conditionals agree with one joint distribution, and trained networks,
whose do not (their reference is the bound over all masked subsets). The x axis is forward passes per answer, so that
estimators are compared at equal cost. Rows: standard deviation and mean of the error of a score, accuracy (dotted:
without Monte Carlo error), and the share of questions whose answer changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import INK, OTHER, PAGE, End, bar, bar_sentence, empty, footer, label_ends, log2_axis
from repro.results.record import Record
from repro.results.store import checkpoint_order, one_protocol, summarise, to_frame

SUITE = "draws"
MEASURED = {
    "variance": "standard deviation\nof the error, nats",
    "bias": "mean error, nats",
    "accuracy": "accuracy",
    "flips": "share of answers\nthat change",
}
EXACT = "accuracy_exact"
STYLE = {
    "levels": ("#0072B2", "o"),
    "pilot": ("#56B4E9", "s"),
    "llada_mc": ("#009E73", "^"),
    "llada_round": ("#D55E00", "v"),
    "elbo_t": ("#CC79A7", "D"),
}
"""Colour and marker of each task; tasks are named by their estimator."""
TICKS = [4, 16, 64]
COLUMNS = [
    "checkpoint",
    "estimator",
    "draws",
    "forwards",
    "measured",
    "value",
    "se",
    "sd_seeds",
    "n",
    "seeds",
]


def query(records: Sequence[Record]) -> DataFrame:
    """One row per (checkpoint, estimator, draws, measured); `draws` is missing for the accuracy of the exact bound."""
    rows = to_frame(record for record in records if record.labels.suite == SUITE)
    for _, section in rows.groupby("task"):
        one_protocol(section)
    mean = summarise(rows)
    points = []
    for _, group in mean.groupby(["checkpoint", "task"], sort=False):
        checkpoint, estimator = group.checkpoint.iloc[0], group.task.iloc[0]
        metrics = group.set_index("metric")
        for metric, row in metrics.iterrows():
            measured, _, draws = str(metric).rpartition("_")
            if measured not in MEASURED:
                continue
            known = metric != EXACT
            forwards = metrics.value[f"forwards_{draws}"] if known else float("nan")
            place = (int(draws) if known else None, forwards, measured if known else EXACT)
            points.append([checkpoint, estimator, *place, row.value, row.se, row.sd_seeds, row.n, row.seeds])
    points.sort(key=_order)
    return DataFrame(points, columns=COLUMNS).astype({"draws": "Int64"})


def _order(point: list) -> tuple:
    checkpoint, estimator, draws, _, measured, *_ = point
    names = list(STYLE)
    place = names.index(estimator) if estimator in names else len(names)
    return checkpoint_order(checkpoint), place, estimator, measured, draws or 0


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One column per model, one row per measured number."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task levels (suite draws) yet"), drawn
    models = list(drawn.checkpoint.unique())
    drawing = Figure(figsize=(PAGE, 6.2))
    grid = drawing.subplots(len(MEASURED), len(models), squeeze=False, sharex=True, sharey="row")
    for column, model in enumerate(models):
        for line, (axes, (measured, label)) in enumerate(zip(grid[:, column], MEASURED.items(), strict=True)):
            rows = drawn[drawn.checkpoint == model]
            _panel(axes, rows[rows.measured == measured], measured)
            if measured == "accuracy":
                exact = rows[rows.measured == EXACT].value.iloc[0]
                axes.axhline(exact, color=OTHER, linestyle=":", linewidth=1)
            if column == 0:
                axes.set_ylabel(label)
            if line == 0:
                axes.set_title(model.replace("oracle:", "exact denoiser, "), color=INK)
            later = set(drawn[drawn.checkpoint.isin(models[column + 1 :])].estimator)
            label_ends(
                axes, _ends(rows[(rows.measured == measured) & ~rows.estimator.isin(later)], measured), 6
            )
        grid[-1, column].set_xlabel("forward passes per answer")
    footer(drawing, bar_sentence(drawn.seeds))
    return drawing, drawn


def _ends(points: DataFrame, measured: str) -> list[End]:
    """Labels of the curves, at their last points."""
    ends = []
    for estimator, line in points.groupby("estimator", sort=False):
        ink, marker = STYLE.get(str(estimator), (OTHER, "."))
        value = float(line.value.iloc[-1])
        y = value**0.5 if measured == "variance" else value
        ends.append(End(float(line.forwards.iloc[-1]), y, str(estimator), ink, marker))
    return ends


def _panel(axes: Axes, points: DataFrame, measured: str) -> None:
    for estimator, line in points.groupby("estimator", sort=False):
        ink, marker = STYLE.get(str(estimator), (OTHER, "."))
        halves = [bar(*each) for each in zip(line.se, line.sd_seeds, line.seeds, strict=True)]
        value = line.value
        if (
            measured == "variance"
        ):  # drawn as a standard deviation, in nats like the bias; errors by the delta method
            value = line.value**0.5
            halves = [half / (2 * sd) if sd > 0 else 0.0 for half, sd in zip(halves, value, strict=True)]
        axes.errorbar(
            line.forwards,
            value,
            yerr=halves,
            color=ink,
            marker=marker,
            markersize=3,
            elinewidth=0.8,
        )
    log2_axis(axes, TICKS)
    if measured == "variance":
        axes.set_yscale("log")
    elif measured == "bias":
        axes.axhline(0, color=OTHER, linewidth=0.8)
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.8)
