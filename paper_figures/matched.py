"""gen_ppl at the entropy of real text against forward passes: one curve per model and sampler.

A temperature sweep of each sampler at each number of tokens per step is read at the entropy of held-out text
(`repro.results.tables.matched`), so that a point is not better because its text repeats itself. A sweep that does not
reach that entropy is read at its nearest one and drawn hollow: at equal entropy it would lie elsewhere. Left to right:
one token per step, with a forward of one new token each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paper_figures import (
    INK,
    PAGE,
    End,
    colour,
    dash,
    empty,
    family,
    footer,
    label_ends,
    log2_axis,
    log10_axis,
    order,
)
from paper_figures.samplers import style_of
from repro.results.record import Record
from repro.results.tables.matched import sweeps
from repro.results.tables.text_quality import points

COLUMNS = ["panel", "checkpoint", "sampler", "tokens_per_step", "nfe", "entropy", "real_entropy", "gen_ppl"]
COLUMNS += ["low", "high", "real_gen_ppl"]


def query(records: Sequence[Record]) -> DataFrame:
    """One row per temperature sweep of a panel that has held-out text; `entropy`: where the sweep is read."""
    found = sweeps(records)
    drawn = points(records, found)
    real = drawn[drawn.line == "real"].set_index("panel")
    rows = []
    for sweep in found:
        if sweep.panel not in real.index:
            continue
        ours = drawn[
            (drawn.panel == sweep.panel)
            & (drawn.checkpoint == sweep.checkpoint)
            & (drawn.line == sweep.sampler)
            & (drawn.tokens_per_step == sweep.tokens_per_step)
        ]
        aim = float(real.entropy[sweep.panel])
        entropy = min(max(aim, sweep.reach[0]), sweep.reach[1])
        low, high = sweep.band(entropy)
        ppl = math.exp(float(sweep.at(entropy)[0]))
        place = (sweep.panel, sweep.checkpoint, sweep.sampler, sweep.tokens_per_step, float(ours.nfe.mean()))
        rows.append((*place, entropy, aim, ppl, low, high, float(real.gen_ppl[sweep.panel])))
    rows.sort(key=lambda row: (row[0], order(row[1]), row[2], row[4]))
    return DataFrame(rows, columns=COLUMNS)


def figure(records: Sequence[Record]) -> tuple[Figure, DataFrame]:
    """One panel per suite and scale."""
    drawn = query(records)
    if drawn.empty:
        return empty("no records of task quality yet"), drawn
    panels = list(drawn.groupby("panel", sort=True))
    drawing = Figure(figsize=(PAGE, 2.9))
    grid = drawing.subplots(1, max(2, len(panels)), squeeze=False)[0]
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, rows) in zip(grid, panels, strict=False):
        _panel(axes, rows)
        axes.set_title(str(name), fontsize=7)
        axes.set_xlabel("forward passes per text (NFE)")
    grid[0].set_ylabel("perplexity of samples (gen_ppl)\nat the entropy of held-out text")
    footer(
        drawing,
        "solid: masked, dashed: uniform, dotted: left to right; bars: 95 % of resampled texts, one train seed per "
        "network; hollow: the sweep does not reach the entropy of held-out text and is read at its nearest one",
    )
    return drawing, drawn


def _panel(axes: Axes, rows: DataFrame) -> None:
    ends = []
    several = rows.groupby("checkpoint").sampler.nunique()
    for key, line in rows.groupby(["checkpoint", "sampler"], sort=False):
        assert isinstance(key, tuple)
        checkpoint, sampler = map(str, key)
        ink, marker = colour(checkpoint), style_of(sampler).marker
        axes.plot(line.nfe, line.gen_ppl, color=ink, linestyle=dash(checkpoint), linewidth=0.9)
        for each in line.to_dict("records"):
            reached = math.isclose(each["entropy"], each["real_entropy"])
            ppl = each["gen_ppl"]
            axes.errorbar(
                *(each["nfe"], ppl, [[ppl - each["low"]], [each["high"] - ppl]]),
                fmt=marker,
                color=ink,
                markerfacecolor=ink if reached else "white",
                markersize=3.4,
                elinewidth=0.7,
            )
        last = line.iloc[-1]
        name = family(checkpoint) + (f": {sampler}" if several[checkpoint] > 1 else "")
        ends.append(End(last.nfe, last.gen_ppl, name, ink, marker))
    real = float(rows.real_gen_ppl.iloc[0])
    axes.axhline(real, color=INK, linewidth=0.6)
    log10_axis(axes, (1, 3))
    most = 2 ** math.ceil(math.log2(float(rows.nfe.max())))
    log2_axis(axes, [2**i for i in range(2, 12) if 2**i <= most])
    axes.set_xlim(0.8 * float(rows.nfe.min()), 1.15 * most)
    label_ends(axes, [*ends, End(1.15 * most, real, "held-out text", INK, leader=False)], 6)
