"""Error of an approximate KV cache: divergence per token and share of tokens changed, against the refresh interval.

Decoding by low confidence, one token per step, in blocks; each cached forward pass is compared with a full one on the
same ids. Means over train seeds, one line per recipe and cache; the last interval is `never` within a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import PAGE, End, bar, bar_sentence, colour, empty, family, footer, label_ends, order
from repro.results.record import Record
from repro.results.store import one_protocol, scale_of, summarise, to_frame

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

STYLE: dict[str, tuple[LineStyleType, str]] = {"prefix": ("-", "o"), "dual": ("--", "s")}
MEASURED = {
    "kl": "KL divergence from exact\npasses, nats per token",
    "changed": "share of tokens\nthat change",
}


def query(records: Sequence[Record]) -> DataFrame:
    """One row per (scale, recipe, cache, refresh, measured): mean over seeds and its errors."""
    rows = to_frame(record for record in records if record.labels.task == "caches")
    for _, section in rows.groupby("recipe"):
        one_protocol(section)
    mean = summarise(rows)
    named = mean.metric.str.split("_", expand=True).reindex(columns=range(3))
    mean = mean.assign(scale=mean.recipe.map(scale_of), cache=named[0], refresh=named[1], measured=named[2])
    key = [
        (mean.scale[i], order(mean.recipe[i]), mean.cache[i], mean.refresh[i], mean.measured[i])
        for i in mean.index
    ]
    mean = mean.iloc[sorted(range(len(mean)), key=key.__getitem__)]
    columns = ["scale", "recipe", "cache", "refresh", "measured", "value", "se", "sd_seeds", "n", "seeds"]
    return mean[columns].reset_index(drop=True)


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One column per scale: divergence above, share of tokens changed below."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task caches yet"), drawn
    scales = list(drawn.scale.unique())
    intervals = sorted(drawn.refresh.unique(), key=lambda text: (text == "never", text))
    drawing = Figure(figsize=(PAGE, 3.6))
    panels = drawing.subplots(2, len(scales), squeeze=False, sharex=True)
    for column, scale in enumerate(scales):
        for axes, (measured, label) in zip(panels[:, column], MEASURED.items(), strict=True):
            rows = drawn[(drawn.scale == scale) & (drawn.measured == measured)]
            ends = []
            for (recipe, cache), line in rows.groupby(["recipe", "cache"], sort=False):
                places = [intervals.index(text) for text in line.refresh]
                halves = [bar(*each) for each in zip(line.se, line.sd_seeds, line.seeds, strict=True)]
                dash, mark = STYLE[str(cache)]
                axes.errorbar(
                    places,
                    line.value,
                    yerr=halves,
                    color=colour(str(recipe)),
                    linestyle=dash,
                    marker=mark,
                    markersize=3,
                    elinewidth=0.8,
                )
                text = f"{family(str(recipe))}, {cache} cache"
                ends.append(End(places[-1], line.value.iloc[-1], text, colour(str(recipe)), mark))
            axes.set_ylim(bottom=0)
            label_ends(axes, ends, 6)
            if column == 0:
                axes.set_ylabel(label)
        panels[0, column].set_title(scale or "full scale")
        panels[1, column].set_xticks(range(len(intervals)), intervals)
        panels[1, column].set_xlabel("cached passes between two exact ones")
    footer(drawing, bar_sentence(drawn.seeds))
    return drawing, drawn
