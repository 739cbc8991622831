"""Gen-PPL and MAUVE against entropy: one line per sampler and tokens per step, one point per temperature.

A sampler is better where its line is lower (gen_ppl) or higher (MAUVE) at the same entropy: a low gen_ppl alone can be
reached by repetition. Bands: 95 % of resampled lines at each entropy (`repro.results.tables.matched`). Squares are
held-out text; crosses are naive texts that deceive one of the numbers (a few tokens repeated, tokens drawn by
frequency). A gen_ppl below that of real text at its entropy is no improvement: such text repeats what the scoring model
finds likely. Published points are hollow and shown only where they were scored by the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, concat

from paper_figures import INK, OTHER, bar, bar_sentence, colour, empty, footer
from repro.evals.published.cells import PublishedCell, read
from repro.results.difference import difference, look
from repro.results.record import Record
from repro.results.report import tokens_order
from repro.results.tables.matched import GENERATED, LEVEL, Sweep, panel_of, sweeps
from repro.results.tables.text_quality import COLUMNS, REFERENCES, points

MARKERS = {
    "real": ("s", "held-out text"),
    "repetition": ("x", "repetition"),
    "unigram": ("+", "unigram draws"),
}
DASHES = ("-", "--", "-.", ":")
PANELS = {"gen_ppl": "gen_ppl", "mauve_mean": "MAUVE, mean state", "mauve": "MAUVE, last state"}
PUBLISHED = "published: "
"""Prefix of the `line` of a published point, before the cell's name."""


def query(records: Sequence[Record]) -> DataFrame:
    """The points of `repro.results.tables.text_quality`, followed by the published points comparable with them."""
    drawn = points(records, sweeps(records))
    rows = [row for panel in drawn.panel.unique() for row in _published(records, str(panel))]
    return concat([drawn, DataFrame(rows, columns=COLUMNS)], ignore_index=True) if rows else drawn


def _published(records: Sequence[Record], panel: str) -> list[dict]:
    """Published gen_ppl with its entropy, where a record of the panel has the same protocol: scoring model, rule,
    retokenisation and length. Samplers may differ."""
    ours = [r for r in records if r.labels.task in GENERATED and _panel_of(r) == panel]
    cells = [cell for cell in read() if cell.task in GENERATED]
    entropies = {_place(cell): cell for cell in cells if cell.metric == "entropy"}
    found = []
    for cell in cells:
        beside = entropies.get(_place(cell))
        if cell.metric == "gen_ppl" and beside is not None and any(_alike(cell, record) for record in ours):
            point = {"panel": panel, "line": PUBLISHED + cell.name, "checkpoint": cell.name, "recipe": ""}
            found.append(point | {"gen_ppl": cell.value, "entropy": beside.value, "tokens_per_step": ""})
    return found


def _panel_of(record: Record) -> str:
    return panel_of(record.labels.suite, record.labels.recipe)


def _place(cell: PublishedCell) -> tuple:
    """Key shared by numbers that were measured on the same samples."""
    return cell.source, cell.of, cell.called.rpartition(", ")[0], tuple(sorted(cell.asked.items()))


def _alike(cell: PublishedCell, record: Record) -> bool:
    """Whether a cell has the protocol of a record; a protocol that the source does not state counts as different."""
    judged = {p: v for p, v in cell.asked.items() if p.startswith("protocol.") or p == "plan.gen_length"}
    if any(place.startswith("protocol.") for place in cell.unstated):
        return False
    found = {place: look(record.question.data(), place) for place in judged}
    return all(found[p] is not None and difference(found[p], v) is None for p, v in judged.items())


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One column per suite and scale: gen_ppl above, MAUVE by either feature below where records have it."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task quality yet"), drawn
    columns = list(drawn.panel.unique())
    numbers = [name for name in PANELS if drawn[name].notna().any()]
    drawing = Figure(figsize=(0.8 + 4.2 * len(columns), 0.9 + 2.6 * len(numbers)))
    grid = drawing.subplots(len(numbers), len(columns), squeeze=False, sharex="col")
    found = sweeps(records)
    for column, panel in zip(grid.T, columns, strict=True):
        rows = drawn[drawn.panel == panel]
        bands = [sweep for sweep in found if sweep.panel == panel]
        for axes, name in zip(column, numbers, strict=True):
            _panel(axes, rows, name)
        _bands(column[0], bands)
        column[0].set_yscale("log")
        column[0].set_title(panel)
        column[-1].set_xlabel("entropy, nats a token")
        column[0].legend(fontsize=5, ncols=2)
    for axes, name in zip(grid[:, 0], numbers, strict=True):
        axes.set_ylabel(PANELS[name])
    networks = drawn[drawn.temperature.notna()]
    footer(drawing, _sentence(drawn, networks))
    return drawing, drawn


def _sentence(drawn: DataFrame, networks: DataFrame) -> str:
    published = drawn.line.str.startswith(PUBLISHED).any()
    hollow = "hollow: published" if published else "no published point was judged as these are"
    return f"{bar_sentence(networks.seeds.tolist())}; bands: {LEVEL:.0%} of resamples\n{hollow}"


def _panel(axes: Axes, rows: DataFrame, name: str) -> None:
    """Lines over temperatures (colour: recipe, dash: tokens per step), reference texts and published points."""
    ours = rows[rows.temperature.notna() & rows[name].notna()]
    rates = sorted(ours.tokens_per_step.unique(), key=tokens_order)
    samplers = sorted(ours.line.unique())
    for key, line in ours.groupby(["checkpoint", "line", "tokens_per_step"], sort=False):
        assert isinstance(key, tuple)
        checkpoint, sampler, rate = map(str, key)
        axes.errorbar(
            line.entropy,
            line[name],
            xerr=[
                bar(*each) for each in zip(line.entropy_se, line.entropy_sd_seeds, line.seeds, strict=True)
            ],
            yerr=[
                bar(*each)
                for each in zip(line[f"{name}_se"], line[f"{name}_sd_seeds"], line.seeds, strict=True)
            ],
            color=colour(checkpoint),
            linestyle=DASHES[rates.index(rate) % len(DASHES)],
            marker="o^vD"[samplers.index(sampler) % 4],
            markersize=3,
            elinewidth=0.8,
            linewidth=0.9,
            label=f"{checkpoint.partition('@')[0]}, {sampler}, {rate or 'adaptive'}",
        )
    for kind in REFERENCES:
        marker, title = MARKERS[kind]
        point = rows[rows.line == kind]
        axes.plot(
            point.entropy,
            point[name],
            marker,
            color=INK if kind == "real" else OTHER,
            markersize=5,
            label=title,
        )
    hollow = rows[rows.line.str.startswith(PUBLISHED) & rows[name].notna()]
    if not hollow.empty:
        axes.plot(hollow.entropy, hollow[name], "o", color=OTHER, markerfacecolor="none", label="published")


def _bands(axes: Axes, found: Sequence[Sweep]) -> None:
    for sweep in found:
        at = np.linspace(*sweep.reach, 25)
        low, high = zip(*(sweep.band(float(entropy)) for entropy in at), strict=True)
        axes.fill_between(at, low, high, color=colour(sweep.checkpoint), alpha=0.15, linewidth=0)
