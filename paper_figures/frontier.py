"""Gen-PPL and MAUVE against entropy: one curve per model and sampler, one point per temperature.

One block per suite and scale, one column per number of tokens per step. A sampler is better where its curve is lower
(gen_ppl) or higher (MAUVE) at the same entropy: a low gen_ppl alone can be reached by repetition. Bands: 95 % of
resampled curves at each entropy (`repro.results.tables.matched`). Squares are held-out text; crosses are naive texts
that deceive one of the numbers (a few tokens repeated, tokens drawn by frequency), at the edge of the panel where their
entropy lies beyond it. A gen_ppl below that of real text at its entropy is no improvement: such text repeats what the
scoring model finds likely. Published points are hollow and shown only where they were scored by the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame, concat

from paper_figures import (
    INK,
    NOISE,
    OTHER,
    PAGE,
    End,
    bar,
    bar_sentence,
    dash,
    empty,
    family,
    footer,
    label_ends,
    log10_axis,
)
from paper_figures.samplers import name_of, style_of
from repro.evals.published.cells import PublishedCell, read
from repro.results.difference import difference, look
from repro.results.record import Record
from repro.results.store import tokens_order
from repro.results.tables.matched import GENERATED, LEVEL, Sweep, panel_of, sweeps
from repro.results.tables.text import per_step
from repro.results.tables.text_quality import COLUMNS, REFERENCES, points

MARKERS = {
    "real": ("s", "held-out text"),
    "repetition": ("x", "repetition"),
    "unigram": ("+", "words by frequency"),
}
"""Marker of each reference text, and its name."""
NUMBERS = {
    "gen_ppl": "perplexity of\nsamples (gen_ppl)",
    "mauve_mean": "MAUVE,\nmean state",
    "mauve": "MAUVE,\nlast state",
}
PUBLISHED = "published: "
"""Prefix of the `line` of a published point, before the cell's name."""
SAYS = (
    "Each curve is a sampler at rising temperature; compare at equal entropy: lower perplexity and higher MAUVE are "
    "better, held-out text is the aim. Solid: masked, dashed: uniform, dotted: left to right, with one token per "
    "step in every panel. (at N): its entropy is N, beyond the axis."
)


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
    """One block per suite and scale: gen_ppl above, MAUVE by either feature below where records have it."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task quality yet"), drawn
    found = sweeps(records)
    blocks = [(str(panel), drawn[drawn.panel == panel]) for panel in drawn.panel.unique()]
    # a panel is as high as the labels of its lines beside it
    heights = [
        0.75 + max(1.25, 0.35 + 0.125 * len(rows[["recipe", "line"]].drop_duplicates())) * len(_numbers(rows))
        for _, rows in blocks
    ]
    drawing = Figure(figsize=(PAGE, sum(heights) + 0.4))
    strips = drawing.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for strip, (panel, rows) in zip(strips, blocks, strict=True):
        _block(strip, panel, rows, [sweep for sweep in found if sweep.panel == panel])
    footer(drawing, f"{SAYS}\n{_sentence(drawn, drawn[drawn.temperature.notna()])}")
    return drawing, drawn


def _numbers(rows: DataFrame) -> list[str]:
    return [name for name in NUMBERS if rows[name].notna().any()]


def _sentence(drawn: DataFrame, networks: DataFrame) -> str:
    published = drawn.line.str.startswith(PUBLISHED).any()
    hollow = "hollow: published" if published else "no published point was judged as these are"
    return f"{bar_sentence(networks.seeds.tolist())}; bands: {LEVEL:.0%} of resamples; {hollow}"


def _rates(rows: DataFrame) -> list[str]:
    """Tokens per step of a block's columns; a left-to-right model, which always has 1, adds none."""
    ours = rows[rows.temperature.notna()]
    parallel = ours[ours.recipe.map(_left_to_right).eq(False)]
    return sorted((ours if parallel.empty else parallel).tokens_per_step.unique(), key=tokens_order)


def _left_to_right(recipe: str) -> bool:
    return NOISE.get(family(recipe)) == "left to right"


