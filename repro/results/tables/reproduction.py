"""Table of what the reproduction test (does a run agree with the committed results?) detects: for every recipe that it
compares, the verdict on a half-trained network, and the false alarms of the test (docs/method.md#reproduction-test).

`python -m scripts.reruns` trains the networks; `python -m repro.report` makes reproduction.md and reproduction.csv from
their records.
"""

from __future__ import annotations

from random import Random
from statistics import fmean, stdev

from repro.results.reproduction import ALPHA, RERUNS, Comparison, Key, Values, cells, comparisons, read_values
from repro.results.store import RAW
from repro.results.tables.text import csv_text, grid, page

HALF = RERUNS.parent / "half_trained"
"""Records of networks trained for half of the steps (scripts/reruns.py)."""
RUNS = 200
"""Number of simulated runs of `make reproduce`."""
TITLE = "What the reproduction test sees"
CAPTION = (
    "A network of each recipe of `make reproduce`, stopped at half of its steps and judged by its numbers alone, as "
    "train seed 0 (against the committed one and its reruns with other rounding) and as if it had another train seed "
    "(against the committed train seeds). t: difference from the committed mean over its standard error, of the cell "
    "that sees it best; limit: the |t| beyond which that cell is BAD at a family-wise error of 1 %. All cells: "
    "reproduction.csv."
)
HEADER = ["recipe", "half-trained, seed 0", "cell", "t", "limit", "as another seed", "cell", "t", "limit"]


def stored() -> Values | None:
    """Values of all cells (metrics of a recipe, task and sampler) of the committed records and their reruns, with the
    half-trained networks in place of the run that is tested; None without results/reruns and results/half_trained, as
    in an installed package."""
    if not (RERUNS.is_dir() and HALF.is_dir()):
        return None
    return read_values(RAW, HALF, cells(), RERUNS)


def tables(values: Values | None) -> dict[str, str]:
    """Texts of reproduction.md (a row for each recipe) and reproduction.csv (a row for each comparison), by file name,
    that says what the reproduction test detects: `values` are the numbers that it compares, as `stored` returns them.
    No files where `values` is None."""
    from pandas import DataFrame

    if values is None:
        return {}
    another = {(cell, False): new for (cell, paired), new in values.new.items() if paired}
    found = comparisons(values) | comparisons(values._replace(new=another))
    lines = []
    for recipe in dict.fromkeys(cell.recipe for cell, paired in found if paired):
        line = [recipe]
        for paired in (True, False):
            cell, best = min(
                ((cell, each) for (cell, z), each in found.items() if cell.recipe == recipe and z is paired),
                key=lambda pair: pair[1].p,
            )
            verdict = "BAD" if best.p <= ALPHA else "**good**" if paired else "good"
            line += [verdict, cell.name, f"{best.t:.3g}", f"{best.limit:.3g}"]
        lines.append(line)
    each = DataFrame([_row(key, comparison) for key, comparison in found.items()])
    text = page(TITLE, CAPTION, grid(HEADER, lines), _alarms(values))
    return {"reproduction.md": text, "reproduction.csv": csv_text(each)}


def _row(key: Key, comparison: Comparison) -> dict[str, object]:
    cell, paired = key
    return {
        **{"recipe": cell.recipe, "cell": cell.name, "metric": cell.metric},
        "compared with": "same seed" if paired else "train seeds",
        "known": fmean(comparison.known),
        "spread": comparison.spread,
        "half-trained": fmean(comparison.yours),
        **{"t": comparison.t, "limit": comparison.limit},
        "verdict": "BAD" if comparison.p <= ALPHA else "good",
    }


def _alarms(values: Values) -> str:
    """Sentences that count false alarms of the reproduction test: in simulated runs, and among committed values and
    reruns, each of which is left out in turn and tested against the others."""
    alarms = {paired: sum(simulated(values, paired, run) for run in range(RUNS)) for paired in (True, False)}
    (bad, judged), (bad_seeds, seeds) = left_out(values, True), left_out(values, False)
    return (
        f"False alarms (any cell BAD): {alarms[True]} of {RUNS} simulated runs of train seed 0 and {alarms[False]} of "
        f"{RUNS} of a train seed that is not committed, where committed values and the run are drawn from the normal "
        f"law with each cell's own mean and spread. Left out and judged by the others, {bad} of {judged} values of "
        f"reruns are BAD, and {bad_seeds} of {seeds} of committed train seeds."
    )


def simulated(values: Values, paired: bool, run: int) -> bool:
    """Whether a simulated run has a false alarm (any cell that is BAD). Its values, the committed ones and reruns are
    drawn from the normal distribution with each cell's mean and standard deviation. `paired`: whether the run is of
    train seed 0, which is committed, or of one that is not; `run`: number of the run, which seeds the draws."""
    draw = Random(f"{paired} {run}")
    made = Values({}, {}, {**values.alike}, values.least, set())
    for key, own in values.alike.items():
        if key[1] is paired and len(own) >= 2:
            mean, spread = fmean(own), stdev(own)
            made.alike[key] = [draw.gauss(mean, spread) for _ in own]
            made.known[key] = made.alike[key][:1] if paired else made.alike[key]
            made.new[key] = [draw.gauss(mean, spread)]
    return any(each.p <= ALPHA for each in comparisons(made).values())


def left_out(values: Values, paired: bool) -> tuple[int, int]:
    """Number of false alarms (BAD) and number of tests, when each value of a cell is left out in turn and tested
    against the others: values of train seed 0 and its reruns (`paired`), or of all committed train seeds."""
    bad = judged = 0
    for key, own in values.alike.items():
        for i, value in enumerate(own if key[1] is paired else ()):
            rest = own[:i] + own[i + 1 :]
            alone = values._replace(
                known={key: rest[:1] if paired else rest},
                new={key: [value]},
                alike={**values.alike, key: rest},
            )
            found = comparisons(alone, needed={True: 2, False: 4})
            bad += sum(each.p <= ALPHA for each in found.values())
            judged += len(found)
    return bad, judged
