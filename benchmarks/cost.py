"""How time and memory grow with rows, length, vocabulary, steps, processes and records (figure `cost`).

Each row holds one quantity at several sizes of one axis, all other sizes as in `SIZES`, and its slope: the exponent k
of the power law n^k that fits best on logarithmic axes (least squares). Time is in CPU seconds; memory, of training
and decoding, is the peak of tensors beyond the weights.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import growth
from benchmarks.masked import MaskedStep
from benchmarks.nets import Sizes, llama
from benchmarks.row import Row, Side, peak_bytes, timed

TIME, MEMORY = "CPU seconds", "MiB"
AXES: Mapping[str, tuple[int, ...]] = {
    "rows": (4, 16, 64),
    "length": (32, 128, 512),
    "vocabulary": (1_024, 4_096, 16_384),
    "steps": (8, 32, 128),
}
MOST = {"rows": 1, "length": 2, "vocabulary": 1, "steps": 1, "records": 1}
"""Axis -> largest exponent that the algorithm allows: attention is quadratic in the length."""
PROCESSES, SAMPLES = (1, 2, 4), 4_096
RECORDS = (1_000, 5_000, 25_000)
CHILD = """
import json, sys, time
from pathlib import Path
from repro.evals.__main__ import main
folder, name, count, samples = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
def score(out, samples):
    return main(["--ckpt", "oracle:mdlm@nano", "--samplers", "ancestral", "--tasks", f"law:samples={samples}",
                 "--out", str(out)])
score(folder / f"first-{name}", "64")
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < count:
    time.sleep(0.01)
began = time.process_time()
assert score(folder / "shared", samples) == 0
seconds = time.process_time() - began
print(json.dumps(seconds))
"""


@dataclass(frozen=True)
class CostRow(Row):
    """A row with its work, axis and quantity, the `values` at `sizes` of that axis, and their slope. `ours`: the value
    at the largest size; `opponent`: what that value would be after growth from the smallest size with the expected
    exponent."""

    work: str
    axis: str
    quantity: str
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    slope: float


@dataclass(frozen=True)
class Size:
    """Sizes of a training step or of decoding."""

    rows: int
    length: int
    vocabulary: int
    steps: int


SIZES = Size(rows=8, length=128, vocabulary=1_024, steps=16)


def cost(repeats: int) -> list[Row]:
    """All rows; `repeats`: timings of each time, except those by the number of records. The target is to grow no faster
    than the algorithm; for processes that share an evaluation, to lose a fifth of the time at most."""
    found: list[Row] = []
    for work, make, axes in (
        ("training step", training, ("rows", "length", "vocabulary")),
        ("decoding", decoding, tuple(AXES)),
    ):
        for axis in axes:
            sides = {n: make(replace(SIZES, **{axis: n})) for n in AXES[axis]}
            seconds = timed({str(n): side for n, side in sides.items()}, repeats).seconds
            found.append(row(work, axis, TIME, {n: seconds[str(n)] for n in sides}, MOST[axis]))
            peaks = {n: peak_bytes(side) / 2**20 for n, side in sides.items()}
            found.append(row(work, axis, MEMORY, peaks, MOST[axis]))
    return found + processes(repeats) + records()


def training(size: Size) -> Side:
    """A training step of `benchmarks.masked`; its length, rows and vocabulary are those of `size`."""
    return MaskedStep(size.vocabulary, size.rows, size.length).ours


def decoding(size: Size) -> Side:
    """Decoding of `size.rows` rows by low confidence in `size.steps` steps, without a cache."""
    from repro.processes.absorbing import Absorbing
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.presets import preset

    process, rule, names = Absorbing(), preset("low_confidence"), list(range(size.rows))
    sizes = Sizes(ids=size.vocabulary, mask=size.vocabulary, bos=None, length=size.length + 1)
    denoiser = llama(sizes, process, width=128, layers=2, ffn=384, heads=4)
    plan = ServedPlan(gen_length=size.length, block_length=size.length, steps=size.steps, cache=None, stop=())
    return lambda: decode(denoiser, process, rule, plan, [[name] for name in names], seed=0, names=names)


def processes(repeats: int) -> list[Row]:
    """CPU seconds of processes that share one evaluation, measured from when all are ready."""
    runs = {count: [_together(count) for _ in range(repeats)] for count in PROCESSES}
    busiest = {n: statistics.median(map(max, each)) for n, each in runs.items()}
    total = {n: statistics.median(map(sum, each)) for n, each in runs.items()}
    return [
        row("busiest process", "processes", TIME, busiest, -1, target=0.8),
        row("all processes", "processes", TIME, total, 0, target=0.8),
    ]


def _together(count: int) -> list[float]:
    """CPU seconds of each of `count` processes that share one evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, folder]
        started = [
            subprocess.Popen([*command, str(i), str(count), str(SAMPLES)], stdout=subprocess.PIPE, text=True)
            for i in range(count)
        ]
        texts = [each.communicate()[0] for each in started]
        for each in started:
            if each.returncode:
                raise subprocess.CalledProcessError(each.returncode, "a process of the benchmark")
        return [json.loads(text.splitlines()[-1]) for text in texts]


def records() -> list[Row]:
    """CPU seconds of tables and figures against the number of records, by one run each; `growth` has their memory."""
    found: dict[str, dict[int, float]] = {name: {} for name in growth.COMMANDS}
    for size in RECORDS:
        for name, (seconds, _) in growth.measured(size, 1).items():
            found[name][size] = seconds
    return [row(name, "records", TIME, values, MOST["records"]) for name, values in found.items()]


def row(
    work: str, axis: str, quantity: str, values: Mapping[int, float], most: int, target: float = 1.0
) -> CostRow:
    """The row of `values` (size on the axis -> value of `quantity`); `most`: largest exponent that is expected."""
    sizes, found = tuple(values), tuple(values.values())
    expected = found[0] * (sizes[-1] / sizes[0]) ** most
    k = slope(sizes, found)
    shown = ", ".join(f"{value:.3g} at {size:,}" for size, value in values.items())
    name = f"{work}, {quantity} by {axis}, against n^{most}"
    return CostRow(
        *(name, found[-1], expected, expected / found[-1], target, f"{shown}; grows as n^{k:.2f}"),
        *(work, axis, quantity, sizes, found, k),
    )


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of the power law that fits `values` at `sizes` (all above 0), by least squares of the logarithms."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(v) for v in values]).slope
