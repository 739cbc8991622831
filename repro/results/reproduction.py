"""The reproduction test: do the results of a run agree with the committed ones?

    python -m repro.results.reproduction runs/reproduce [--committed results/raw] [--recipe NAME ...] [--json]

A *cell* is one metric of one recipe, task and sampler, listed in evals/reproduction.toml. Train seeds that are
committed too are *paired*: their mean is compared with that of the same committed seeds, by the spread of reruns
(results/reruns: the same training with other rounding). The mean of other train seeds is compared with that of the
committed seeds (at least five), by the spread of the latter. Each comparison is a prediction interval. Its level
depends on the number of cells in the file alone, and the probability of any false alarm is at most 1 %
(docs/method.md#reproduction-test). Half the width of the interval is the smallest change that the test detects. Exit
code 0 if every comparison is good, else 1.

Cells of a kind share a standard deviation over train seeds, hence the scales: accuracies are compared as
asin(sqrt(accuracy)), whose binomial variance for n rows is 1 / (4 n) at every accuracy (Anscombe 1948), likelihoods by
their logarithm, because the relative variation of the gap to the entropy of the data is similar in all recipes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from repro.core.cli import Parser, run, say, width
from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.core.stats import (
    Interval,
    pooled_spread,
    prediction_interval,
    prediction_p,
    prediction_t,
    two_sided,
)
from repro.results.comparison_text import ReproductionResult, in_words, render
from repro.results.difference import without
from repro.results.record import text, unmarked
from repro.results.store import RAW, frame, one_of

if TYPE_CHECKING:
    from pandas import DataFrame

ALPHA = 0.01
NEEDED = {True: 3, False: 5}
"""Least number of values from which a standard deviation is estimated: for paired comparisons (True) of train seed 0,
committed and reruns; for others (False) of different train seeds."""
NATS = 1e-3
"""Difference of a likelihood, in nats per token, that rounding may make: 3e-4 was seen (docs/method.md)."""
TEXTS = 3
"""Decoded texts that rounding may change: a draw close to the boundary of two tokens goes either way."""
SMALLEST = 1e-9
"""Likelihoods below this, in nats per token, are raised to it before the logarithm is taken."""
CELLS = 14  # each further cell makes the intervals of all wider
RERUNS = RAW.parent / "reruns"
"""Records of reruns of train seed 0, which differ from the committed one by rounding (scripts/reruns.py)."""
WIDEST = 1 << 16  # columns at which the table is laid out to measure its width
REMEDIES = {
    True: "fewer than two committed reruns; run python -m scripts.reruns RECIPE",
    False: 'fewer than five committed seeds; run make reproduce SEEDS="0 1 2 3 4", then python -m repro.results publish'
    " runs/reproduce",
}


class ReproductionCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric of one recipe, task and sampler `preset`, to be compared; an empty preset or tokens_per_step is null
    in the records. `kind`: name of a group of cells, such as `likelihood`, that share a standard deviation over train
    seeds."""

    name: str
    recipe: str
    task: str
    preset: str = ""
    tokens_per_step: str = ""
    metric: str
    kind: str


