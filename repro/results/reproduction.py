"""The reproduction test: do the results of a run agree with the committed ones?

    python -m repro.results.reproduction runs/reproduce [--committed results/raw] [--recipe NAME ...] [--json]

A *cell* is one metric of one recipe, task and sampler, listed in evals/reproduction.toml. For every cell, the committed
train seeds (at least five) give a prediction interval for the mean of your run. The standard deviation over seeds is
pooled over cells of one kind; the family-wise error over all cells is 1 % (Holm 1979). Half the width of the interval
is the smallest change that the test detects. Exit code 0 if every cell is good, else 1.

Accuracies are compared as asin(sqrt(accuracy)): on that scale the binomial variance of n rows is 1 / (4 n) at every
accuracy (Anscombe 1948), so that cells at .6 and at .99 can share a standard deviation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import msgspec

from repro.core.cli import Parser, run
from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.core.stats import Interval, holm, pooled_spread, prediction_interval, prediction_p
from repro.results.difference import RELATIVE, without
from repro.results.record import text
from repro.results.store import RAW, frame, one_of

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

ALPHA = 0.01
SEEDS = 5  # committed train seeds that a cell needs
CELLS = 12  # each further cell makes the intervals of all wider
WIDTH = 100  # least columns of the table: a narrower terminal wraps lines, so that no verdict is cut off
REMEDY = 'make reproduce SEEDS="0 1 2 3 4", then python -m repro.results publish runs/reproduce'


class ReproductionCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric of one recipe, task and sampler `preset`, to be compared; an empty preset or tokens_per_step is null
    in the records. Cells of one `kind` share a standard deviation over train seeds."""

    name: str
    recipe: str
    task: str
    preset: str = ""
    tokens_per_step: str = ""
    metric: str
    kind: str


Values = Mapping[ReproductionCell, Sequence[float]]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cell: list[ReproductionCell]


@dataclass(frozen=True, kw_only=True)
class ReproductionResult:
    """Result of the test of one cell: `committed` mean and its number of `seeds`, the mean `yours` of your run, the
    prediction interval of the latter (`low`, `high`), the smallest `detectable` change (half the interval), and the
    p-value `p`, adjusted by Holm.

    `verdict`: good, BAD, missing (your run has no such record) or untested (fewer than five committed seeds).
    """

    name: str
    metric: str
    committed: float | None
    seeds: int
    yours: float | None
    low: float | None
    high: float | None
    detectable: float | None
    p: float | None
    verdict: str


def cells(path: Path = ROOT / "evals" / "reproduction.toml") -> list[ReproductionCell]:
    """Cells listed in evals/reproduction.toml; ValueError for an unknown field or for more than CELLS cells."""
    found = read_toml(path, _File).cell
    if len(found) > CELLS:
        raise ValueError(
            f"{path} lists {len(found)} cells; list at most {CELLS}, because each one widens the intervals of all"
        )
    return found


def of_recipes(
    cells: Sequence[ReproductionCell], recipes: Sequence[str] | None
) -> Sequence[ReproductionCell]:
    """The cells of the given recipes (None: all cells); for a recipe without a cell, ValueError names the nearest
    one."""
    if recipes is None:
        return cells
    valid = {cell.recipe for cell in cells}
    for recipe in recipes:
        if recipe not in valid:
            raise ValueError(
                f"evals/reproduction.toml has no cell of recipe {recipe!r}; {nearest(recipe, valid)}"
            )
    return [cell for cell in cells if cell.recipe in recipes]


def _scaled(metric: str, value: float) -> float:
    return math.asin(math.sqrt(value)) if metric == "accuracy" else value


def _unscaled(metric: str, value: float) -> float:
    return math.sin(min(max(value, 0.0), math.pi / 2)) ** 2 if metric == "accuracy" else value


@dataclass(frozen=True)
class _Comparison:
    """Values of a cell per train seed, committed and of your run, on the scale of the test (accuracies: asin(sqrt));
    `spread`: standard deviation over seeds, pooled over the cells of its kind, with `degrees` of freedom."""

    metric: str
    committed: Sequence[float]
    yours: Sequence[float]
    spread: float
    degrees: int

    @property
    def p(self) -> float:
        return prediction_p(self.committed, self.spread, self.degrees, self.yours)

    def interval(self, level: float) -> Interval:
        """Prediction interval, at confidence `level`, of the mean of your run, in the unit of the metric."""
        ends = prediction_interval(self.committed, self.spread, self.degrees, level, len(self.yours))
        return Interval(*(_unscaled(self.metric, end) for end in ends))


def compare(committed: Path, yours: Path, cells: Sequence[ReproductionCell]) -> list[ReproductionResult]:
    """Results of the test, one per cell, from the records in folder `yours` and those in folder `committed`.

    Raises ValueError, naming the field that differs, if the evaluations of a cell differ in more than seeds and the
    number of training steps. The latter may differ: a network trained for fewer steps should come out as BAD.
    """
    from pandas import concat

    rows = frame(committed), frame(yours)
    old, new = ({cell: _by_seed(_rows(each, cell)) for cell in cells} for each in rows)
    for cell in cells:
        one_of(
            _questions(concat([_rows(each, cell) for each in rows])),
            "question",
            "the evaluations of your run and of the committed records differ",
        )
    comparisons = _comparisons(old, new)
    adjusted = dict(zip(comparisons, holm([each.p for each in comparisons.values()]), strict=True))
    # Holm stops at the first cell that it retains, so intervals at this one level give the same verdicts.
    level = 1 - ALPHA / max(1, sum(p > ALPHA for p in adjusted.values()))
    return [
        _result(cell, old[cell], new[cell], comparisons.get(cell), adjusted.get(cell), level)
        for cell in cells
    ]


