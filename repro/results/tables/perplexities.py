"""Perplexities of corpora, from records alone: one section a protocol and its documents, never two in a column.

    tables(records)         perplexity.md and .csv

A row is a checkpoint under one question; `bound` says whether its numbers are upper bounds or exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.core.parts import sha256
from repro.results.record import Record, text
from repro.results.store import summarise, to_frame

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "perplexity"
BOUND = "_bound"
NUMBERS = {
    "ppl": "ppl",
    "nll": "nats a token",
    "bits_per_byte": "bits a byte",
    "bits_per_word": "bits a word",
}
PARTS = ("", "_se", "_sd_seeds")
TOLD = ("draws_error", "ids_scored")
SAID = ("corpus", "packing", "eos", "length", "tokenizer", "counted", "precision")
"""Fields of the protocol that head a section."""
SECTION = [*SAID, "protocol", "limit"]
COLUMNS = [
    *SECTION,
    "checkpoint",
    "bound",
    *(n + p for n in NUMBERS for p in PARTS),
    *TOLD,
    "n",
    "seeds",
]
TITLE = "Perplexity of corpora"
CAPTION = (
    "ppl: exp of the nats a token counted; bits a byte and a word are of the text as it was published. bound: an upper "
    "bound for diffusion, exact for left-to-right networks. ±: standard error, documents as the units; draws: the part "
    "of it, in nats a token, that more passes would remove; ids: the share of the corpus that is scored; n: rows; "
    "sd: over train seeds."
)
REMEDY = "No records yet: `python -m repro.evals --tasks owt.wrapped ...`, then `python -m repro.results publish DIR`."


def rows(records: Sequence[Record]) -> DataFrame:
    """A row a (checkpoint, protocol), in order."""
    from pandas import DataFrame

    chosen = [each for each in records if each.question.task.get("part") == PART]
    made = []
    for _, cell in summarise(to_frame(chosen)).groupby("cell", sort=True):
        by_metric, shared = cell.set_index("metric"), cell.iloc[0]
        subject = json.loads(shared.subject)
        exact = "ppl" in by_metric.index
        row: dict[str, Any] = {name: subject["protocol"][name] for name in SAID}
        row["protocol"] = sha256(text([subject["protocol"], _content(subject["task"]["documents"])]))[:12]
        row |= {"limit": subject["limit"] or "", "checkpoint": shared.checkpoint}
        row["bound"] = "exact" if exact else "bound"
        for name in NUMBERS:
            found = by_metric.loc[name if exact else name + BOUND] if _has(by_metric, name, exact) else None
            for part, field in zip(PARTS, ("value", "se", "sd_seeds"), strict=True):
                row[name + part] = float("nan") if found is None else found[field]
        for name in TOLD:
            row[name] = by_metric.loc[name].value if name in by_metric.index else float("nan")
        made.append({**row, "n": int(shared.n), "seeds": shared.seeds})
    drawn = DataFrame(made, columns=COLUMNS)
    order = [*SECTION, "checkpoint", "bound"]
    return drawn.sort_values(order, key=lambda c: c.astype(str), kind="stable").reset_index(drop=True)


def _content(documents: Any) -> Any:
    """Pins of documents without the places of files: where their digest is pinned too, the same text is the same."""
    if not isinstance(documents, dict):
        return documents
    left_out = {"path"} if "sha256" in documents else set()
    return {name: _content(pin) for name, pin in documents.items() if name not in left_out}


def _has(by_metric: DataFrame, name: str, exact: bool) -> bool:
    return (name if exact else name + BOUND) in by_metric.index


# --- text ---------------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> dict[str, str]:
    """File name -> text."""
    from repro.results.tables.text import csv_text

    drawn = rows(records)
    page = [f"# {TITLE}", CAPTION]
    for _, section in drawn.groupby(SECTION, sort=False):
        said = section.iloc[0]
        only = f"; {said.limit} rows of it" if said.limit else ""
        page += [f"## {said.corpus}, {said.packing} rows of {said.length}{only}"]
        rules = f"EOS: {said.eos}; counted: {said.counted}; tokens: {said.tokenizer}; {said.precision}"
        page += [f"{rules}; protocol and documents: {said.protocol}.", _grid(section)]
    if drawn.empty:
        page.append(REMEDY)
    return {"perplexity.md": "\n\n".join(page) + "\n", "perplexity.csv": csv_text(drawn)}


def _grid(section: DataFrame) -> str:
    from tabulate import tabulate

    from repro.results.tables.text import measured

    lines = []
    for row in section.to_dict("records"):
        numbers = [measured(*(row[name + part] for part in PARTS)) for name in NUMBERS]
        told = ["" if math.isnan(row[name]) else f"{row[name]:.2g}" for name in TOLD]
        lines.append([row["checkpoint"], row["bound"], *numbers, *told, row["n"], row["seeds"]])
    header = ["checkpoint", "", *NUMBERS.values(), "draws", "ids", "n", "seeds"]
    return tabulate(lines, headers=header, tablefmt="github", disable_numparse=True)
