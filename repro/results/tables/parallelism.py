"""Composites of accuracy and tokens a forward: AUP, and the most tokens a forward at non-inferior accuracy.

    aup([(1, 80), (4, 78), (8, 60)], pins(), "sudoku")
    fastest(settings, reference, pins())

A composite sums up several settings, so all of them must be alike but for how they decode: same task and documents,
engine, device, numerics class, clock and networks; anything else is refused in one line. Constants: evals/speed.toml.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, variance

import msgspec
from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.results.difference import difference, without
from repro.results.record import Counts, Json, Record, Speed

PINS = ROOT / "evals" / "speed.toml"


class _Aup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alpha: float
    slack: float
    y_max: dict[str, float]


class _NonInferior(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    margin: float
    level: float


class _Reference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    preset: str
    tokens_per_step: str


class Pins(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """evals/speed.toml."""

    aup: _Aup
    non_inferior: _NonInferior
    reference: dict[str, _Reference]

    def y_max(self, task: str) -> float:
        """The accuracy, in per cent, at which a task's AUP stops to reward; ValueError for a task that has none."""
        if task not in self.aup.y_max:
            raise ValueError(
                f"no y_max of task {task!r} in evals/speed.toml ({nearest(task, self.aup.y_max)}); an AUP without it "
                "would depend on the other rows: add it"
            )
        return self.aup.y_max[task]


@lru_cache
def pins() -> Pins:
    """The constants, read strictly; ValueError names the field."""
    try:
        return msgspec.toml.decode(PINS.read_bytes(), type=Pins)
    except msgspec.DecodeError as error:
        raise ValueError(f"{PINS.name}: {error}".replace("`", "'")) from None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network at one setting: outcomes (a digit a document), summed counts."""

    seed: tuple[int, int, str]
    """Train seed, sampling seed, and the digest of the network."""
    outcomes: str
    counts: Counts

    @property
    def accuracy(self) -> float:
        return self.outcomes.count("1") / len(self.outcomes)

    @property
    def rate(self) -> float:
        """Useful tokens a forward, of the sums."""
        return self.counts.useful / max(1, self.counts.forwards)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A recipe under one sampler and plan, its runs by seed; `alike`: what a composite needs to be the same (JSON)."""

    recipe: str
    preset: str
    tokens_per_step: str
    task: str
    alike: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return self.preset + (f" at {self.tokens_per_step}" if self.tokens_per_step else "")

    @property
    def rate(self) -> float:
        """Useful tokens a forward, of the sums over runs."""
        return self.total("useful") / max(1, self.total("forwards"))

    def total(self, name: str) -> int:
        """A count summed over runs."""
        return sum(getattr(run.counts, name) for run in self.runs)


def refuse_unequal(settings: Sequence[Setting]) -> None:
    """ValueError naming the first thing that differs between settings, how they decode apart."""
    first = settings[0]
    for other in settings[1:]:
        found = difference(json.loads(first.alike), json.loads(other.alike))
        if found is None and [run.seed for run in first.runs] != [run.seed for run in other.runs]:
            found = f"seeds are {_seeds(first)} and {_seeds(other)}"
        if found is None:
            found = _documents(first, other)
        if found is not None:
            raise ValueError(
                f"no composite over unequal cells, {first.name} and {other.name} of {first.recipe}: {found}; "
                "ask both in one way"
            )


def _documents(first: Setting, other: Setting) -> str | None:
    one, two = ({len(run.outcomes) for run in each.runs} for each in (first, other))
    return None if one == two and len(one) == 1 else f"n is {sorted(one)} and {sorted(two)}"


def _seeds(setting: Setting) -> str:
    return ", ".join(
        f"{train}/{drawn} of {digest[:8]}" for train, drawn, digest in (run.seed for run in setting.runs)
    )


# --- AUP ----------------------------------------------------------------------------------------------------


def aup(points: Sequence[tuple[float, float]], constants: Pins, task: str) -> float:
    """Accuracy under parallelism of (tokens a forward, accuracy in per cent) points, in any order (d3LLM).

    With rho ascending: rho_1 y_1 + 1/2 sum (rho_i - rho_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})) over the points with
    y >= y_1 - slack, W(y) = min(exp(-alpha (1 - y / y_max)), 1).
    """
    if not points:
        raise ValueError("an AUP needs a point; give (tokens a forward, accuracy in per cent)")
    if any(rho <= 0 or not 0 <= y <= 100 for rho, y in points):
        raise ValueError(f"{list(points)} are no tokens a forward above 0 with accuracies in per cent")
    y_max, alpha = constants.y_max(task), constants.aup.alpha
    ordered = sorted(points)
    kept = [(rho, y) for rho, y in ordered if y >= ordered[0][1] - constants.aup.slack]
    weighted = [(rho, y * min(math.exp(-alpha * (1 - y / y_max)), 1.0)) for rho, y in kept]
    area = sum((right - left) * (a + b) / 2 for (left, a), (right, b) in pairwise(weighted))
    return kept[0][0] * kept[0][1] + area