def _questions(rows: DataFrame) -> DataFrame:
    """`rows` (of `store.frame`) with a further column `question`: canonical JSON of the evaluation, without seeds and
    training step."""
    return rows.assign(question=[text(without(json.loads(each), "checkpoint.step")) for each in rows.subject])


def _comparisons(old: Values, new: Values) -> dict[ReproductionCell, _Comparison]:
    """Comparison per cell that can be tested: one with at least SEEDS committed seeds and a value of your run. `old`,
    `new`: committed and new values per train seed, by cell."""
    scaled = {
        cell: [_scaled(cell.metric, value) for value in values]
        for cell, values in old.items()
        if len(values) >= SEEDS
    }
    found = {}
    for cell, values in scaled.items():
        spread, degrees = pooled_spread([each for other, each in scaled.items() if other.kind == cell.kind])
        # Numbers of two machines agree to 1e-5 only (docs/method.md#exactness), so no interval is narrower.
        spread = max(spread, RELATIVE * abs(fmean(values)))
        if new[cell]:
            yours = [_scaled(cell.metric, value) for value in new[cell]]
            found[cell] = _Comparison(cell.metric, values, yours, spread, degrees)
    return found


def _result(
    cell: ReproductionCell,
    old: Sequence[float],
    new: Sequence[float],
    comparison: _Comparison | None,
    p: float | None,
    level: float,
) -> ReproductionResult:
    interval = comparison.interval(level) if comparison else None
    if len(old) < SEEDS:
        verdict = "untested"
    elif p is None:
        verdict = "missing"
    else:
        verdict = "BAD" if p <= ALPHA else "good"
    return ReproductionResult(
        name=cell.name,
        metric=cell.metric,
        committed=fmean(old) if old else None,
        seeds=len(old),
        yours=fmean(new) if new else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        detectable=(interval.high - interval.low) / 2 if interval else None,
        p=p,
        verdict=verdict,
    )


def _rows(rows: DataFrame, cell: ReproductionCell) -> DataFrame:
    keep = rows.checkpoint == cell.recipe
    for name in ("recipe", "task", "preset", "tokens_per_step", "metric"):
        keep &= rows[name] == getattr(cell, name)
    return rows[keep]


def _by_seed(rows: DataFrame) -> list[float]:
    """Mean value of a metric per train seed, in the order of the seeds, from the rows of one cell."""
    return rows.groupby("train_seed", sort=True).value.mean().tolist()


def render(results: Sequence[ReproductionResult]) -> Table:
    """Table of the results for the terminal, one line per cell."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("cell", "metric", "committed", "yours", "expected", "detects", ""):
        table.add_column(name, justify="left" if name in ("cell", "metric", "") else "right", no_wrap=True)
    styles = {"good": "green", "BAD": "bold red", "missing": "yellow", "untested": "yellow"}
    for row in results:
        committed = f"{row.committed:.4f} ({row.seeds})" if row.committed is not None else f"- ({row.seeds})"
        yours = f"{row.yours:.4f}" if row.yours is not None else "-"
        expected = f"{row.low:.4f} .. {row.high:.4f}" if row.low is not None else "-"
        detects = f"{row.detectable:.4f}" if row.detectable is not None else "-"
        verdict = f"[{styles[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.name, row.metric, committed, yours, expected, detects, verdict)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of `python -m repro.results.reproduction`: 0 if every cell is good, else 1."""
    parser = Parser(
        prog="repro.results.reproduction",
        description="Compare a run with the committed results, cell by cell.",
    )
    parser.add_argument("raw", type=Path, help="folder of your run, or of its records")
    parser.add_argument("--committed", type=Path, default=RAW, help="folder of the committed records")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--recipe", action="append", help="test the cells of this recipe only; may be repeated"
    )
    arguments = parser.parse_args(argv)
    results = compare(arguments.committed, arguments.raw, of_recipes(cells(), arguments.recipe))
    if arguments.json:
        print(json.dumps([asdict(row) for row in results], indent=1))
    else:
        from rich.console import Console

        terminal = Console(highlight=False)
        terminal.width = max(terminal.width, WIDTH)
        terminal.print(render(results))
        print(
            f"committed: mean (train seeds); expected: interval of yours at a family-wise error of {ALPHA:.0%};"
            " detects: the smallest change that the test detects"
        )
        if any(row.verdict == "untested" for row in results):
            print(f"untested: fewer than {SEEDS} committed seeds; {REMEDY}")
    return 0 if all(row.verdict == "good" for row in results) else 1


if __name__ == "__main__":
    run(main, "repro.results.reproduction")
