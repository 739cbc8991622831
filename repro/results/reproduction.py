"""The judged cells: do the results of a run agree with the committed ones?

    python -m repro.results.reproduction runs/reproduce [--committed results/raw] [--recipe NAME ...] [--json]

For every cell of evals/judged.toml: a prediction interval for your mean from the committed train seeds (at
least five), with the spread pooled over cells of one kind, at a family-wise error of 1 % (Holm). Half its
width is the smallest change that the verdict sees, and is printed. Exit code 0 if every cell is good, else 1.

Accuracies are compared as asin(sqrt(accuracy)): on that scale the binomial noise of n rows is 1 / (4 n) at
every accuracy (Anscombe 1948), which is what lets cells at .6 and at .99 share a spread.
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
from repro.core.stats import Interval, holm, pooled_spread, prediction_interval, prediction_p
from repro.results.difference import RELATIVE, without
from repro.results.record import text
from repro.results.store import RAW, frame, one_of

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

ALPHA = 0.01
SEEDS = 5  # committed train seeds that a cell needs
CELLS = 12  # more cells would each see less
WIDTH = 100  # of the table; a narrower terminal or a log wraps lines rather than hide a verdict
REMEDY = 'make reproduce SEEDS="0 1 2 3 4", then python -m repro.results publish runs/reproduce'


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One judged number; an empty preset or tokens_per_step is null in the records."""

    name: str
    recipe: str
    task: str
    preset: str = ""
    tokens_per_step: str = ""
    metric: str
    kind: str


Values = Mapping[Cell, Sequence[float]]