Key = tuple[ReproductionCell, bool]
"""A cell, and whether the train seeds of your run that are committed too (True: paired) or the others are compared."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cell: list[ReproductionCell]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Values of a cell (a metric of a recipe, task and sampler) on the scale of the test (accuracies: asin(sqrt)):
    committed (`known`) and those of your run. `spread`: standard deviation of one value, with `degrees` of freedom;
    `family`: number of comparisons among which the probability of a false alarm is shared out."""

    known: Sequence[float]
    yours: Sequence[float]
    spread: float
    degrees: int
    family: int

    @property
    def t(self) -> float:
        """Student's t of the mean of the values of your run against that of the committed values."""
        return prediction_t(self.known, self.spread, self.yours)

    @property
    def p(self) -> float:
        """p-value of the difference between your run and the committed values, times the number of comparisons
        (Bonferroni)."""
        return min(1.0, self.family * prediction_p(self.known, self.spread, self.degrees, self.yours))

    @property
    def limit(self) -> float:
        """The |t| beyond which the adjusted p-value is below 1 % (ALPHA), so that the comparison is BAD."""
        return two_sided(1 - ALPHA / self.family, self.degrees)

    def at_least(self, change: float) -> Comparison:
        """This comparison with its `spread` raised, if necessary, so that a difference of `change` (on the scale of the
        test) between your mean and the committed one is not BAD."""
        error = self.limit * math.sqrt(1 / len(self.known) + 1 / len(self.yours))
        return replace(self, spread=max(self.spread, change / error))

    def interval(self) -> Interval:
        """Prediction interval of the mean of your run: outside it the adjusted p-value is below 1 % (ALPHA)."""
        level = 1 - ALPHA / self.family
        return prediction_interval(self.known, self.spread, self.degrees, level, len(self.yours))


def cells(path: Path = ROOT / "evals" / "reproduction.toml") -> list[ReproductionCell]:
    """Cells (metrics of a recipe, task and sampler) that the file `path` lists for comparison; ValueError for an
    unknown field or for more than 14 (CELLS) cells."""
    found = read_toml(path, _File).cell
    if len(found) > CELLS:
        raise ValueError(
            f"{path} lists {len(found)} cells; list at most {CELLS}, because each one widens the intervals of all"
        )
    return found


def of_recipes(
    cells: Sequence[ReproductionCell], recipes: Sequence[str] | None
) -> Sequence[ReproductionCell]:
    """The cells (metrics of a recipe, task and sampler) of the given recipes (None: all cells); ValueError for a recipe
    without a cell, with the recipe whose name is most similar."""
    if recipes is None:
        return cells
    valid = {cell.recipe for cell in cells}
    for recipe in recipes:
        if recipe not in valid:
            raise ValueError(
                f"evals/reproduction.toml lists no result of recipe {recipe!r}; {nearest(recipe, valid)}"
            )
    return [cell for cell in cells if cell.recipe in recipes]


class Values(NamedTuple):
    """Values that the reproduction test compares, on its scale (accuracies: asin(sqrt)): `known`, committed; `new`, of
    your run; `alike`, committed values and repeated runs of the same cell, from whose spread the standard deviation is
    estimated. Each key (`Key`) consists of a cell (a metric of a recipe, task and sampler) and of a flag: whether it
    holds the train seeds that both your run and the committed records have, or the others.

    `least`: the difference of each cell up to which its verdict is never BAD (numbers differ); `unfinished`: cells
    whose training in your run stopped before the committed number of steps.
    """

    known: dict[Key, list[float]]
    new: dict[Key, list[float]]
    alike: dict[Key, list[float]]
    least: dict[ReproductionCell, float]
    unfinished: set[ReproductionCell]


def compare(
    committed: Path,
    yours: Path,
    cells: Sequence[ReproductionCell],
    reruns: Path = RERUNS,
    recipes: Sequence[str] | None = None,
) -> list[ReproductionResult]:
    """Results of the test from the records in the folders `yours`, `committed` and `reruns`: for each cell (of
    `recipes`, None: all) one result for train seeds of your run that are committed too (paired) and one for its other
    train seeds, as far as it has them; one result, `missing`, if it has neither.

    `cells`: all cells of the file, whatever `recipes` says, because their number sets the level of each test. Raises
    ValueError where `read_values` does.
    """
    values = read_values(committed, yours, cells, reruns)
    compared = comparisons(values)
    return [
        _result(key, values, compared.get(key))
        for cell in of_recipes(cells, recipes)
        for key in ((cell, True), (cell, False))
        if values.new[key] or (key[1] and not values.new[cell, False])
    ]


