"""Claims of papers, and of the scripts from which this project started (tom-pollak/dllm), written down before the runs
that decide them (docs/method.md#claims).

    claims(evals/claims.toml) -> Claims          hypotheses, margins, families, power
    verdicts(claims, records) -> list[Verdict]   holds here, fails here, undecided, not measured

`lock` gives the digest of each claim. evals/claims_lock.json holds those that were committed before the runs; a claim
that was changed afterwards differs from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.core.stats import Interval, holm, mean_interval
from repro.results.record import Record
from repro.results.store import to_frame

if TYPE_CHECKING:
    from pandas import DataFrame

CLAIMS = ROOT / "evals" / "claims.toml"
LOCK = ROOT / "evals" / "claims_lock.json"


class ClaimCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One term of the quantity of a claim: a metric of a recipe, task and sampler preset, added (`sign` 1) or
    subtracted (-1). An empty preset or tokens_per_step stands for null in the records."""

    sign: Literal[-1, 1]
    recipe: str
    task: str
    metric: str
    preset: str = ""
    tokens_per_step: str = ""


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim (evals/claims.toml): the mean over train seeds of a quantity lies above or below (`direction`) `margin`.
    The quantity, which `quantity` describes, is the sum over `cells` of sign x metric for one train seed. `expected`
    and `spread`: mean and standard deviation over train seeds that were assumed for `power`, the probability of a
    verdict. `family`: claims whose p-values are adjusted together; `where`: folder of the records below results/."""

    name: str
    says: str
    source: str
    quantity: str
    family: str
    where: Literal["claims", "choices"]
    seeds: tuple[int, ...]
    direction: Literal["above", "below"]
    margin: float
    expected: float
    spread: float
    power: float
    cells: tuple[ClaimCell, ...]

    @property
    def sign(self) -> int:
        """1 if the claim is that the quantity lies above the margin, -1 if below."""
        return 1 if self.direction == "above" else -1


class Untestable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim that cannot be tested here, and `why`."""

    name: str
    says: str
    source: str
    why: str


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All claims, and `level`: the largest probability that a family of claims gets any false verdict."""

    level: float
    claim: tuple[Claim, ...]
    untestable: tuple[Untestable, ...]

    def family(self, name: str) -> list[Claim]:
        """The claims of the family `name`, whose p-values are adjusted together."""
        return [claim for claim in self.claim if claim.family == name]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on a claim: the `mean` of its quantity over `n` train seeds (0: no records), the 95 % `interval` of the
    mean, and two p-values, adjusted within the family by Holm's method: `holds`, of the hypothesis that the claim is
    false, and `fails`, of the hypothesis that it is true. A p-value of at most `level` rejects its hypothesis."""

    claim: Claim
    n: int
    mean: float
    interval: Interval
    holds: float
    fails: float
    level: float

    @property
    def word(self) -> str:
        """The verdict in words: holds here, fails here, undecided, or not measured."""
        if self.n < len(self.claim.seeds):
            return "not measured"
        return (
            "holds here"
            if self.holds <= self.level
            else "fails here"
            if self.fails <= self.level
            else "undecided"
        )

    @property
    def p(self) -> float:
        """The p-value of the test that the verdict rests on; of an undecided claim the smaller of `holds` and
        `fails`."""
        if self.word == "undecided":
            return min(self.holds, self.fails)
        return self.fails if self.word == "fails here" else self.holds


