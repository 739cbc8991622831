"""Speed ratios of this suite against published loops, measured side by side on one CPU thread.

    make bench                          -> a table, and results/bench/NAME.json (seconds, or the unit in the row's name)
    python -m benchmarks --rows decode --repeats 5

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

from benchmarks import decoding, duo, growth, likelihood, loading, masked, precision, vocabulary
from benchmarks.row import Row
from repro.core.cli import Parser, natural, run
from repro.core.errors import nearest
from repro.core.files import ROOT, write_text

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
}
"""NAME of results/bench/NAME.json -> function from the number of repeats to its rows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; raises ValueError for unknown row names and for 0 repeats."""
    parser = Parser(
        "python -m benchmarks",
        "Speed ratios, side by side (algorithmic, CPU).",
        ["python -m benchmarks", "python -m benchmarks --rows masked --repeats 1"],
    )
    parser.add_argument("--rows", default="all", help=f"all, or some of {','.join(ROWS)}")
    parser.add_argument(
        "--repeats", type=natural, default=3, help="timings of each side; the best counts (default 3)"
    )
    parser.add_argument("--out", type=Path, help="folder of the JSON files (default: results/bench)")
    args = parser.parse_args(argv)
    names = list(ROWS) if args.rows == "all" else args.rows.split(",")
    for name in names:
        if name not in ROWS:
            remedy = "a new one needs its line in ROWS of benchmarks/__main__.py"
            raise ValueError(f"no bench row {name!r}; {nearest(name, ROWS)} ({remedy})")
    if args.repeats < 1:
        raise ValueError("--repeats 0 measures nothing; give 1 or more")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler
    from rich.console import Console
    from rich.table import Table

    from repro.core.lazy import torch

    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "malloc": "keeps its pages" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "as shipped",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }
    table = Table(title="algorithmic, CPU; seconds unless a row says otherwise", title_justify="left")
    for head in ("row", "ours", "opponent", "ratio", "target", "agreement"):
        table.add_column(head, justify="left" if head in ("row", "agreement") else "right")
    for name in names:
        rows = ROWS[name](args.repeats)
        data = {"machine": machine, "rows": [asdict(row) for row in rows]}
        write_text(
            (args.out or ROOT / "results" / "bench") / f"{name}.json", json.dumps(data, indent=1) + "\n"
        )
        for row in rows:
            cells = (f"{row.ours:.3f}", f"{row.opponent:.3f}", f"{row.ratio:.2f}x", f"{row.target:.1f}x")
            table.add_row(row.row, *cells, row.agreement)
    Console().print(table)
    return 0


if __name__ == "__main__":
    run(main, "benchmarks")
