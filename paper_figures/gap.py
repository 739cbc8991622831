"""Bound minus exact negative log-likelihood, one line per recipe: distance of each trained network from its data's law.

Drawn where the exact likelihood is known (the oracle languages). Small dots are train seeds, large ones their means.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from pandas import DataFrame

from paper_figures import COLUMN, INK, bar, bar_sentence, colour, empty, family, footer, order
from repro.results.record import Record
from repro.results.store import one_protocol, scale_of, summarise, to_frame


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per scale; nats per token, paired on the same held-out rows."""
    frame = to_frame(record for record in records if record.labels.task == "bound")
    trained = frame.checkpoint == frame.recipe  # an oracle's gap is its estimator's noise
    rows = frame[(frame.metric == "gap") & trained]
    rows = rows.assign(scale=rows.recipe.map(scale_of))
    for _, section in rows.groupby(["suite", "scale"]):
        one_protocol(section)
    mean = summarise(rows)
    mean = mean.assign(scale=mean.recipe.map(scale_of))
    mean = mean.loc[sorted(mean.index, key=lambda i: (mean.scale[i], mean.suite[i], order(mean.recipe[i])))]
    columns = ["suite", "scale", "recipe", "value", "se", "sd_seeds", "n", "seeds", "note"]
    drawn = mean[columns].reset_index(drop=True)
    if drawn.empty:
        return empty("no records of task bound with an exact likelihood yet"), drawn

    scales = drawn.scale.unique()
    counts = [int((drawn.scale == scale).sum()) for scale in scales]
    drawing = Figure(figsize=(COLUMN, 0.75 + 0.24 * sum(counts) + 0.3 * (len(scales) - 1)))
    panels = drawing.subplots(len(scales), 1, squeeze=False, sharex=True, height_ratios=counts)[:, 0]
    for axes, scale in zip(panels, scales, strict=True):
        lines = drawn[drawn.scale == scale].to_dict("records")
        for height, line in enumerate(reversed(lines)):
            ink = colour(line["recipe"])
            one = rows[(rows.recipe == line["recipe"]) & (rows.suite == line["suite"])]
            seeds = one.groupby("train_seed").value.mean()
            axes.plot(seeds, [height - 0.24] * len(seeds), "o", color=ink, markersize=2, alpha=0.5)
            half = bar(line["se"], line["sd_seeds"], line["seeds"])
            axes.errorbar(line["value"], height, xerr=half, fmt="o", color=ink, capsize=2, elinewidth=1)
            text = f"{line['value']:.3f}"
            at = max(line["value"] + half, seeds.max())
            axes.annotate(
                text, (at, height), (5, 0), textcoords="offset points", va="center", color=INK, fontsize=7
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(lines)), [family(line["recipe"]) for line in reversed(lines)])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_title(scale or "full scale")
    # recipes differ by factors of a thousand, and an estimate of a gap may fall below zero
    panels[0].set_xscale("symlog", linthresh=0.01, linscale=1)
    panels[0].set_xlim(
        1.3 * min(0.0, float(drawn.value.min())) - 0.001, 6 * max(0.01, float(drawn.value.max()))
    )
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    panels[-1].set_xlabel("nats per token above the exact value")
    small = ["small dots: train seeds"] if drawn.seeds.max() > 1 else []
    footer(drawing, "; ".join([bar_sentence(drawn.seeds), *small, *_losses(drawn)]))
    return drawing, drawn


def _losses(drawn: DataFrame) -> list[str]:
    """Sentences that name the recipes whose training loss is no bound on the likelihood."""
    notes: dict[str, list[str]] = {}
    for recipe, note in zip(drawn.recipe, drawn.note, strict=True):
        kind = note.partition(";")[0].removeprefix("objective: ")
        if kind and family(recipe) not in notes.get(kind, []):
            notes.setdefault(kind, []).append(family(recipe))
    return [f"training loss of {', '.join(names)}: {kind}" for kind, names in notes.items()]
