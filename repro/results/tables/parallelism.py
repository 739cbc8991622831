"""Composites: two scores that combine accuracy and tokens per forward pass. AUP (accuracy under parallelism) is an area
under the curve of accuracy over speed; the other is the most tokens per forward pass at an accuracy that is below that
of a reference setting by at most a margin.

    aup([(1, 80), (4, 78), (8, 60)], pins(), "sudoku")
    fastest(settings, reference, pins())

A *setting* is one recipe decoded with one sampler and one decoding plan (lengths, steps, cache). The settings of a
composite may differ only in sampler and plan: task, documents, engine, device, numerics class, clock and networks must
be equal, or a ValueError names the difference. The constants of both scores are in evals/speed.toml (`pins`).
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

from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import read_toml
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
    """Constants of two scores that combine accuracy and speed, read from evals/speed.toml. `aup`: alpha, slack and the
    y_max of each task in AUP (accuracy under parallelism, see `aup`); `non_inferior`: by how much (margin) an accuracy
    may be below that of a reference setting, and the level of the test of this; `reference`: recipe family -> its
    reference setting (sampler preset and tokens per step), with which its other settings are compared."""

    aup: _Aup
    non_inferior: _NonInferior
    reference: dict[str, _Reference]

    def y_max(self, task: str) -> float:
        """The constant y_max of `aup` for a task: the accuracy, in per cent, from which on the weight W is 1.
        ValueError if evals/speed.toml gives none for the task."""
        if task not in self.aup.y_max:
            raise ValueError(
                f"no y_max of task {task!r} in evals/speed.toml ({nearest(task, self.aup.y_max)}); add the accuracy, "
                "in per cent, from which on the weight of AUP is 1"
            )
        return self.aup.y_max[task]


@lru_cache
def pins() -> Pins:
    """The constants of the scores that combine accuracy and speed (weights of AUP, margin and level of the test of
    accuracies, reference settings), as read from evals/speed.toml; ValueError names an invalid field."""
    return read_toml(PINS, Pins)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The answers of one network at one setting (sampler and decoding plan): `outcomes`, one digit per document (1:
    answered correctly), and `counts` of tokens and forward passes, summed over documents."""

    seed: tuple[int, int, str]
    """Train seed, sampling seed, and the digest of the network."""
    outcomes: str
    counts: Counts

    @property
    def accuracy(self) -> float:
        return self.outcomes.count("1") / len(self.outcomes)

    @property
    def rate(self) -> float:
        """Useful tokens (before the first end id or stop string) per forward pass of the network."""
        return self.counts.useful / max(1, self.counts.forwards)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A recipe decoded with one sampler and one decoding plan (lengths, steps, cache), and its runs, sorted by seed.
    `alike`: JSON of all that must be equal in two settings if they are to be compared (see the function `alike`)."""

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
        """Useful tokens (before the first end id or stop string) per forward pass, as a ratio of sums over runs."""
        return self.total("useful") / max(1, self.total("forwards"))

    def total(self, name: str) -> int:
        """Sum over runs of the field `name` of `Counts`, such as `useful` (tokens) or `forwards` (forward passes)."""
        return sum(getattr(run.counts, name) for run in self.runs)


def refuse_unequal(settings: Sequence[Setting]) -> None:
    """Raise ValueError, naming the first difference, if settings differ in anything but sampler and decoding plan."""
    first = settings[0]
    for other in settings[1:]:
        found = difference(json.loads(first.alike), json.loads(other.alike))
        if found is None and [run.seed for run in first.runs] != [run.seed for run in other.runs]:
            found = f"seeds are {_seeds(first)} and {_seeds(other)}"
        if found is None:
            found = _documents(first, other)
        if found is not None:
            raise ValueError(
                f"{first.name} and {other.name} of {first.recipe} are not comparable: {found}; "
                "evaluate both in the same way"
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
    """Accuracy under parallelism (AUP, d3LLM): the area under accuracy over tokens per forward pass, where accuracies
    below a constant of the task, y_max, count less. `points`: pairs (rho: tokens per forward pass, y: accuracy in per
    cent), in any order.

    With rho ascending: rho_1 y_1 + 1/2 sum (rho_i - rho_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})) over the points with
    y >= y_1 - slack, W(y) = min(exp(-alpha (1 - y / y_max)), 1). `constants` gives slack, alpha and y_max of `task`.
    ValueError for no point, one out of range, or a task without y_max.
    """
    if not points:
        raise ValueError(
            "an AUP needs a point; give at least one pair (tokens per forward pass, accuracy in per cent)"
        )
    if any(rho <= 0 or not 0 <= y <= 100 for rho, y in points):
        raise ValueError(
            f"{list(points)} are not points of an AUP; give pairs of tokens per forward pass (above 0) and accuracy "
            "in per cent"
        )
    y_max, alpha = constants.y_max(task), constants.aup.alpha
    ordered = sorted(points)
    kept = [(rho, y) for rho, y in ordered if y >= ordered[0][1] - constants.aup.slack]
    weighted = [(rho, y * min(math.exp(-alpha * (1 - y / y_max)), 1.0)) for rho, y in kept]
    area = sum((right - left) * (a + b) / 2 for (left, a), (right, b) in pairwise(weighted))
    return kept[0][0] * kept[0][1] + area


def aup_by_seed(settings: Sequence[Setting], constants: Pins) -> list[float]:
    """AUP (`aup`) of each network, over all settings of a recipe; ValueError unless the settings differ in sampler and
    decoding plan alone."""
    refuse_unequal(settings)
    runs = zip(*(setting.runs for setting in settings), strict=True)
    return [
        aup([(run.rate, 100 * run.accuracy) for run in each], constants, settings[0].task) for each in runs
    ]


# --- non-inferiority ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How a setting (sampler and decoding plan) compares with the reference setting of its recipe: `difference`, its
    accuracy minus that of the reference; `low`, lower end of the one-sided paired confidence interval of the
    difference."""

    difference: float
    low: float


