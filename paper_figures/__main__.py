"""Draw the figures of the paper from results/raw, results/bench and results/certificates: paper_figures/out/NAME.svg,
and its numbers as NAME.csv.

    python -m paper_figures [NAME ...] [--raw DIR] [--out DIR]      # draw all, or the named ones
    python -m paper_figures --raw DIR --recipes mdlm@nano,mine@nano # of these recipes alone
    python -m paper_figures --check                                 # compare the drawn files with the records

`--check` always compares CSV byte for byte. It compares SVG only under the matplotlib version of constraints.txt,
because other versions may place glyphs differently, and says so otherwise.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from paper_figures import COLUMN, PAGE
from paper_figures.recipes import MOST, shown
from repro.core.cli import Parser, run
from repro.core.errors import Usage, nearest
from repro.core.files import ROOT, stale, write_text
from repro.results.certificates import FOLDER, Stored, read
from repro.results.record import Record
from repro.results.store import RAW, collect
from repro.results.tables import choices
from repro.results.tables.text import csv_text
from repro.results.versions import largest, latest

HERE = Path(__file__).resolve().parent
BENCH = ROOT / "results" / "bench"
FIGURES: dict[str, Literal["records", "bench", "certificates", "choices"]] = {
    "quality": "records",
    "gap": "records",
    "curves": "records",
    "caches": "records",
    "frontier": "records",
    "matched": "records",
    "accuracy_nfe": "records",
    "accuracy_speed": "records",
    "estimators": "records",
    "lookahead": "records",
    "passes": "records",
    "vocabulary": "bench",
    "cost": "bench",
    "law_error": "certificates",
    "choices": "choices",
}
"""Module of each figure and what it is drawn from: records, the rows of results/bench/NAME.json, certificates, or the
records of results/choices."""


WIDTHS = {"column": COLUMN, "text": PAGE, "single": 5.5}
"""Widths of a PDF in inches: a column and the text of a two-column page (ICML), the text of one column (NeurIPS)."""


def module(name: str) -> ModuleType:
    """The module of a figure; raises ValueError for an unknown name and names the nearest one."""
    if name not in FIGURES:
        remedy = "a new one needs its line in FIGURES of paper_figures/__main__.py"
        raise ValueError(f"no figure {name!r}; {nearest(name, FIGURES)} ({remedy})")
    return importlib.import_module(f"paper_figures.{name}")


def bench_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a benchmark file; empty if there is no such file."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []


def draw(
    name: str,
    given: Sequence[Record] | Sequence[dict[str, Any]] | Sequence[Stored],
    pdf: Path | None = None,
    width: float = 0,
    empty: bool = True,
) -> dict[str, str]:
    """File name -> text of a figure drawn from records, benchmark rows or certificates: deterministic SVG, and CSV.
    With `pdf` the drawing is also written to this file, `width` inches wide. `empty`: whether a figure that finds no
    data in `given` is drawn (as a sentence) or left out."""
    from matplotlib import style

    buffer = io.BytesIO()
    with style.context(HERE / "style.mplstyle", after_reset=True):
        drawing, drawn = module(name).figure(given)
        if len(drawn) == 0 and not empty:
            return {}
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        if pdf is not None:
            drawing.set_size_inches(*pdf_size(*drawing.get_size_inches(), width))
            pdf.parent.mkdir(parents=True, exist_ok=True)
            drawing.savefig(pdf, format="pdf", bbox_inches=None, metadata={"CreationDate": None})
    return {f"{name}.svg": _numbered(buffer.getvalue().decode()), f"{name}.csv": csv_text(drawn)}


def _numbered(svg: str) -> str:
    """The SVG with its clip paths numbered in order of use: matplotlib's own ids depend on when objects are freed."""
    ids: dict[str, str] = {}
    return re.sub(r"\bp[0-9a-f]{10}\b", lambda found: ids.setdefault(found[0], f"clip{len(ids)}"), svg)


def pdf_size(across: float, high: float, width: float) -> tuple[float, float]:
    """Width and height in inches of a PDF that is asked to be `width` wide, of a figure of `across` by `high`: text
    keeps its size, so a narrower figure is as high as before, and one with panels for a whole page is not squeezed into
    a column."""
    if width < 0.75 * across:
        return across, high
    return width, high * min(1.25, max(1.0, width / across))


def pinned_matplotlib() -> str | None:
    """The version of matplotlib that constraints.txt pins, or None."""
    path = ROOT / "constraints.txt"
    found = (
        re.search(r"^matplotlib==(\S+)", path.read_text("utf-8"), re.MULTILINE) if path.is_file() else None
    )
    return found.group(1) if found else None


def check(folder: Path, files: dict[str, str]) -> int:
    """Print a line for each stale file, and one if SVG was not compared; returns the exit code."""
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
    """Run the command line; returns 1 if `--check` finds a stale file, else 0."""
    parser = Parser(
        prog="python -m paper_figures",
        description="Draw the figures of results/raw, or check the drawn ones.",
        examples=[
            "python -m paper_figures",
            "python -m paper_figures quality gap --out drawn",
            "python -m paper_figures --raw runs/mine/raw --out figures --pdf column",
        ],
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"figures: {', '.join(FIGURES)} (default all)"
    )
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of records (default results/raw)")
    parser.add_argument(
        "--bench", type=Path, default=BENCH, help="folder of benchmark rows (default results/bench)"
    )
    parser.add_argument(
        "--certificates", type=Path, default=FOLDER, help="folder (default results/certificates)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of figures (default paper_figures/out; needed with another --raw)",
    )
    parser.add_argument(
        "--recipes",
        metavar="NAME,NAME",
        help=f"draw these recipes alone (default: of each scale at most {MOST}, those with a colour first)",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; name every stale file")
    parser.add_argument(
        "--pdf",
        choices=list(WIDTHS),
        help="also write NAME.pdf: 3.25 inches wide (a column of two), 6.75 (both) or 5.5 (text of a single column); "
        "figures with panels for both columns stay 6.75 wide where a column is asked for",
    )
    arguments = parser.parse_args(argv)
    own = arguments.raw.resolve() != RAW.resolve()
    if own and arguments.out is None:
        raise Usage(
            f"--raw {arguments.raw} needs --out FOLDER: paper_figures/out holds the figures of results/raw"
        )
    out = arguments.out or HERE / "out"
    names = arguments.names or [name for name, kind in FIGURES.items() if kind == "records" or not own]
    for name in names:
        module(name)
    records, left_out = shown(
        latest(largest(collect(arguments.raw))), arguments.recipes.split(",") if arguments.recipes else ()
    )
    files: dict[str, str] = {}
    for name in names:
        pdf = out / f"{name}.pdf" if arguments.pdf else None
        size = WIDTHS.get(arguments.pdf, 0)
        match FIGURES[name]:
            case "records":
                files |= draw(name, records, pdf, size, empty=not own)
            case "bench":
                files |= draw(name, bench_rows(arguments.bench, name), pdf, size)
            case "certificates":
                files |= draw(name, read(arguments.certificates), pdf, size)
            case "choices":
                files |= draw(name, choices.stored(), pdf, size)
    for sentence in left_out:
        print(sentence)
    if arguments.check:
        return check(out, files)
    for name, text in files.items():
        write_text(out / name, text)
    drawn = [name for name in names if f"{name}.csv" in files]
    print(f"figures in {out}: {', '.join(drawn) or 'none'}")
    if len(drawn) < len(names):
        print(f"without records here: {', '.join(each for each in names if each not in drawn)}")
    return 0


if __name__ == "__main__":
    run(main, "paper_figures")