def read_values(committed: Path, yours: Path, cells: Sequence[ReproductionCell], reruns: Path) -> Values:
    """The values that the reproduction test compares, from the records in three folders: committed ones, those of your
    run, and reruns. Raises ValueError, naming the field that differs, if the evaluations of a cell (a metric of a
    recipe, task and sampler) differ in more than seeds and the number of training steps."""
    frames = [_unmarked(frame(folder)) for folder in (committed, reruns, yours)]
    values = Values({}, {}, {}, {}, set())
    for cell in cells:
        old, again, mine = (_rows(each, cell) for each in frames)
        _one_question(old, again, mine)
        committed_seeds, seeds = _by_seed(cell, old), _by_seed(cell, mine)
        paired = committed_seeds.keys() & seeds.keys()
        values.known[cell, True] = [committed_seeds[seed] for seed in sorted(paired)]
        values.known[cell, False] = values.alike[cell, False] = list(committed_seeds.values())
        values.alike[cell, True] = [
            *(value for seed, value in committed_seeds.items() if seed == 0),
            *(_scaled(cell, value) for value in again.value),
        ]
        for key in (True, False):
            values.new[cell, key] = [value for seed, value in seeds.items() if (seed in paired) is key]
        values.least[cell] = _least(cell, old)
        if len(old) and len(mine) and mine.step.min() < old.step.max():
            values.unfinished.add(cell)
    return values


def comparisons(values: Values, needed: Mapping[bool, int] = NEEDED) -> dict[Key, Comparison]:
    """Comparison of every key (cell, that is metric of a recipe, task and sampler, and whether it is paired: for train
    seeds that are committed too) that has values of your run and enough values `alike` to estimate a standard deviation
    (`needed`: how many, by whether paired).

    If not paired, the standard deviation is that over train seeds, pooled over the cells of a kind. If paired, it is
    that of the cell's reruns or the pooled one, whichever gives the narrower interval, because reruns vary no more than
    train seeds.
    """
    enough = {key: alike for key, alike in values.alike.items() if len(alike) >= needed[key[1]]}
    found = {}
    for key in enough:
        cell, paired = key
        if values.new.get(key):
            kind = [alike for (other, zero), alike in enough.items() if not zero and other.kind == cell.kind]
            spreads = [pooled_spread(groups) for groups in ([enough[key]] if paired else [], kind) if groups]
            made = (
                Comparison(
                    known=values.known[key],
                    yours=values.new[key],
                    spread=spread,
                    degrees=degrees,
                    family=len(values.alike),
                )
                for spread, degrees in spreads
            )
            narrowest = min(made, key=lambda each: each.limit * each.spread)
            found[key] = narrowest.at_least(values.least[cell])
    return found


def _least(cell: ReproductionCell, rows: DataFrame) -> float:
    """Difference, on the scale of the test, up to which a cell is never BAD, however small the spread of the few reruns
    is: that of 1e-3 nats per token (NATS) in a likelihood, or of 3 (TEXTS) of the decoded texts in other metrics.
    `rows`: the committed records of the cell; without any the difference is 0."""
    if rows.empty:
        return 0.0
    row, change = rows.iloc[0], NATS
    if cell.preset:
        change = TEXTS * (1 / row.n if cell.metric == "accuracy" else 2 * row.se / math.sqrt(row.n))
    return abs(_scaled(cell, row.value) - _scaled(cell, row.value - change))


def _one_question(*frames: DataFrame) -> None:
    """ValueError, with the first difference, unless the rows of all frames of records are of one evaluation; seeds,
    digests and training steps may differ."""
    from pandas import concat

    rows = concat(frames)
    one_of(
        rows.assign(question=[text(without(json.loads(each), "checkpoint.step")) for each in rows.subject]),
        "question",
        "the evaluations of your run, of the committed records and of their reruns differ",
    )


