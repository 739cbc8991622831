"""Write the tables made from the records in results/raw, or check that the written ones are up to date.

python -m repro.report [--raw DIR] [--out DIR]      # write the tables
python -m repro.report --check                      # exit code 1 if a written table is out of date
python -m repro.report --methods --raw DIR          # a paragraph about what ran, and its BibTeX

Each table is written as Markdown, CSV and LaTeX (a `tabular` with booktabs' rules, for `\\input`; a long table is split
into several).

Some tables are made from other folders too: certificates.* (tests of samplers), controls.* (samplers and losses known
to be wrong or right, by which these tests are tested) and peers.* (tests of other projects' samplers) from
results/certificates (`--certificates`); reproduction.* (what the reproduction test detects) from results/reruns and
results/half_trained; choices.* (variants of recipe duo) and claims.* (claims of papers, in evals/claims.toml) from
results/choices and results/claims.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.core.cli import Parser, run
from repro.core.errors import Usage
from repro.core.files import stale, write_text
from repro.results import certificates, certified_peers
from repro.results.methods import methods
from repro.results.report import TABLES, tables, with_latex
from repro.results.store import RAW, collect
from repro.results.tables import choices, claims, reproduction
from repro.results.tables.latex import WIDTH
from repro.results.versions import largest


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of `python -m repro.report`: 1 if `--check` finds a file that is missing or out of date, else 0."""
    parser = Parser(
        prog="python -m repro.report",
        description="Write the tables of the records in results/raw, or check that they are up to date.",
        examples=[
            "python -m repro.report",
            "python -m repro.report --raw runs/mdlm@nano-s0/raw --out tables --width 5.5",
            "python -m repro.report --methods --raw runs/mdlm@nano-s0/raw",
        ],
    )
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of records (default results/raw)")
    parser.add_argument(
        "--out", type=Path, help="folder of tables (default results/tables; needed with another --raw)"
    )
    parser.add_argument(
        "--width",
        type=inches,
        help=f"inches that a LaTeX table may take: 5.5 for the text of NeurIPS or ICLR, 4.8 for LaTeX's own article "
        f"(default {WIDTH}; needs another --raw)",
    )
    parser.add_argument(
        "--certificates",
        type=Path,
        default=certificates.FOLDER,
        help="folder of certificates (default results/certificates)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; list every file that is out of date"
    )
    parser.add_argument(
        "--methods",
        action="store_true",
        help="print a paragraph for a paper about exactly what the records of --raw ran, and its BibTeX",
    )
    arguments = parser.parse_args(argv)
    if arguments.methods:
        print("\n".join(methods(collect(arguments.raw))))  # to be pasted: no line is broken
        return 0
    if arguments.raw.resolve() != RAW.resolve():
        if arguments.out is None:
            raise Usage(f"--raw {arguments.raw} needs --out FOLDER: {TABLES} holds the tables of results/raw")
        return _own(arguments.raw, arguments.out, arguments.check, arguments.width or WIDTH)
    if arguments.width is not None:
        raise Usage(
            "--width is for tables of records of your own; give --raw FOLDER and --out FOLDER, or leave out --width"
        )
    out = arguments.out or TABLES
    folder = arguments.certificates
    files = tables(collect(arguments.raw)) | certificates.tables(certificates.read(folder))
    files |= certificates.controls_tables(certificates.read_controls(folder))
    files |= certified_peers.peers_tables(certified_peers.read_peers(folder))
    files |= reproduction.tables(reproduction.stored()) | choices.tables(choices.stored())
    ledger = claims.stored()
    files = with_latex(files | claims.tables(ledger))
    code = _write(files, out, arguments.check)
    if ledger and not arguments.check:
        print(f"claims: {claims.counts(ledger[1])} ({out / 'claims.md'})")
    return code


def inches(text: str) -> float:
    """The width from 2 to 20 inches in `text`, for argparse's `type`; ArgumentTypeError for other text."""
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number of inches; give one, for example 5.5") from None
    if not 2 <= value <= 20:
        raise ArgumentTypeError(f"{text} inches is no width of a page's text; give 2 to 20, for example 5.5")
    return value


def _own(raw: Path, out: Path, check: bool, width: float) -> int:
    """Write the tables of a user's own records, those in `raw`, to the folder `out`; with `check` write nothing, but
    compare with the files there. Tables without rows, and those made from this project's own results, are left out;
    LaTeX tables are at most `width` inches wide. Returns the exit code: 1 if `check` finds a file that is out of date,
    else 0."""
    records = collect(raw)
    fewer = len(records) - len(largest(records))
    files = tables(records)
    names = [name.removesuffix(".csv") for name, text in files.items() if name.endswith(".csv")]
    shown = [name for name in names if files[f"{name}.csv"].count("\n") > 1]
    kept = {name: text for name, text in files.items() if name.rpartition(".")[0] in shown}
    code = _write(with_latex(kept, width), out, check)
    if not check:
        print(f"tables with rows: {', '.join(shown) or 'none'}")
        if fewer:
            print(f"left out: {fewer} records of evaluations that were made with more items too (--limit)")
    return code


def _write(files: Mapping[str, str], out: Path, check: bool) -> int:
    """Write `files` (file name -> text) to the folder `out`, and return exit code 0; with `check` write nothing, but
    print the paths that are out of date, and return 1 if there are any."""
    if check:
        old = [*stale(out, files), *_former_parts(files, out)]
        for path in old:
            print(f"{path} is stale; python -m repro.report rewrites it")
        return 1 if old else 0
    for path in _former_parts(files, out):
        path.unlink()
    for name, text in files.items():
        write_text(out / name, text)
    print(f"{len(files)} files written to {out}")
    return 0


def _former_parts(files: Mapping[str, str], out: Path) -> list[Path]:
    """Paths in `out` of outdated parts of long LaTeX tables: files NAME-2.tex, NAME-3.tex, ... that an earlier call
    wrote, when the table NAME had more parts. `files`: names of all files to be written now; NAME.tex is among them,
    the outdated parts are not."""
    parts = [path for path in out.glob("*-*.tex") if re.fullmatch(r".+-\d+\.tex", path.name)]
    return sorted(p for p in parts if p.name not in files and f"{p.stem.rpartition('-')[0]}.tex" in files)


if __name__ == "__main__":
    run(main, "repro.report")