def aup_by_seed(settings: Sequence[Setting], constants: Pins) -> list[float]:
    """The AUP of a curve for each of its networks; ValueError over unequal settings."""
    refuse_unequal(settings)
    runs = zip(*(setting.runs for setting in settings), strict=True)
    return [
        aup([(run.rate, 100 * run.accuracy) for run in each], constants, settings[0].task) for each in runs
    ]


# --- non-inferiority ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Accuracy of a setting minus the reference's, and the lower end of its one-sided paired interval."""

    difference: float
    low: float


def compared(setting: Setting, reference: Setting, level: float) -> Compared:
    """Paired by network and document. Both count as drawn: the variance is the sum of that over document means and that
    over network means (crossed effects; an upper bound, Owen 2007), with Student's t on networks less one. Half an item
    in each of the four cells of a matched pair (Agresti and Min 2005) keeps no flips from proving equality.
    """
    refuse_unequal([reference, setting])
    rows = [
        [int(a) - int(b) for a, b in zip(ours.outcomes, theirs.outcomes, strict=True)]
        for ours, theirs in zip(setting.runs, reference.runs, strict=True)
    ]
    networks = [fmean(row) for row in rows]
    documents = [fmean(column) for column in zip(*rows, strict=True)] + [math.sqrt(0.5), -math.sqrt(0.5)]
    spread = variance(documents) / len(documents)
    if len(networks) > 1:
        spread += variance(networks) / len(networks)
    mean = fmean(networks)
    return Compared(difference=mean, low=mean - _quantile(level, len(networks) - 1) * math.sqrt(spread))


def _quantile(level: float, degrees: int) -> float:
    """One-sided: Student's with networks to spare, the normal one for a single network (a sentence about it alone)."""
    from scipy.stats import norm, t

    return float(t.ppf(level, degrees) if degrees else norm.ppf(level))


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """The fastest setting that is shown to be no worse than the reference by the margin (None: none is), the first that
    is not (None: all are), and the comparison of the latter, else of the former."""

    setting: Setting | None
    failed: Setting | None
    compared: Compared


def fastest(settings: Sequence[Setting], reference: Setting, constants: Pins) -> Fastest:
    """Tests settings from the reference's rate upwards, up to the first that may be worse by more than the margin.

    ValueError over unequal settings, and where none is as fast as the reference.
    """
    if not settings:
        raise ValueError("no setting to compare; give one or more")
    refuse_unequal([reference, *settings])
    rule, best, found = constants.non_inferior, None, None
    upwards = [setting for setting in settings if setting.rate >= reference.rate]
    if not upwards:
        raise ValueError(f"no setting is as fast as the reference, {reference.name}; ask one")
    for setting in sorted(upwards, key=lambda each: (each.rate, each.name)):
        found = compared(setting, reference, rule.level)
        if found.low < -rule.margin and setting is not reference:
            return Fastest(setting=best, failed=setting, compared=found)
        best = setting
    assert found is not None
    return Fastest(setting=best, failed=None, compared=found)


def fastest_alone(settings: Sequence[Setting], reference: Setting, constants: Pins) -> list[Fastest]:
    """The same on each network alone: a sentence about these networks, not about their recipe."""
    refuse_unequal([reference, *settings])
    places = {id(setting): i for i, setting in enumerate(settings)}
    found = []
    for run in range(len(reference.runs)):
        each = [dataclasses.replace(setting, runs=(setting.runs[run],)) for setting in settings]
        known = places.get(id(reference))
        mine = dataclasses.replace(reference, runs=(reference.runs[run],)) if known is None else each[known]
        found.append(fastest(each, mine, constants))
    return found


def reference_of(recipe: str, settings: Sequence[Setting], constants: Pins) -> Setting:
    """The setting that a recipe's others are compared with; ValueError when none is pinned, or it was not asked."""
    family = recipe.partition("@")[0]
    if family not in constants.reference:
        raise ValueError(
            f"no reference of {family!r} in evals/speed.toml; {nearest(family, constants.reference)}"
        )
    wanted = constants.reference[family]
    for setting in settings:
        rule, _, how = setting.preset.partition(", ")  # in blocks or in one; a cache is an approximation
        if rule == wanted.preset and setting.tokens_per_step == wanted.tokens_per_step and "cache" not in how:
            return setting
    raise ValueError(f"{recipe} lacks its reference, {wanted.preset} at {wanted.tokens_per_step}; ask it too")


def timed(record: Record) -> Speed:
    """The speed that a record holds; ValueError without one."""
    if not record.measurements.speed:
        raise ValueError(f"record {record.id[:12]} holds no speed; evaluate a suite that times its decodings")
    return record.measurements.speed


def alike(record: Record) -> Json:
    """What of a record must be the same in all settings of a composite."""
    speed = timed(record)
    return {
        **without(record.question.subject, "sampler", "plan"),
        "engine": speed.engine,
        "device": speed.device,
        "clock": speed.clock,
        "numerics": record.measurements.numerics.data(),
    }
