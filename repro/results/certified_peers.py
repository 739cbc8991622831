"""Stored certificates of other projects' samplers (results/certificates/peers.json) and the table of them.

`python -m repro.certify --peer NAME=FOLDER` writes them; `python -m repro.report` makes results/tables/peers.{md,csv}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from repro.core.reading import convert, read_json
from repro.results.tables.text import csv_text, grid, page

UNTESTED = "were not tested"
"""End of those notes of a certificate that say which tests were left out."""
FILE = "peers.json"
"""Name of the file in results/certificates that holds the certificates of other projects."""
TITLE = "Samplers of other projects"
CAPTION = (
    "Samplers of other projects, called as their files are with the exact conditionals of known laws in place of "
    "a network, and tested by `python -m repro.certify --peer`. Version: commit, or that of the installed "
    "package. Claim: `law` (ancestral sampling, and orders at temperature 1) or `mode` (likely texts, temperature "
    "below 1), as the project says (source: peers.csv). Seen by: the kinds of tests that refuse the claim (those "
    "of rows suppose the claimed law, and may refuse another law too). TV: total variation distance between the "
    "samples and the true law of 27 sentences of 3 tokens, at the largest number of steps; samplers that commit "
    "at least one token per step take 3. Long sentences were tested for claims of the law, but for those of LLaDA, "
    "Fast-dLLM and dllm, which loop over rows; rare tokens, which draws in float32 can miss, for mdlm and for DDIM at "
    "temperature 1 (its correctors draw with the same function, all others in float64). peers.csv has file and "
    "function, what was not tested, and the absent third-party modules in whose place stand-ins were imported."
)
HEADER = [
    "peer",
    "version",
    "sampler",
    "settings",
    "claim",
    "verdict",
    "seen by",
    "TV",
    "steps",
]


class _Row(Struct, forbid_unknown_fields=True):
    peer: str
    repository: str
    version: str
    sampler: str
    file: str
    function: str
    settings: dict[str, Any]
    noise: str
    meaning: str
    claims: str
    source: str
    defect: str
    stand_ins: list[str]
    stands: bool | None
    refused_by: list[str]
    says: list[str]
    total_variation: float | None
    steps: int | None
    notes: list[str]
    error: str


def read_peers(folder: Path) -> list[dict[str, Any]]:
    """The rows of peers.json (`FILE`) in a folder of certificates, [] if the folder has no such file; ValueError if the
    file holds something else."""
    path, remedy = folder / FILE, "remove it; `python -m repro.certify --peer NAME=FOLDER` writes it"
    if not path.exists():
        return []
    found = read_json(path, list, remedy)
    convert(found, list[_Row], f"{path} is no file of certificates of other projects", remedy)
    return found


def kinds(row: Mapping[str, Any]) -> list[str]:
    """Names of the tests that refused the sampler of `row` (a row of peers.json), each once, without noise process and
    number of steps: `law at 4 steps, absorbing` -> `law`."""
    return list(dict.fromkeys(re.sub(r",.*| at \d+ steps", "", test) for test in row["refused_by"]))


def word(row: Mapping[str, Any]) -> str:
    """The verdict on the sampler of `row` (a row of peers.json) in words: `stands`, or why not."""
    if row["stands"] is None:
        return f"could not be run: {row['error']}"
    return "stands" if row["stands"] else f"DOES NOT STAND ({', '.join(row['refused_by'])})"


def peers_tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Texts of peers.md (a line for each sampler) and peers.csv (with the source of each claim, and what the tests
    said), by file name, from the `rows` of peers.json; empty without rows."""
    from pandas import DataFrame

    if not rows:
        return {}
    lists = {
        "What the refused ones do:": [
            f"- {row['peer']} {row['sampler']}: {row['defect'] or '; '.join(row['says'])}"
            for row in rows
            if row["stands"] is False
        ],
        "Could not be run:": [
            f"- {row['peer']} {row['sampler']}: {row['error']}"
            + (f"; {row['defect']}" if row["defect"] else "")
            for row in rows
            if row["stands"] is None
        ],
        "Interfaces:": [
            f"- {peer} {version[:7]} {', '.join(names)}: {note}"
            for (peer, version, note), names in _interfaces(rows).items()
        ],
    }
    parts = [f"{title}\n\n" + "\n".join(lines) for title, lines in lists.items() if lines]
    text = page(TITLE, CAPTION, grid(HEADER, [_line(row) for row in rows]), *parts)
    joined = [
        {
            key: "; ".join(value)
            if isinstance(value, list)
            else json.dumps(value)
            if isinstance(value, dict)
            else value
            for key, value in row.items()
        }
        for row in rows
    ]
    frame = DataFrame(joined)
    frame["steps"] = frame["steps"].astype("Int64")
    return {"peers.md": text, "peers.csv": csv_text(frame)}


def _interfaces(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[str]]:
    """Dictionary (peer, version, note on the interface of the peer's samplers) -> names of the samplers whose
    certificate has this note; notes on what was not tested are left out."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for note in row["notes"]:
            if not note.endswith(UNTESTED):
                found.setdefault((row["peer"], row["version"], note), []).append(row["sampler"])
    return found


def _line(row: Mapping[str, Any]) -> list[str]:
    verdict = {None: "could not be run", True: "stands", False: "**does not stand**"}[row["stands"]]
    far = "" if row["total_variation"] is None else f"{row['total_variation']:.3f}"
    return [
        row["peer"],
        row["version"][:7] + ("+" if row["version"].endswith("+") else ""),
        row["sampler"],
        ", ".join(f"{key} {_shown(value)}" for key, value in row["settings"].items()),
        row["claims"],
        verdict,
        ", ".join(kinds(row)),
        far,
        "" if row["steps"] is None else str(row["steps"]),
    ]


def _shown(value: Any) -> str:
    return " ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