class _Judged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cell: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One cell: committed mean and seeds, yours, the interval, the smallest change it sees (half width), p by
    Holm.

    `verdict` is good, BAD, missing (no such record in yours) or unjudged (fewer than five committed seeds).
    """

    name: str
    metric: str
    committed: float | None
    seeds: int
    yours: float | None
    low: float | None
    high: float | None
    sees: float | None
    p: float | None
    verdict: str


def cells(path: Path = ROOT / "evals" / "judged.toml") -> list[Cell]:
    """The judged cells; ValueError for an unknown field, or for more of them than a verdict can carry."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_Judged).cell
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}".replace("`", "'")) from None
    if len(found) > CELLS:
        raise ValueError(f"{path} lists {len(found)} cells; judge at most {CELLS}, each one more sees less")
    return found


def of_recipes(judged: Sequence[Cell], recipes: Sequence[str] | None) -> Sequence[Cell]:
    """The cells of some recipes (None: all); ValueError names the nearest recipe that is judged."""
    if recipes is None:
        return judged
    valid = {cell.recipe for cell in judged}
    for recipe in recipes:
        if recipe not in valid:
            raise ValueError(f"no judged cell of recipe {recipe!r}; {nearest(recipe, valid)}")
    return [cell for cell in judged if cell.recipe in recipes]


def _scaled(metric: str, value: float) -> float:
    return math.asin(math.sqrt(value)) if metric == "accuracy" else value


def _unscaled(metric: str, value: float) -> float:
    return math.sin(min(max(value, 0.0), math.pi / 2)) ** 2 if metric == "accuracy" else value


@dataclass(frozen=True)
class _Comparison:
    """Committed and new values of a cell on the scale where its kind shares a spread."""

    metric: str
    committed: Sequence[float]
    yours: Sequence[float]
    spread: float
    degrees: int

    @property
    def p(self) -> float:
        return prediction_p(self.committed, self.spread, self.degrees, self.yours)

    def interval(self, level: float) -> Interval:
        """Where the mean of yours is expected, in the metric's own unit."""
        ends = prediction_interval(self.committed, self.spread, self.degrees, level, len(self.yours))
        return Interval(*(_unscaled(self.metric, end) for end in ends))


def judge(committed: Path, yours: Path, judged: Sequence[Cell]) -> list[Verdict]:
    """Verdicts on the records of folder `yours` against those of folder `committed`, in the order of
    `judged`.

    Raises ValueError if a cell of yours answers another question than the committed one (the field that differs is
    named); a network trained for fewer steps is judged, and should be BAD.
    """
    from pandas import concat

    rows = frame(committed), frame(yours)
    old, new = ({cell: _by_seed(_rows(each, cell)) for cell in judged} for each in rows)
    for cell in judged:
        one_of(_asked(concat([_rows(each, cell) for each in rows])), "asked", "committed and yours differ")
    comparisons = _comparisons(old, new)
    adjusted = dict(zip(comparisons, holm([each.p for each in comparisons.values()]), strict=True))
    # Holm stops at the first cell that it retains, so one interval at this level gives the same verdicts.
    level = 1 - ALPHA / max(1, sum(p > ALPHA for p in adjusted.values()))
    return [
        _verdict(cell, old[cell], new[cell], comparisons.get(cell), adjusted.get(cell), level)
        for cell in judged
    ]


def _asked(rows: DataFrame) -> DataFrame:
    """`rows` with a column `asked`: what was asked, of whatever seeds and trained steps."""

    return rows.assign(asked=[text(without(json.loads(each), "checkpoint.step")) for each in rows.subject])


def _comparisons(old: Values, new: Values) -> dict[Cell, _Comparison]:
    """The cells that can be judged: enough committed seeds, and a value of yours."""
    scaled = {
        cell: [_scaled(cell.metric, value) for value in values]
        for cell, values in old.items()
        if len(values) >= SEEDS
    }
    found = {}
    for cell, values in scaled.items():
        spread, degrees = pooled_spread([each for other, each in scaled.items() if other.kind == cell.kind])
        # Between machines equal numbers agree to 1e-5 only (docs/method.md#exactness), so no interval is narrower.
        spread = max(spread, RELATIVE * abs(fmean(values)))
        if new[cell]:
            yours = [_scaled(cell.metric, value) for value in new[cell]]
            found[cell] = _Comparison(cell.metric, values, yours, spread, degrees)
    return found


def _verdict(
    cell: Cell,
    old: Sequence[float],
    new: Sequence[float],
    comparison: _Comparison | None,
    p: float | None,
    level: float,
) -> Verdict:
    interval = comparison.interval(level) if comparison else None
    if len(old) < SEEDS:
        verdict = "unjudged"
    elif p is None:
        verdict = "missing"
    else:
        verdict = "BAD" if p <= ALPHA else "good"
    return Verdict(
        name=cell.name,
        metric=cell.metric,
        committed=fmean(old) if old else None,
        seeds=len(old),
        yours=fmean(new) if new else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        sees=(interval.high - interval.low) / 2 if interval else None,
        p=p,
        verdict=verdict,
    )


def _rows(rows: DataFrame, cell: Cell) -> DataFrame:
    keep = rows.checkpoint == cell.recipe
    for name in ("recipe", "task", "preset", "tokens_per_step", "metric"):
        keep &= rows[name] == getattr(cell, name)
    return rows[keep]


def _by_seed(rows: DataFrame) -> list[float]:
    """One value a train seed."""
    return rows.groupby("train_seed", sort=True).value.mean().tolist()


def render(verdicts: Sequence[Verdict]) -> Table:
    """The verdicts as a table for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("cell", "metric", "committed", "yours", "expected", "sees", ""):
        table.add_column(name, justify="left" if name in ("cell", "metric", "") else "right", no_wrap=True)
    styles = {"good": "green", "BAD": "bold red", "missing": "yellow", "unjudged": "yellow"}
    for row in verdicts:
        committed = f"{row.committed:.4f} ({row.seeds})" if row.committed is not None else f"- ({row.seeds})"
        yours = f"{row.yours:.4f}" if row.yours is not None else "-"
        expected = f"{row.low:.4f} .. {row.high:.4f}" if row.low is not None else "-"
        sees = f"{row.sees:.4f}" if row.sees is not None else "-"
        verdict = f"[{styles[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.name, row.metric, committed, yours, expected, sees, verdict)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 if every cell is good, else 1."""
    parser = Parser(
        prog="repro.results.reproduction",
        description="Compare a run with the committed results, cell by cell.",
    )
    parser.add_argument("raw", type=Path, help="folder of your run, or of its records")
    parser.add_argument("--committed", type=Path, default=RAW, help="folder of the committed records")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.add_argument(
        "--recipe", action="append", help="judge the cells of this recipe only; may be repeated"
    )
    arguments = parser.parse_args(argv)
    verdicts = judge(arguments.committed, arguments.raw, of_recipes(cells(), arguments.recipe))
    if arguments.json:
        print(json.dumps([asdict(row) for row in verdicts], indent=1))
    else:
        from rich.console import Console

        terminal = Console(highlight=False)
        terminal.width = max(terminal.width, WIDTH)
        terminal.print(render(verdicts))
        print(
            f"committed: mean (train seeds); expected, sees: family-wise {ALPHA:.0%}, over the cells judged"
        )
        if any(row.verdict == "unjudged" for row in verdicts):
            print(f"unjudged: fewer than {SEEDS} committed seeds; {REMEDY}")
    return 0 if all(row.verdict == "good" for row in verdicts) else 1


if __name__ == "__main__":
    run(main, "repro.results.reproduction")
