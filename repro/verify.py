"""Compare stored records with published numbers (`repro.evals.published.verify`).

python -m repro.verify [RAW]                      # all numbers; RAW: folder of records (default results/raw)
python -m repro.verify --cell duo.t5.mdlm.1024    # one published number in detail, its cost first
python -m repro.verify --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from repro.core.cli import Parser, run, say
from repro.evals.published.cells import FILE, disagreements, find, read
from repro.evals.published.verify import card, render, verify
from repro.results.store import RAW, collect
from repro.results.versions import latest


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of `python -m repro.verify`: 1 if a record contradicts a published number, else 0."""
    parser = Parser(
        prog="python -m repro.verify",
        description="Compare published numbers with records; exit code 1 if a record contradicts one.",
        examples=["python -m repro.verify", "python -m repro.verify --cell duo.t5.mdlm.1024"],
    )
    parser.add_argument(
        "raw", nargs="?", type=Path, default=RAW, help="folder of records (default results/raw)"
    )
    parser.add_argument("--cell", help="print one published number in detail, for example duo.t5.mdlm.1024")
    parser.add_argument(
        "--published",
        type=Path,
        default=FILE,
        help="file of published numbers (default evals/published.toml)",
    )
    parser.add_argument("--json", action="store_true", help="print every result as JSON")
    arguments = parser.parse_args(argv)
    cells = read(arguments.published)
    chosen = None if arguments.cell is None else find(cells, arguments.cell)
    every = verify(cells, latest(collect(arguments.raw)))
    verdicts = [verdict for verdict in every if chosen in (None, verdict.cell)]
    if arguments.json:
        data = {
            "cells": [asdict(verdict) for verdict in verdicts],
            "disagreements": [
                {"called": each.called, "cells": [cell.name for cell in each.cells], "fields": each.fields}
                for each in disagreements(cells)
                if chosen is None or each.called == chosen.called
            ],
        }
        print(json.dumps(data, indent=1))
    else:
        say(render(verdicts) if chosen is None else card(verdicts[0], every))
    return 1 if any(verdict.answer == "fail" for verdict in verdicts) else 0


if __name__ == "__main__":
    run(main, "repro.verify")
