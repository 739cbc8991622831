"""Gen-PPL against entropy: a line a sampler and tokens per step, a point a temperature; real text and naive samples.

A sampler is better where its line lies lower at the same entropy: each number alone can be bought. Squares are held-out
rows; crosses what fools one of the numbers (a few tokens repeated; tokens drawn by frequency). Below real text at its
entropy nothing is better, it only repeats what the judge finds likely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import INK, OTHER, bar, bar_sentence, colour, empty, order
from repro.report import scale_of, tokens_order
from repro.results import Record, one_protocol, summarise, to_frame

NUMBERS = ("gen_ppl", "entropy")
REFERENCES = {
    "real": ("s", "held-out text"),
    "repetition": ("x", "repetition"),
    "unigram": ("+", "unigram draws"),
}
"""Rows of task `naive`: marker and name."""
TEMPERATURE = re.compile(r"[:,]temperature=([0-9.]+)")
DASHES = ("-", "--", "-.", ":")
COLUMNS = ["scale", "line", "recipe", "checkpoint", "tokens_per_step", "temperature"]
COLUMNS += [f"{name}{part}" for name in NUMBERS for part in ("", "_se", "_sd_seeds")]
COLUMNS += ["n", "seeds"]


def line_of(preset: str) -> tuple[str, float]:
    """The sampler that a preset is a point of, and its temperature: `random:temperature=0.7` -> random, 0.7."""
    found = TEMPERATURE.search(preset)
    return TEMPERATURE.sub("", preset), float(found.group(1)) if found else 1.0


def query(records: Sequence[Record]) -> DataFrame:
    """A row a point: both numbers with their errors. `line`: a sampler, or a kind of reference rows.

    Reference rows are of the data, not of a network: those of a scale are one point, whatever model they were asked of.
    """
    frame = to_frame(records)
    rows = frame[frame.task.isin(["quality", "naive"])]
    rows = rows.assign(scale=rows.recipe.map(scale_of))
    for _, section in rows.groupby("scale"):
        one_protocol(section)
    points = []
    for _, cell in summarise(rows).groupby("cell"):
        by_metric = cell.set_index("metric")
        shared = cell.iloc[0]
        label = {"scale": scale_of(shared.recipe), "recipe": "", "checkpoint": "", "tokens_per_step": ""}
        if shared.task == "naive":
            points += [{**label, "line": kind, **_numbers(by_metric, f"{kind}_")} for kind in REFERENCES]
            continue
        label |= {name: shared[name] for name in ("recipe", "checkpoint", "tokens_per_step")}
        line, temperature = line_of(shared.preset)
        points.append({**label, "line": line, "temperature": temperature, **_numbers(by_metric, "")})
    points.sort(key=_order)
    drawn = DataFrame(points, columns=COLUMNS)
    reference = drawn.line.isin(list(REFERENCES))
    return drawn[~(reference & drawn.duplicated(["scale", "line"]))].reset_index(drop=True)


def _numbers(by_metric: DataFrame, prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in NUMBERS:
        row = by_metric.loc[prefix + name]
        found |= {name: row.value, f"{name}_se": row.se, f"{name}_sd_seeds": row.sd_seeds}
        found |= {"n": row.n, "seeds": row.seeds}
    return found


def _order(point: dict) -> tuple:
    tokens = tokens_order(point["tokens_per_step"])
    place = (order(point["recipe"]), point["checkpoint"], point["line"], tokens)
    return point["scale"], point["line"] in REFERENCES, *place, point.get("temperature", 0.0)


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """A panel a scale."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task quality yet"), drawn
    scales = list(drawn.scale.unique())
    drawing = Figure(figsize=(0.8 + 3.4 * len(scales), 3.4))
    for axes, scale in zip(drawing.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        rows = drawn[drawn.scale == scale]
        _samplers(axes, rows[~rows.line.isin(list(REFERENCES))])
        for kind, (marker, name) in REFERENCES.items():
            point = rows[rows.line == kind]
            ink = INK if kind == "real" else OTHER
            axes.plot(point.entropy, point.gen_ppl, marker, color=ink, markersize=5, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("entropy, nats a token")
        axes.set_title(scale or "full scale")
        axes.legend(fontsize=6)
    drawing.axes[0].set_ylabel("gen_ppl")
    networks = drawn[~drawn.line.isin(list(REFERENCES))]
    drawing.supxlabel(bar_sentence(networks.seeds.tolist()), fontsize=6.5, color=OTHER, x=0.02, ha="left")
    return drawing, drawn


def _samplers(axes: Axes, rows: DataFrame) -> None:
    """Lines through temperatures; colour the recipe, dash the tokens per step."""
    rates = sorted(rows.tokens_per_step.unique(), key=tokens_order)
    for key, points in rows.groupby(["checkpoint", "line", "tokens_per_step"], sort=False):
        assert isinstance(key, tuple)
        checkpoint, line, rate = map(str, key)
        axes.errorbar(
            points.entropy,
            points.gen_ppl,
            xerr=[bar(*pair) for pair in zip(points.entropy_se, points.entropy_sd_seeds, strict=True)],
            yerr=[bar(*pair) for pair in zip(points.gen_ppl_se, points.gen_ppl_sd_seeds, strict=True)],
            color=colour(checkpoint),
            linestyle=DASHES[rates.index(rate) % len(DASHES)],
            marker="o",
            markersize=3,
            elinewidth=0.8,
            label=f"{checkpoint.partition('@')[0]}, {line}, {rate or 'adaptive'}",
        )
