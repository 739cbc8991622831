"""Table of perplexities of corpora, from records alone: one section per protocol and set of documents.

    tables(records)         texts of perplexity.md and perplexity.csv

A row is one checkpoint under one evaluation. Its column `bound` holds the word `bound` if the perplexity is an upper
bound (diffusion), `exact` if it is exact (left-to-right networks).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from repro.core.parts import sha256
from repro.results.record import Record, text
from repro.results.store import by_cell, summarise, to_frame
from repro.results.tables.text import csv_text, grid, measured, page

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "perplexity"
BOUND = "_bound"
NUMBERS = {
    "ppl": "ppl",
    "nll": "nats per token",
    "bits_per_byte": "bits per byte",
    "bits_per_word": "bits per word",
}
PARTS = ("", "_se", "_sd_seeds")
DETAILS = ("draws_error", "ids_scored")
PROTOCOL = ("corpus", "packing", "eos", "length", "tokenizer", "counted", "precision")
"""Fields of a record's protocol that are printed above a section of the table."""
SECTION = [*PROTOCOL, "protocol", "limit"]
COLUMNS = [
    *SECTION,
    "checkpoint",
    "bound",
    *(n + p for n in NUMBERS for p in PARTS),
    *DETAILS,
    "n",
    "seeds",
]
TITLE = "Perplexity of corpora"
CAPTION = (
    "ppl: exponential of the nats per counted token; bits per byte and per word refer to the text as it was "
    "published. bound: an upper bound (diffusion); exact: the exact value (left-to-right networks). ±: half "
    "of the 95 % interval, 1.96 standard errors, with documents as independent units; draws: the part of the "
    "standard error, in nats per token, that comes from random draws and vanishes with more passes; ids: share "
    "of the corpus that is scored; n: rows; sd: standard deviation over train seeds."
)
REMEDY = "No records yet: `python -m repro.evals --tasks owt.wrapped ...`, then `python -m repro.results publish DIR`."


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with the perplexities in records: one row per checkpoint, protocol (corpus, packing, tokenizer, ...) and
    set of documents, sorted; columns `COLUMNS`. ValueError if two evaluations would share a row."""
    from pandas import DataFrame

    sections: dict[tuple[str, int | None], list[Record]] = {}
    for record in (_without_paths(each) for each in records if each.question.task.get("part") == PART):
        question = record.question
        protocol = sha256(text([question.protocol, question.task["documents"]]))[:12]
        sections.setdefault((protocol, question.limit), []).append(record)
    made = []
    cells = ((place, cell) for place, own in sections.items() for cell in by_cell(summarise(to_frame(own))))
    for (protocol, limit), (shared, by_metric) in cells:
        exact = "ppl" in by_metric
        row: dict[str, Any] = {name: json.loads(shared.subject)["protocol"][name] for name in PROTOCOL}
        row |= {"protocol": protocol, "limit": limit or "", "checkpoint": shared.checkpoint}
        row["bound"] = "exact" if exact else "bound"
        for name in NUMBERS:
            found = by_metric.get(name if exact else name + BOUND)
            for part, field in zip(PARTS, ("value", "se", "sd_seeds"), strict=True):
                row[name + part] = float("nan") if found is None else getattr(found, field)
        for name in DETAILS:
            row[name] = by_metric[name].value if name in by_metric else float("nan")
        made.append({**row, "n": int(shared.n), "seeds": shared.seeds})
    drawn = DataFrame(made, columns=COLUMNS)
    order = [*SECTION, "checkpoint", "bound"]
    return drawn.sort_values(order, key=lambda c: c.astype(str), kind="stable").reset_index(drop=True)


def _without_paths(record: Record) -> Record:
    """The record, of the same evaluation whatever the path of its documents (`_content`)."""
    task = record.question.task
    question = replace(record.question, task={**task, "documents": _content(task["documents"])})
    return replace(record, question=question, cell=question.cell)


def _content(documents: Any) -> Any:
    """Settings of `documents` in a record's task, without the path of a file whose SHA-256 is given: the text is the
    same at any path."""
    if not isinstance(documents, dict):
        return documents
    left_out = {"path"} if "sha256" in documents else set()
    return {name: _content(pin) for name, pin in documents.items() if name not in left_out}


# --- text ---------------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Texts of perplexity.md and perplexity.csv, by file name."""
    drawn = rows(records)
    parts = [CAPTION]
    for _, section in drawn.groupby(SECTION, sort=False):
        first = section.iloc[0]
        only = f"; {first.limit} rows of it" if first.limit else ""
        parts += [f"## {first.corpus}, {first.packing} rows of {first.length}{only}"]
        rules = f"EOS: {first.eos}; counted: {first.counted}; tokens: {first.tokenizer}; {first.precision}"
        parts += [f"{rules}; protocol and documents: {first.protocol}.", _section(section)]
    if drawn.empty:
        parts.append(REMEDY)
    return {"perplexity.md": page(TITLE, *parts), "perplexity.csv": csv_text(drawn)}


def _section(section: DataFrame) -> str:
    lines = []
    for row in section.to_dict("records"):
        numbers = [measured(*(row[name + part] for part in PARTS)) for name in NUMBERS]
        details = ["" if math.isnan(row[name]) else f"{row[name]:.2g}" for name in DETAILS]
        lines.append([row["checkpoint"], row["bound"], *numbers, *details, row["n"], row["seeds"]])
    header = ["checkpoint", "", *NUMBERS.values(), "draws", "ids", "n", "seeds"]
    return grid(header, lines)