def _result(key: Key, values: Values, comparison: Comparison | None) -> ReproductionResult:
    (cell, paired), known, new = key, values.known[key], values.new[key]
    low, high = (_unscaled(cell, end) for end in comparison.interval()) if comparison else (None, None)
    if comparison is not None:
        verdict = "BAD" if comparison.p <= ALPHA else "unfinished" if cell in values.unfinished else "good"
    else:
        verdict = "untested" if new else "missing"
    return ReproductionResult(
        name=cell.name,
        metric=cell.metric,
        paired=paired,
        committed=_unscaled(cell, fmean(known)) if known else None,
        n=len(known),
        yours=_unscaled(cell, fmean(new)) if new else None,
        low=low,
        high=high,
        detectable=(high - low) / 2 if low is not None and high is not None else None,
        t=comparison.t if comparison else None,
        p=comparison.p if comparison else None,
        verdict=verdict,
    )


def _scaled(cell: ReproductionCell, value: float) -> float:
    if cell.metric == "accuracy":
        return math.asin(math.sqrt(max(value, 0.0)))
    return math.log(max(value, SMALLEST)) if cell.metric in ("gap", "nll_bound") else value


def _unscaled(cell: ReproductionCell, value: float) -> float:
    if cell.metric == "accuracy":
        return math.sin(min(max(value, 0.0), math.pi / 2)) ** 2
    return math.exp(value) if cell.metric in ("gap", "nll_bound") else value


def _unmarked(rows: DataFrame) -> DataFrame:
    """Copy of a frame of records in which unfinished networks have the names that they would have when finished."""
    return rows.assign(**{name: rows[name].map(unmarked) for name in ("recipe", "checkpoint")})


def _rows(rows: DataFrame, cell: ReproductionCell) -> DataFrame:
    keep = rows.checkpoint == cell.recipe
    for name in ("recipe", "task", "preset", "tokens_per_step", "metric"):
        keep &= rows[name] == getattr(cell, name)
    return rows[keep]


def _by_seed(cell: ReproductionCell, rows: DataFrame) -> dict[int, float]:
    """Mean value per train seed, in the order of the seeds, of a cell (a metric of a recipe, task and sampler) from its
    `rows` of a frame of records; on the scale of the test (accuracies: asin(sqrt))."""
    means = rows.groupby("train_seed", sort=True).value.mean()
    return {int(seed): _scaled(cell, value) for seed, value in means.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the comparison of a run's records with the committed ones; exit code 0 if all agree, else 1."""
    parser = Parser(
        prog="python -m repro.results.reproduction",
        description="Compare a run with the committed results, cell by cell.",
        examples=["python -m repro.results.reproduction runs/reproduce"],
    )
    parser.add_argument("raw", type=Path, help="folder of your run, or of its records")
    parser.add_argument("--committed", type=Path, default=RAW, help="folder of the committed records")
    parser.add_argument("--reruns", type=Path, default=RERUNS, help="folder of reruns of train seed 0")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--recipe", action="append", help="test the cells of this recipe only; may be repeated"
    )
    arguments = parser.parse_args(argv)
    results = compare(arguments.committed, arguments.raw, cells(), arguments.reruns, arguments.recipe)
    if arguments.json:
        print(json.dumps([asdict(row) for row in results], indent=1))
    else:
        from rich.console import Console

        terminal, table = Console(highlight=False, width=width()), render(results)
        if (
            terminal.measure(table, options=terminal.options.update(max_width=WIDEST)).maximum
            > terminal.width
        ):
            say(in_words(results))
        else:
            terminal.print(table)
        notes = (
            "paired: of train seeds that are committed too; committed: mean (train seeds); expected: interval of yours"
            f" at a family-wise error of {ALPHA:.0%}; detects: the smallest change that the test detects"
        )
        say([notes])
        for paired in sorted({row.paired for row in results if row.verdict == "untested"}):
            print(f"untested: {REMEDIES[paired]}")
    return 0 if all(row.verdict == "good" for row in results) else 1


if __name__ == "__main__":
    run(main, "repro.results.reproduction")
