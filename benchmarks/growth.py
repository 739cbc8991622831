"""Time and memory of tables and figures against the number of records (`python -m repro.report`, `paper_figures`).

The records are copies of the committed ones with other train seeds and, after five seeds, other recipe names, so that
the numbers of rows, panels and pairs of sweeps grow as in a larger study. Each size runs in a process of its own: the
smallest of `repeats` CPU times, and the largest peak of memory, interpreter and libraries included.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from benchmarks.row import Row
from repro.core.parts import sha256
from repro.results.record import Question, Record, make_record, text
from repro.results.store import RAW, Store, collect

SIZES = (5_000, 50_000)
SECONDS, GIGA = 20.0, 1.0
SEEDS = 5
COMMANDS = {"tables": "repro.report", "figures": "paper_figures.__main__"}
"""What is made of the records -> the module whose `main` does it."""
CHILD = """
import importlib, json, re, sys, time
from pathlib import Path
main = importlib.import_module(sys.argv[1]).main
began = time.process_time()
main(["--raw", sys.argv[2], "--out", sys.argv[3]])
# not ru_maxrss, which begins with that of the process that started this one
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e9
print(json.dumps({"seconds": time.process_time() - began, "peak": peak}))
"""


def growth(repeats: int) -> list[Row]:
    """CPU seconds and gigabytes of tables and figures of the largest number of records, against their limits."""
    found = {size: measured(size, repeats) for size in SIZES}
    (small, few), (large, many) = found.items()
    rows = []
    for made in COMMANDS:
        for i, (unit, limit) in enumerate((("CPU seconds", SECONDS), ("GB", GIGA))):
            before, now = few[made][i], many[made][i]
            slope = math.log(now / before) / math.log(large / small)
            shown = f"{before:.2f} at {small:,}; grows as n^{slope:.2f}"
            name = f"{made} of {large:,} records, {unit} against the limit"
            rows.append(Row(name, now, limit, limit / now, 1.0, shown))
    return rows


def measured(size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """CPU seconds and peak memory in GB of each of COMMANDS over `size` records."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "raw"
        Store(folder).append(*islice(copies(collect(RAW)), size))
        found = {}
        for made, module in COMMANDS.items():
            command = [sys.executable, "-c", CHILD, module, str(folder), f"{temporary}/{made}"]
            runs = [_child(command) for _ in range(repeats)]
            found[made] = min(run["seconds"] for run in runs), max(run["peak"] for run in runs)
    return found


def _child(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def copies(records: list[Record]) -> Iterator[Record]:
    """An endless sequence of records: the given ones, then copies with other train seeds and, after `SEEDS` rounds,
    with other recipe names."""
    for round_ in count():
        for record in records:
            yield _copy(record, *divmod(round_, SEEDS)) if round_ else record


def _copy(record: Record, version: int, seed: int) -> Record:
    data = json.loads(text(record))
    network, labels = data["question"]["checkpoint"], data["labels"]
    network["seed"] += 10 * seed
    network["digest"] = sha256(f"{record.id} {version} {seed}")
    if version:
        name, _, scale = labels["recipe"].partition("@")
        recipe = f"{name}_{version}@{scale}" if scale else f"{name}_{version}"
        labels["checkpoint"] = labels["checkpoint"].replace(labels["recipe"], recipe)
        labels["recipe"], network["recipe"] = recipe, sha256(f"{network['recipe']} {version}")
    return make_record(Question.read(data["question"]), labels, data["answer"], data["measurements"])
