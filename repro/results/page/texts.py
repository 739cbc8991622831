"""Plots of the quality of generated text, generative perplexity against entropy: the points of
`repro.results.tables.text_quality`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from repro.results.page.series import how, plot, series_of
from repro.results.page.sources import Json, Sources
from repro.results.record import Record
from repro.results.tables.matched import GENERATED, line_of, panel_of
from repro.results.tables.text_quality import NAIVE, REFERENCES, points

if TYPE_CHECKING:
    from pandas import Series


def text_plots(sources: Sources, records: Sequence[Record]) -> Iterator[Json]:
    """A plot of generative perplexity against entropy for each suite and scale among `records`; `sources` notes the
    records from which each number is computed."""
    scored = [record for record in records if record.labels.task in GENERATED]
    naive = [record for record in records if record.labels.task == NAIVE]
    frame = points(records, [])  # bands are not drawn
    for number, (panel, rows) in enumerate(frame.groupby("panel", sort=True)):
        found = []
        for _, row in rows.iterrows():
            reference = row.line in REFERENCES
            own = [r for r in (naive if reference else scored) if _is_of(r, row, str(panel), reference)]
            prefix = f"{row.line}_" if reference else ""
            found.append(_text_point(sources, row, own[:1] if reference else own, prefix))
        x = {
            "label": "entropy of the text, nats per token",
            "unit": "nats of entropy",
            "log": False,
            "better": "right",
        }
        y = {
            "label": "generative perplexity",
            "unit": "generative perplexity",
            "log": True,
            "better": "down",
            "percent": False,
        }
        about = (
            "A lower temperature makes text likelier (down) and more repetitive (left): compare rules at equal entropy "
            "only. Squares are real text and two kinds of bad text that would win on one axis."
        )
        title = f"Text: {str(panel).partition(' ')[0]}"
        yield plot(
            f"text{number or ''}", title, x, y, found, about=about, what="texts", world="", frontier=False
        )


def _is_of(record: Record, row: Series, panel: str, reference: bool) -> bool:
    labels = record.labels
    if panel_of(labels.suite, labels.recipe) != panel:
        return False
    if reference:
        return True
    line, temperature = line_of(labels.preset or "")
    same = (labels.marked(labels.checkpoint), line, labels.tokens_per_step or "")
    return same == (row.checkpoint, row.line, row.tokens_per_step) and temperature == row.temperature


def _text_point(sources: Sources, row: Series, own: Sequence[Record], prefix: str) -> tuple[Json, Json]:
    each = how(own)
    if prefix:
        each = "the same in every record of the plot; equal to"

    def number(name: str) -> Json:
        return sources.number(row[name], each, f"answer.metrics.{prefix}{name}.value", own)

    series = (
        {
            **series_of("", row.line, False),
            "model": {
                "real": "real text",
                "repetition": "a phrase repeated",
                "unigram": "tokens by frequency",
            }[row.line],
            "family": "reference",
            "colour": "reference",
            "shape": "ring",
        }
        if prefix
        else series_of(row.checkpoint, f"{row.line}, {_rate(row.tokens_per_step)}", False)
    )
    names = {"distinct_2": "distinct pairs of tokens", "mauve": "MAUVE"}
    extra = [
        {"label": said, "number": number(name)} for name, said in names.items() if row[name] == row[name]
    ]
    return series, {
        "setting": "held out"
        if row.line == "real"
        else "for comparison"
        if prefix
        else f"temperature {row.temperature:g}",
        "preset": row.line,
        "x": number("entropy"),
        "y": number("gen_ppl"),
        "low": None,
        "high": None,
        "extra": extra,
        "outcomes": [],
        "items": None,
    }


def _rate(tokens_per_step: str) -> str:
    return {"": "adaptive", "all": "all at once"}.get(tokens_per_step, f"{tokens_per_step} per step")