def _block(strip: SubFigure, panel: str, rows: DataFrame, sweeps: Sequence[Sweep]) -> None:
    rates, numbers = _rates(rows), _numbers(rows)
    grid = strip.subplots(len(numbers), max(2, len(rates)), squeeze=False, sharex=True, sharey="row")
    limits = _limits(rows)
    left = rows.recipe.map(_left_to_right)
    for line, name in zip(grid, numbers, strict=True):
        _scale(line[0], name, limits)
        for axes in line[len(rates) :]:
            axes.set_visible(False)
        elsewhere: dict[str, End] = {}  # curves of the columns before, which have no line to the labels
        for axes, rate in zip(line, rates, strict=False):
            ours = rows[
                rows.temperature.notna() & rows[name].notna() & ((rows.tokens_per_step == rate) | left)
            ]
            _lines(axes, ours, name)
            if name == "gen_ppl":
                for sweep in sweeps:
                    if sweep.tokens_per_step == rate or _left_to_right(sweep.checkpoint):
                        _band(axes, sweep)
            ends, references = _ends(ours, name), _references(axes, rows, name, limits)
            for end in ends:
                elsewhere.pop(end.text, None)
            if rate == rates[-1]:
                label_ends(axes, [*ends, *elsewhere.values(), *references], 6)
            elsewhere |= {end.text: replace(end, leader=False) for end in ends}
    for column, rate in enumerate(rates):
        grid[0, column].set_title(per_step(rate) if rate else "adaptive", fontsize=7, color=INK)
        grid[-1, column].set_xlabel("entropy, nats per token")
    strip.suptitle(panel, x=0.01, ha="left", fontsize=7.5, color=INK)


def _scale(axes: Axes, name: str, limits: tuple[float, float]) -> None:
    axes.set_ylabel(NUMBERS[name], fontsize=7)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if name == "gen_ppl":
        log10_axis(axes, (1, 3))


def _limits(rows: DataFrame) -> tuple[float, float]:
    """Range of the entropy axis: that of the models, of held-out text and of published points."""
    shown = rows[~rows.line.isin(["repetition", "unigram"])].entropy
    margin = 0.08 * max(0.1, float(shown.max() - shown.min()))
    return float(shown.min()) - margin, float(shown.max()) + margin


def _ends(points: DataFrame, name: str) -> list[End]:
    """Labels of the curves, at their highest temperature."""
    ends = []
    for key, line in points.groupby(["checkpoint", "line"], sort=False):
        assert isinstance(key, tuple)
        checkpoint, sampler = map(str, key)
        last, style = line.sort_values("entropy").iloc[-1], style_of(sampler)
        text = f"{family(checkpoint)}: {name_of(sampler)}"
        ends.append(End(last.entropy, last[name], text, style.ink, style.marker, style.adaptive))
    return ends


def _lines(axes: Axes, ours: DataFrame, name: str) -> None:
    """Curves over temperatures; colour and marker: sampler, dash: noise of the model."""
    for key, line in ours.groupby(["checkpoint", "line"], sort=False):
        assert isinstance(key, tuple)
        checkpoint, sampler = map(str, key)
        style = style_of(sampler)
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
            color=style.ink,
            linestyle=dash(checkpoint),
            marker=style.marker,
            markerfacecolor="white" if style.adaptive else style.ink,
            markersize=2.8,
            elinewidth=0.7,
            linewidth=0.9,
        )


def _references(axes: Axes, rows: DataFrame, name: str, limits: tuple[float, float]) -> list[End]:
    """Draw reference texts (at the edge of the panel if they lie beyond it) and published points; returns labels of the
    texts."""
    low, high = limits
    ends = []
    for kind in REFERENCES:
        marker, title = MARKERS[kind]
        ink = INK if kind == "real" else OTHER
        for entropy, y in rows[(rows.line == kind) & rows[name].notna()][["entropy", name]].to_numpy(float):
            x = min(max(entropy, low), high)
            axes.plot(x, y, marker, color=ink, markersize=4, clip_on=False, zorder=4)
            text = title if x == entropy else f"{title} (at {entropy:.2f})"
            ends.append(End(x, y, text, ink, marker, leader=False))
    hollow = rows[rows.line.str.startswith(PUBLISHED) & rows[name].notna()]
    if not hollow.empty:
        axes.plot(hollow.entropy, hollow[name], "o", color=OTHER, markerfacecolor="none", label="published")
    return ends


def _band(axes: Axes, sweep: Sweep) -> None:
    at = np.linspace(*sweep.reach, 25)
    low, high = zip(*(sweep.band(float(entropy)) for entropy in at), strict=True)
    axes.fill_between(at, low, high, color=style_of(sweep.sampler).ink, alpha=0.15, linewidth=0)
