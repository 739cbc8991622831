"""Write the page: static files beside this module, and `data.js`, which is made of records, certificates and decodings.

    files(raw, stored) -> {file name: text}      raw: folder of records; stored: folder of certificates
    write(folder)                                writes these files into a folder

Two builds of the same inputs are equal byte for byte: no date, path or name of a machine goes in.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from repro.core.files import write_text
from repro.results import certificates
from repro.results.page import ledger
from repro.results.page.laws import law_plots
from repro.results.page.series import Items
from repro.results.page.sources import Json, Sources
from repro.results.page.texts import text_plots
from repro.results.page.timed import timed_plots
from repro.results.store import RAW
from repro.results.tables import claims
from repro.results.versions import largest, latest

STATIC = Path(__file__).resolve().parent / "static"
LIMIT = 6_000_000
"""Largest size of the page in bytes."""


def files(raw: Path = RAW, stored: Path | None = None) -> dict[str, str]:
    """Text of every file of the page, by name, from the records in folder `raw` and the certificates in folder `stored`
    (None: the committed ones if `raw` is results/raw, else none). Claims are shown with results/raw only, because they
    are decided by committed records.

    ValueError if there is nothing to show, or if the page would be larger than 6,000,000 bytes (LIMIT).
    """
    made = {path.name: path.read_text("utf-8") for path in sorted(STATIC.iterdir()) if path.is_file()}
    made["data.js"] = f"const DATA = {_json(data(raw, stored))};\n"
    size = sum(len(text.encode()) for text in made.values())
    if size > LIMIT:
        raise ValueError(
            f"the page of {raw} would take {size:,} bytes, more than {LIMIT:,}; give --raw a folder of fewer records"
        )
    return made


def data(raw: Path, stored: Path | None) -> Json:
    """Content of the page as JSON: plots, recorded decodings (`items`), certificates, ledger of claims, and the sources
    of all numbers. ValueError if `raw` has nothing to plot."""
    sources = Sources(raw, *claims.FOLDERS.values())
    own = sources.own
    if stored is None and not own:
        stored = certificates.FOLDER
    certified = certificates.read(stored) if stored is not None and stored.is_dir() else []
    records, items = latest(largest(sources.records[raw])), Items()
    timed = list(timed_plots(sources, records, items))
    laws, texts = list(law_plots(certified, items)), list(text_plots(sources, records))
    order = (*timed, *texts, *laws) if own else (*timed, *laws, *texts)
    drawn = [plot for plot in order if plot["points"]]
    if not any(plot["points"] for plot in (*timed, *texts)):
        raise ValueError(
            f"{raw} has no records to plot; run a suite such as speed.sudoku or quality.text, or leave out --raw"
        )
    by_folder = {where: sources.records[folder] for where, folder in claims.FOLDERS.items()}
    return {
        "plots": drawn,
        "items": items,
        "certificates": ledger.certified(certified),
        "ledger": ledger.judged(None if own else claims.stored(), by_folder, sources),
        "sources": {"certificates": ledger.cited(certified), "records": sources.cited},
    }


def write(folder: Path, raw: Path = RAW, stored: Path | None = None) -> int:
    """Write the page into a folder; returns the number of files. `raw`: folder of records; `stored`: folder of
    certificates (see `files`)."""
    made = files(raw, stored)
    for name, text in made.items():
        write_text(folder / name, text)
    return len(made)


def _json(content: Any) -> str:
    """JSON of plain data on one line, escaped so that it may stand in an HTML script element; numbers that are not
    finite become null."""
    text = json.dumps(_finite(content), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("</", "<\\/").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content.item() if hasattr(content, "item") else content