def compared(setting: Setting, reference: Setting, level: float) -> Compared:
    """Difference of the accuracies of a setting and the reference setting, paired by network and document, with the
    lower end of its interval at the one-sided confidence `level`. Networks and documents are crossed random effects:
    the variance is the sum of those of the document means and the network means (an upper bound, Owen 2007), with
    Student's t on the number of networks less one. Half an item is added to each of the four counts of paired outcomes
    (Agresti and Min 2005), so that the variance is positive even if no document differs.
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
    """One-sided quantile at `level` of Student's t with `degrees` of freedom; for 0 degrees (a single network) that of
    the normal distribution, which makes a statement about that network alone."""
    from scipy.stats import norm, t

    return float(t.ppf(level, degrees) if degrees else norm.ppf(level))


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """Result of the search for the fastest `setting` (sampler and decoding plan) whose accuracy is not worse than that
    of the reference setting by more than a margin (None: none). `failed`: the first setting that failed the test (None:
    none); `compared`: comparison of the setting that was tested last with the reference."""

    setting: Setting | None
    failed: Setting | None
    compared: Compared


def fastest(settings: Sequence[Setting], reference: Setting, constants: Pins) -> Fastest:
    """The fastest setting (sampler and decoding plan) of a recipe whose accuracy is not worse than that of `reference`
    by more than the margin in `constants`.

    Settings are tested in ascending order of tokens per forward pass, from the reference's on, until one fails: the
    lower end of the interval of its difference in accuracy from the reference is below minus the margin. ValueError if
    there is no setting, if settings differ in more than sampler and decoding plan, or if none is at least as fast as
    the reference.
    """
    if not settings:
        raise ValueError("settings=[]: there is none to compare with the reference; give one or more")
    refuse_unequal([reference, *settings])
    rule, best, found = constants.non_inferior, None, None
    upwards = [setting for setting in settings if setting.rate >= reference.rate]
    if not upwards:
        raise ValueError(
            f"no setting is as fast as the reference, {reference.name}; evaluate one with more tokens per step"
        )
    for setting in sorted(upwards, key=lambda each: (each.rate, each.name)):
        found = compared(setting, reference, rule.level)
        if found.low < -rule.margin and setting is not reference:
            return Fastest(setting=best, failed=setting, compared=found)
        best = setting
    assert found is not None
    return Fastest(setting=best, failed=None, compared=found)


def fastest_alone(settings: Sequence[Setting], reference: Setting, constants: Pins) -> list[Fastest]:
    """For each network by itself the fastest setting (sampler and decoding plan) whose accuracy is not worse than that
    of `reference` by more than a margin (see `fastest`): a statement about that network, not about its recipe."""
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
    """Reference setting of a recipe, with which its other settings are compared. ValueError if evals/speed.toml names
    none, or if `settings` does not contain it."""
    family = recipe.partition("@")[0]
    if family not in constants.reference:
        raise ValueError(
            f"no reference setting of recipe {family!r} in evals/speed.toml; {nearest(family, constants.reference)}"
        )
    wanted = constants.reference[family]
    for setting in settings:
        rule, _, how = setting.preset.partition(", ")  # any block length; a cache is an approximation
        if rule == wanted.preset and setting.tokens_per_step == wanted.tokens_per_step and "cache" not in how:
            return setting
    raise ValueError(
        f"{recipe} lacks its reference, {wanted.preset} at {wanted.tokens_per_step} tokens per step; evaluate it too"
    )


def timed(record: Record) -> Speed:
    """Measured decoding speed in a record; ValueError if the record has none."""
    if not record.measurements.speed:
        raise ValueError(
            f"record {record.id[:12]} holds no speed; evaluate a suite that times its decoding, such as speed.sudoku"
        )
    return record.measurements.speed


def alike(record: Record) -> Json:
    """Fields of a record, as JSON, that must be equal in all records from which one AUP (a score over several settings)
    is computed: the evaluation, except its sampler, decoding plan, digest and seeds; the engine, the device and how
    time is measured; and the numerics class (`repro.results.record`)."""
    speed = timed(record)
    return {
        **without(record.question.subject, "sampler", "plan"),
        "engine": speed.engine,
        "device": speed.device,
        "clock": speed.clock,
        "numerics": record.measurements.numerics.data(),
    }
