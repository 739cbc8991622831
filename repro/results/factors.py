"""What each varied setting (factor) does to an accuracy: its share of the variance, how many outcomes it flips (between
right and wrong), and the largest change.

    python -m repro.results factors runs/factors/mdlm@nano.text-s0 [--json] [--csv FILE]

The variance components are those of a fully crossed design with items as random effects and factors as fixed effects;
they are exact sums of squares, so nothing is fitted (docs/method.md#factors).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from repro.core.columns import columns
from repro.core.stats import Interval, holm, wilson
from repro.results.crossing import Crossing, Stored, crossings, named
from repro.results.tables.text import csv_text

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Component:
    """Variance of the accuracy due to one term of a design in which settings (factors) were varied: the main effect of
    one factor, or the interaction of several (`factors`: their names).

    `variance`: unbiased estimate, which may be negative, of the mean square of the term's effects on the accuracy;
    `items`: variance over items of the term's effects on an item's outcome (the interaction of the term with the
    items); `share`: of the variance of the accuracy, from 0 to 1, where a negative variance counts as 0.
    """

    factors: tuple[str, ...]
    variance: float
    items: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Swing:
    """The largest `change` of the accuracy between two levels of a factor (a setting that was varied): from the level
    `low` to the level `high`, with the other factors at the levels that `others` names (`A=1 B=2`)."""

    change: float
    low: str
    high: str
    others: str


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What one factor (a setting that was varied) does to the accuracy on a task, which was evaluated under every
    combination of several factors. `levels`: the values of the factor; `accuracy`: the mean accuracy at each.

    `share`: share of the variance of the accuracy that the factor explains alone (main effect); `share_with_others`:
    the same with all its interactions with other factors; `p`: p-value of the hypothesis that all levels have equal
    mean accuracy, adjusted by Holm's method over the factors. `flips`: share of items that turn from right to wrong or
    back when the factor changes from one level to another and all others stay as they are, averaged over all such
    changes, with its 95 % interval; `pairs`: (level, level, share of items that flip) for each pair of levels; `swing`:
    the largest change of the accuracy between two levels.
    """

    name: str
    levels: tuple[str, ...]
    accuracy: tuple[float, ...]
    share: float
    share_with_others: float
    p: float
    flips: float
    flips_interval: Interval
    pairs: tuple[tuple[str, str, float], ...]
    swing: Swing


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Analysis of one crossing (one task and checkpoint under every combination of the levels of some settings, the
    factors) of `n` items in `cells` combinations; `rows`: a `Factor` for each factor.

    The variance of the accuracy is shared out: the shares of all `components`, `items` (choice of items: their
    difficulty) and `items_by_settings` (items that react differently to the settings, residual included) add up to 1;
    all are 0 if no outcome differs. `interactions`: sum of the shares of components with several factors.
    """

    checkpoint: str
    task: str
    metric: str
    filter: str
    n: int
    cells: int
    accuracy: float
    rows: tuple[Factor, ...]
    components: tuple[Component, ...]
    interactions: float
    items: float
    items_by_settings: float
    fixed: dict[str, str]
    best_sampler: dict[str, str] | None
    """Combination of the other levels -> sampler of the highest accuracy ("A = B" if equal); None where samplers were
    not varied."""

    @property
    def most(self) -> Factor:
        """The factor with the largest share of the variance, interactions included; among equal ones, the one with the
        most flips."""
        return max(self.rows, key=lambda row: (row.share_with_others, row.flips))


def analyse(entries: Iterable[Stored]) -> list[Factors]:
    """A `Factors` (shares of the variance, flips) for every crossing among stored records: one task and checkpoint,
    evaluated on the same items under all combinations of some settings. ValueError if a combination is missing (see
    `crossings`)."""
    return [factors(crossing) for crossing in crossings(entries)]


def factors(crossing: Crossing) -> Factors:
    """What each factor of a crossing (one task and checkpoint under every combination of some settings, the factors)
    does to the accuracy: its share of the variance, the share of items that it flips between right and wrong, and the
    p-value of its effect. ValueError if the crossing has fewer than two items."""
    y = crossing.outcomes
    n, names = len(y), list(crossing.factors)
    if n < 2:
        raise ValueError(
            f"{crossing.task} of {crossing.checkpoint}: {n} item has no variance; evaluate two or more (--limit)"
        )
    raw = {term: effects_variance(y, term) for term in _terms(len(names))}
    base = float(y.mean(axis=tuple(range(1, y.ndim))).var(ddof=1))
    reacting = sum(items for _, items in raw.values())
    total = sum(max(0.0, variance) for variance, _ in raw.values()) + (base + reacting) / n
    parts = [
        Component(
            factors=tuple(names[i] for i in term),
            variance=variance,
            items=items,
            share=max(0.0, variance) / total if total else 0.0,
        )
        for term, (variance, items) in raw.items()
    ]
    tested = holm([equal_levels_p(y, i) for i in range(len(names))])
    rows = [_row(crossing, i, parts, tested[i]) for i in range(len(names))]
    return Factors(
        checkpoint=crossing.checkpoint,
        task=crossing.task,
        metric=crossing.metric,
        filter=crossing.filter,
        n=n,
        cells=y[0].size,
        accuracy=float(y.mean()),
        rows=tuple(rows),
        components=tuple(parts),
        interactions=sum(each.share for each in parts if len(each.factors) > 1),
        items=base / n / total if total else 0.0,
        items_by_settings=reacting / n / total if total else 0.0,
        fixed=crossing.fixed,
        best_sampler=_best_sampler(crossing),
    )


def _terms(count: int) -> list[tuple[int, ...]]:
    """All non-empty sets of the indices of `count` factors, in the order of their size."""
    return [term for size in range(1, count + 1) for term in itertools.combinations(range(count), size)]


def effects_variance(outcomes: np.ndarray, term: Sequence[int]) -> tuple[float, float]:
    """Unbiased variances of a term (main effect of a factor, or interaction of several; docs/method.md#factors): the
    mean square of its effects on the accuracy, and the variance over items of its effects on an item's outcome.

    `outcomes` [items, levels of factor 0, levels of factor 1, ...]; `term`: indices of the factors of the term.
    """
    effects = outcomes
    for factor in range(outcomes.ndim - 1):
        mean = effects.mean(axis=factor + 1, keepdims=True)
        effects = effects - mean if factor in term else mean
    items = float(effects.var(axis=0, ddof=1).mean())
    return float((effects.mean(axis=0) ** 2).mean()) - items / len(outcomes), items


def equal_levels_p(outcomes: np.ndarray, factor: int) -> float:
    """P-value of the hypothesis that within each item the levels of a factor are exchangeable, against different means:
    the chi-square approximation of the permutation test, which for a single 0 or 1 per item and level is Cochran's Q
    test (Cochran 1950, Biometrika 37, 256). 1 if no item's mean differs between the levels. `outcomes` [items, levels
    of factor 0, levels of factor 1, ...]; `factor`: index of the factor."""
    from scipy.stats import chi2

    others = tuple(axis for axis in range(1, outcomes.ndim) if axis != factor + 1)
    values = outcomes.mean(axis=others)
    n, levels = values.shape
    within = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum()
    between = ((values.mean(axis=0) - values.mean()) ** 2).sum()
    if within < 1e-12:
        return 1.0
    return float(chi2.sf(n * n * (levels - 1) * between / within, levels - 1))


def _row(crossing: Crossing, factor: int, parts: Sequence[Component], p: float) -> Factor:
    import numpy as np

    name, levels = list(crossing.factors.items())[factor]
    y = np.moveaxis(crossing.outcomes, factor + 1, 1).reshape(len(crossing.outcomes), len(levels), -1)
    pairs = [
        (levels[a], levels[b], float((y[:, a] != y[:, b]).mean()))
        for a, b in itertools.combinations(range(len(levels)), 2)
    ]
    flips = sum(rate for *_, rate in pairs) / len(pairs)
    mine = [each for each in parts if name in each.factors]
    return Factor(
        name=name,
        levels=levels,
        accuracy=tuple(float(each) for each in y.mean(axis=(0, 2))),
        share=next(each.share for each in mine if len(each.factors) == 1),
        share_with_others=sum(each.share for each in mine),
        p=p,
        flips=flips,
        flips_interval=wilson(flips, len(y), LEVEL),
        pairs=tuple(pairs),
        swing=_swing(crossing, name, y.mean(axis=0)),
    )


def _swing(crossing: Crossing, name: str, accuracy: np.ndarray) -> Swing:
    """The largest difference of accuracy between two levels of the factor `name`; `accuracy`: [levels of this factor,
    combinations of the levels of the other factors]."""
    spread = accuracy.max(axis=0) - accuracy.min(axis=0)
    at = int(spread.argmax())
    others = {each: levels for each, levels in crossing.factors.items() if each != name}
    combination = list(itertools.product(*others.values()))[at]
    levels = crossing.factors[name]
    return Swing(
        change=float(spread[at]),
        low=levels[int(accuracy[:, at].argmin())],
        high=levels[int(accuracy[:, at].argmax())],
        others=named(others, combination),
    )


def _best_sampler(crossing: Crossing) -> dict[str, str] | None:
    import numpy as np

    if "sampler" not in crossing.factors:
        return None
    place = list(crossing.factors).index("sampler")
    accuracy = np.moveaxis(crossing.outcomes.mean(axis=0), place, 0)
    accuracy = accuracy.reshape(len(accuracy), -1)
    others = {each: levels for each, levels in crossing.factors.items() if each != "sampler"}
    samplers = crossing.factors["sampler"]
    best = np.isclose(accuracy, accuracy.max(axis=0), rtol=0, atol=1e-12)
    return {
        named(others, levels): " = ".join(itertools.compress(samplers, best[:, at]))
        for at, levels in enumerate(itertools.product(*others.values()))
    }


# --- text -----------------------------------------------------------------------------------------------------


HEADS = ("factor", "levels", "share", "with interactions", "p", "flips", "largest change in accuracy")


def say(found: Factors, room: int = sys.maxsize) -> Iterator[str]:
    """Lines of text about one crossing (a task and checkpoint under every combination of some settings, the factors): a
    table with one row per factor, the shares of the variance that items and interactions explain, and sentences that
    say which factor matters most and, if samplers were varied, which one was best. `room`: largest number of characters
    in a line of the table."""
    what = found.metric if found.filter == "none" else f"{found.metric} ({found.filter})"
    yield (
        f"{found.task} of {found.checkpoint}: {what}, mean {found.accuracy:.3f} over {found.n} items in {found.cells}"
        " combinations"
    )
    yield from _table([HEADS, *map(_cells, found.rows)], room)
    yield (
        f"rest of the variance of the accuracy: choice of items {found.items:.1%}, items that react differently to the"
        f" settings (and residual) {found.items_by_settings:.1%}; interactions of factors {found.interactions:.1%}"
    )
    yield sentence(found)
    noise = next((row.flips for row in found.rows if row.name == "batch"), 0)
    if noise:
        yield f"The batch size alone flips {noise:.1%} of items: numerical noise, below which other flips say nothing."
    yield from _ranking(found)


def _table(rows: Sequence[Sequence[str]], room: int) -> Iterator[str]:
    """Lines of the table of `rows`, the header and one row per factor; where they are wider than `room` characters, two
    tables: one with the levels, each on a line of its own, and the shares, and one with flips and largest change."""
    whole = list(columns(rows, names=(), right=(), room=room))
    if max(map(len, whole)) <= room:
        yield from whole
        return
    stacked = [(factor, levels.replace(", ", "\n"), *more) for factor, levels, *more in rows]
    yield from columns([row[:5] for row in stacked], names=(0, 1), right=(), room=room)
    yield ""
    yield from columns([(row[0], *row[5:]) for row in rows], names=(0, 2), right=(), room=room)


def _cells(row: Factor) -> tuple[str, ...]:
    low, high = row.flips_interval
    levels = ", ".join(
        f"{level} ({accuracy:.3f})" for level, accuracy in zip(row.levels, row.accuracy, strict=True)
    )
    swing = row.swing
    where = f"{swing.low} -> {swing.high}" + (f" at {swing.others}" if swing.others else "")
    return (
        row.name,
        levels,
        f"{row.share:.1%}",
        f"{row.share_with_others:.1%}",
        f"{row.p:.2g}",
        f"{row.flips:.3f} [{low:.3f}, {high:.3f}]",
        f"{swing.change:.3f} ({where})" if swing.change else "0",
    )


def sentence(found: Factors) -> str:
    """One sentence that says which factor (varied setting) of an analysis matters most to the accuracy."""
    most = found.most
    if not any(row.flips for row in found.rows):
        return "No factor changes the outcome of any item."
    if not most.share_with_others:
        flips = max(found.rows, key=lambda row: row.flips)
        return (
            "No factor changes the accuracy by more than the choice of items explains;"
            f" {flips.name} flips most outcomes ({flips.flips:.1%} of items)."
        )
    weak = "" if most.p <= 1 - LEVEL else " (but its mean effect cannot be told from the choice of items)"
    return (
        f"{most.name} matters most{weak}: {most.share_with_others:.1%} of the variance of the accuracy with its"
        f" interactions, {most.share:.1%} alone, {most.flips:.1%} of items flip."
    )


def _ranking(found: Factors) -> Iterator[str]:
    """Sentences that say which sampler is best in most combinations of the other settings, and where it is not; none if
    samplers were not varied."""
    if found.best_sampler is None:
        return
    winners = list(found.best_sampler.values())
    best = max(dict.fromkeys(winners), key=winners.count)
    others = [f"{name} at {where}" for where, name in found.best_sampler.items() if name != best]
    line = (
        f"best sampler: {best} in {winners.count(best)} of {len(winners)} combinations of the other settings"
    )
    yield line + (f" ({'; '.join(others[:4])})" if others else "")
    if "template" in found.fixed:
        yield f"ranking of samplers under one template ({found.fixed['template']})"


def data(found: Sequence[Factors]) -> list[dict[str, Any]]:
    """The analyses `found`, one for each task and checkpoint, as the plain JSON that `--json` prints: all fields of
    each, the name of the factor that matters most, and a sentence about it."""
    return [{**asdict(each), "matters_most": each.most.name, "sentence": sentence(each)} for each in found]


def csv(found: Sequence[Factors]) -> str:
    """CSV text of the analyses `found`, one for each task and checkpoint. Each has one row per term (a factor, or an
    interaction of several, joined by " x "), one for the choice of items (`items`) and one for items that react
    differently to the settings (`items x settings`). Columns of flips and of the largest change (swing) are filled for
    single factors only."""
    from pandas import DataFrame

    lines: list[dict[str, Any]] = []
    for each in found:
        shared = {name: getattr(each, name) for name in ("checkpoint", "task", "metric", "filter", "n")}
        by_name = {row.name: row for row in each.rows}
        for part in each.components:
            row = by_name[part.factors[0]] if len(part.factors) == 1 else None
            term = {"term": " x ".join(part.factors), "variance": part.variance, "share": part.share}
            lines.append(shared | term | ({} if row is None else _csv_row(row)))
        for name, share in (("items", each.items), ("items x settings", each.items_by_settings)):
            lines.append(shared | {"term": name, "share": share})
    return csv_text(DataFrame(lines))


def _csv_row(row: Factor) -> dict[str, Any]:
    return {
        "levels": "|".join(row.levels),
        "share_with_others": row.share_with_others,
        "p": row.p,
        "flips": row.flips,
        "flips_low": row.flips_interval.low,
        "flips_high": row.flips_interval.high,
        "swing": row.swing.change,
        "swing_from": row.swing.low,
        "swing_to": row.swing.high,
        "swing_at": row.swing.others,
    }