def claims(path: Path = CLAIMS) -> Claims:
    """The claims of the file `path`; ValueError for an unknown field, a name that two claims have, or a claim with
    fewer than two train seeds."""
    found = read_toml(path, Claims)
    names = [each.name for each in (*found.claim, *found.untestable)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: two claims have the name {name!r}; rename one")
    for claim in found.claim:
        if len(set(claim.seeds)) < 2:
            raise ValueError(
                f"{path}: claim {claim.name!r} has fewer than two train `seeds`; give two or more"
            )
    return found


def lock(found: Claims) -> dict[str, str]:
    """Claim name -> SHA-256 of the claim's canonical JSON together with the level and the number of claims in its
    family."""
    return {
        claim.name: hashlib.sha256(
            json.dumps(
                [msgspec.to_builtins(claim), found.level, len(found.family(claim.family))], sort_keys=True
            ).encode()
        ).hexdigest()
        for claim in found.claim
    }


def power(claim: Claim, level: float, family: int) -> float:
    """Probability of a verdict (holds or fails) on a claim if its quantity is normally distributed over train seeds
    with mean `expected` and standard deviation `spread` of the claim (noncentral t). `family`: number of claims in the
    family; tests are at `level` / `family`, the strictest level of Holm's method."""
    from scipy.stats import nct, t

    n = len(claim.seeds)
    limit = float(t.isf(level / family, n - 1))
    centre = math.sqrt(n) * (claim.expected - claim.margin) / claim.spread
    return float(nct.sf(limit, n - 1, centre) + nct.sf(limit, n - 1, -centre))


def verdicts(found: Claims, records: Mapping[str, Sequence[Record]]) -> list[Verdict]:
    """Verdict on every testable claim, in the order of the file; `records`: folder name (`Claim.where`) -> records.

    ValueError if a term of a claim (`ClaimCell`) has two values for one train seed.
    """
    frames = {where: to_frame(each) for where, each in records.items()}
    values = {claim.name: _values(claim, frames[claim.where]) for claim in found.claim}
    made = {}
    for family in dict.fromkeys(claim.family for claim in found.claim):
        members = found.family(family)
        tails = [_tails(claim, values[claim.name]) for claim in members]
        adjusted = [holm([each[side] for each in tails]) for side in (0, 1)]
        for claim, holds, fails in zip(members, *adjusted, strict=True):
            own = values[claim.name]
            mean = fmean(own) if own else math.nan
            interval = mean_interval(own, 0.95) if len(own) >= 2 else Interval(math.nan, math.nan)
            made[claim.name] = Verdict(
                claim=claim,
                n=len(own),
                mean=mean,
                interval=interval,
                holds=holds,
                fails=fails,
                level=found.level,
            )
    return [made[claim.name] for claim in found.claim]


def _values(claim: Claim, frame: DataFrame) -> list[float]:
    """The quantity of a claim for each of its train seeds that has records of all its terms (`ClaimCell`)."""
    sums: dict[int, float] = dict.fromkeys(claim.seeds, 0.0)
    for cell in claim.cells:
        rows = frame
        for column in ("recipe", "task", "metric", "preset", "tokens_per_step"):
            rows = rows[rows[column] == getattr(cell, column)]
        values = dict(zip(rows.train_seed, rows.value, strict=True))
        if len(values) < len(rows):
            raise ValueError(
                f"claim {claim.name!r}: {cell.recipe} {cell.task} has two values of {cell.metric} for one train seed;"
                f" remove one of the two records in results/{claim.where}"
            )
        sums = {seed: total + cell.sign * values[seed] for seed, total in sums.items() if seed in values}
    return list(sums.values())


def _tails(claim: Claim, values: Sequence[float]) -> tuple[float, float]:
    """P-values of two one-sided t tests (Student) from the quantity of a claim for each train seed (`values`): of the
    hypothesis that the claim is false, and of the hypothesis that it is true. Both are 1 with fewer values than
    planned, or if all values equal the margin. If all equal another number, the p-value of the hypothesis that this
    number contradicts is 0, and that of the other hypothesis 1."""
    from scipy.stats import t

    if len(values) < len(claim.seeds):
        return 1.0, 1.0
    apart = [claim.sign * (value - claim.margin) for value in values]
    error = stdev(apart) / math.sqrt(len(apart))
    if error == 0:
        return (0.0, 1.0) if apart[0] > 0 else (1.0, 0.0) if apart[0] < 0 else (1.0, 1.0)
    score = fmean(apart) / error
    return float(t.sf(score, len(apart) - 1)), float(t.cdf(score, len(apart) - 1))


class Runs(NamedTuple):
    """Train seeds of one recipe, and the evaluations (`cells`) of its networks as (task, preset, tokens per step), both
    in the order of the claims."""

    seeds: list[int]
    cells: list[tuple[str, str, str]]


def runs_of(found: Claims) -> dict[str, Runs]:
    """Recipe -> what scripts/claims.py trains and evaluates: the seeds and evaluations of all claims whose records are
    in results/claims (`Claim.where`)."""
    made: dict[str, Runs] = {}
    for claim in found.claim:
        for cell in claim.cells if claim.where == "claims" else ():
            seeds, cells = made.setdefault(cell.recipe, Runs([], []))
            seeds += [seed for seed in claim.seeds if seed not in seeds]
            key = (cell.task, cell.preset, cell.tokens_per_step)
            cells += [key] if key not in cells else []
    return made
