"""Speed ratios of this suite against published loops, measured side by side on one CPU thread.

    make bench                          -> a table, and results/bench/NAME.json (seconds, or the unit in the row's name)
    python -m benchmarks --rows decode --repeats 5
    python -m benchmarks --peer llada=FOLDER --peer lm_eval    -> the peer's own file beside ours (benchmarks/peers.py)

Both sides do the same work in turn, so that other load on the machine affects both; a ratio is one of medians of CPU
seconds. Sizes are pinned and weights random.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import cost, decoding, duo, growth, likelihood, loading, masked, peers, precision, vocabulary
from benchmarks.row import Row
from repro.core.cli import Parser, natural, run
from repro.core.devices import processor
from repro.core.errors import nearest
from repro.core.files import ROOT, write_text
from repro.core.onednn import onednn_is_faster

ROWS: dict[str, Callable[[int], list[Row]]] = {
    "decode": decoding.small,
    "decode_wide": decoding.wide,
    "decode_cached": decoding.cached,
    "decode_ar": decoding.autoregressive,
    "masked_head": masked.masked_head,
    "duo_step": duo.duo_step,
    "duo_memory": duo.duo_memory,
    "vocabulary": vocabulary.vocabulary,
    "likelihood": likelihood.same_draws,
    "likelihood_variance": likelihood.variance,
    "loading": loading.loading,
    "precision": precision.precision,
    "growth": growth.growth,
    "cost": cost.cost,
}
"""NAME of results/bench/NAME.json -> function from the number of repeats to its rows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; raises ValueError for unknown row names and for 0 repeats."""
    parser = Parser(
        "python -m benchmarks",
        "Speed ratios, side by side (algorithmic, CPU).",
        [
            "python -m benchmarks",
            "python -m benchmarks --rows masked_head --repeats 1",
            "python -m benchmarks --peer llada=../LLaDA --peer lm_eval",
        ],
    )
    parser.add_argument("--rows", help=f"some of {','.join(ROWS)} (default: all, or none with --peer)")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="run a peer's own file from its checkout beside ours and store the commit in peers.json (lm_eval: the"
        f" installed package, no FOLDER); may be repeated; one of {', '.join(peers.PEERS)}",
    )
    parser.add_argument(
        "--repeats", type=natural, default=3, help="timings of each side; their medians count (default 3)"
    )
    parser.add_argument("--out", type=Path, help="folder of the JSON files (default: results/bench)")
    args = parser.parse_args(argv)
    names = _names(args.rows, bool(args.peer))
    checkouts = [peers.Checkout.read(text) for text in args.peer]
    if args.repeats < 1:
        raise ValueError("--repeats 0 measures nothing; give 1 or more")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler
    out = args.out or ROOT / "results" / "bench"
    rows: list[Row] = []
    for name in names:
        found = ROWS[name](args.repeats)
        _store(out / f"{name}.json", [asdict(row) for row in found])
        rows += found
    against = [row for checkout in checkouts for row in checkout.rows(args.repeats)]
    if against:
        measured = [asdict(row) for row in against]
        _store(out / "peers.json", _others(out / "peers.json", {row.peer for row in against}) + measured)
    _print([*rows, *against])
    unequal = [row for row in against if not row.equal]
    for row in unequal:
        print(f"{row.peer} {row.row}: results differ ({row.agreement})")
    return 1 if unequal else 0


def _names(text: str | None, against_peers: bool) -> list[str]:
    """The row names of --rows; ValueError for one that does not exist."""
    if text is None or text == "all":
        return [] if text is None and against_peers else list(ROWS)
    names = text.split(",")
    for name in names:
        if name not in ROWS:
            remedy = "a new one needs its line in ROWS of benchmarks/__main__.py"
            raise ValueError(f"no bench row {name!r}; {nearest(name, ROWS)} ({remedy})")
    return names


def _machine() -> dict[str, Any]:
    from repro.core.lazy import torch

    return {
        "processor": processor(),
        "float32 products": "oneDNN" if onednn_is_faster() else "torch's own",
        "threads": torch.get_num_threads(),
        "malloc": "keeps its pages" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "as shipped",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }


def _store(file: Path, rows: list[dict[str, Any]]) -> None:
    write_text(file, json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")


def _others(file: Path, measured: set[str]) -> list[dict[str, Any]]:
    """Stored rows of peers that are not measured now; [] if they are of another machine or of other versions
    (`_machine`)."""
    if not file.is_file():
        return []
    stored = json.loads(file.read_text("utf-8"))
    same = stored["machine"] == _machine()
    return [row for row in stored["rows"] if same and row["peer"] not in measured]


def _print(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="algorithmic, CPU; seconds unless a row says otherwise", title_justify="left")
    for head in ("row", "ours", "opponent", "ratio", "target", "agreement"):
        table.add_column(head, justify="left" if head in ("row", "agreement") else "right")
    for row in rows:
        cells = (f"{row.ours:.3f}", f"{row.opponent:.3f}", f"{row.ratio:.2f}x", f"{row.target:.1f}x")
        table.add_row(row.row, *cells, row.agreement)
    Console().print(table)


if __name__ == "__main__":
    run(main, "benchmarks")
