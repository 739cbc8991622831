"""Figures of the paper, from results/raw, results/bench and results/certificates alone: paper_figures/out/NAME.svg and
the NAME.csv it was drawn from.

    python -m paper_figures [NAME ...] [--raw DIR] [--out DIR]      # draw all, or the named ones
    python -m paper_figures --check                                 # are the drawn ones those of the records?

`--check` compares CSV byte for byte always, SVG with the matplotlib of constraints.txt only (another one may
place a glyph differently), and says when it did not.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from repro.core.cli import Parser, run
from repro.core.errors import nearest
from repro.core.files import ROOT, write_text
from repro.results.certificates import FOLDER, Stored, read
from repro.results.record import Record
from repro.results.report import stale
from repro.results.store import RAW, collect
from repro.results.tables.text import csv_text
from repro.results.versions import latest

HERE = Path(__file__).resolve().parent
BENCH = ROOT / "results" / "bench"
NAMES = ("quality", "gap", "curves", "caches", "frontier", "accuracy_nfe", "accuracy_speed", "estimators")
BENCHED = ("vocabulary",)
"""Figures of results/bench/NAME.json; a script's `figure` takes its rows instead of records."""
CERTIFIED = ("law_error",)
"""Figures of results/certificates."""
KNOWN = (*NAMES, *BENCHED, *CERTIFIED)


def module(name: str) -> ModuleType:
    """The script of a figure; ValueError names the nearest one."""
    if name not in KNOWN:
        raise ValueError(f"no figure {name!r}; {nearest(name, KNOWN)}")
    return importlib.import_module(f"paper_figures.{name}")


def bench_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a bench file; none if it is not there."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []


def draw(name: str, given: Sequence[Record] | Sequence[dict[str, Any]] | Sequence[Stored]) -> dict[str, str]:
    """File name -> text of a figure of records, bench rows or certificates: deterministic SVG, numbers as CSV."""
    from matplotlib import style

    buffer = io.BytesIO()
    with style.context(HERE / "style.mplstyle", after_reset=True):
        drawing, drawn = module(name).figure(given)
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{name}.svg": buffer.getvalue().decode(), f"{name}.csv": csv_text(drawn)}


def pinned_matplotlib() -> str | None:
    """The version of matplotlib in constraints.txt, if it names one."""
    path = ROOT / "constraints.txt"
    found = (
        re.search(r"^matplotlib==(\S+)", path.read_text("utf-8"), re.MULTILINE) if path.is_file() else None
    )
    return found.group(1) if found else None


def check(folder: Path, files: dict[str, str]) -> int:
    """Print one line a stale file, and a line if SVG was not compared; the exit code."""
    import matplotlib

    pinned = pinned_matplotlib()
    if matplotlib.__version__ != pinned:
        files = {name: text for name, text in files.items() if not name.endswith(".svg")}
        found = matplotlib.__version__
        print(f"SVG not compared: matplotlib is {found}, constraints.txt pins {pinned or 'none'}")
    old = stale(folder, files)
    for path in old:
        print(f"{path} is stale; python -m paper_figures draws it anew")
    return 1 if old else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if `--check` finds a stale file, else 0."""
    parser = Parser(
        prog="paper_figures", description="Draw the figures of results/raw, or check the drawn ones."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures: {', '.join(KNOWN)} (default all)")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of records (default results/raw)")
    parser.add_argument(
        "--bench", type=Path, default=BENCH, help="folder of bench rows (default results/bench)"
    )
    parser.add_argument(
        "--certificates", type=Path, default=FOLDER, help="folder (default results/certificates)"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "out", help="folder of figures (default paper_figures/out)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; name every stale file")
    arguments = parser.parse_args(argv)
    names = arguments.names or KNOWN
    for name in names:
        module(name)
    records = latest(collect(arguments.raw))
    files: dict[str, str] = {}
    for name in names:
        if name in BENCHED:
            files |= draw(name, bench_rows(arguments.bench, name))
        elif name in CERTIFIED:
            files |= draw(name, read(arguments.certificates))
        else:
            files |= draw(name, records)
    if arguments.check:
        return check(arguments.out, files)
    for name, text in files.items():
        write_text(arguments.out / name, text)
    print(f"{len(files)} files written to {arguments.out}")
    return 0


if __name__ == "__main__":
    run(main, "paper_figures")
