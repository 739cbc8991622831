"""The contents of a certificate: checks, evidence and the verdict; and its sample sizes (`Effort`).

The false-alarm rate of a check bounds the probability that a correct program fails it. The minimum detectable
difference of a check is the smallest error that it reports with probability 0.95 (POWER).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

ALPHA = 1e-4
"""False-alarm rate of each check on random draws."""
POWER = 0.95
"""Probability with which a minimum detectable difference is detected."""


Told = Callable[[str], None]
"""A function that is called with a line of text at the beginning of each test of a certificate."""


def silent(line: str) -> None:
    """Do nothing: given to a certificate in place of a function that prints a line as each test begins."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One number that was measured of a sampler or loss: the `value` of a `statistic` on one space (language with known
    conditionals), noise, denoiser (`oracle`) and number of steps. For comparison: `true`, the statistic of equally many
    true samples, and `best`, that of ancestral sampling, or the best possible value of a loss (None: not computed)."""

    statistic: str
    space: str
    noise: str
    oracle: str
    """The denoiser: exact, or which wrong one."""
    steps: int | None
    tokens_per_step: float | None
    value: float
    true: float | None
    """The statistic of equally many true samples."""
    best: float | None
    """The statistic of ancestral sampling with the exact denoiser, or the best possible value of a loss."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One test of the claim. `stands`: whether the claim passed it; `says`: its result in a sentence; `false_alarm`:
    upper bound on the probability that a correct program fails it; `minimum_detectable`: a sentence on the smallest
    error that is detected (or empty)."""

    name: str
    stands: bool
    says: str
    false_alarm: float
    minimum_detectable: str = ""


class Findings(NamedTuple):
    """Results of the tests of a certificate: the checks decide the verdict, evidence and notes are for the reader."""

    checks: tuple[Check, ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The certificate of the function named `subject`, a sampler or a loss (`kind`): what it claims and the results of
    the tests, which took `seconds` s. The claim stands if all checks do."""

    subject: str
    kind: str
    claims: str
    meaning: str
    checks: tuple[Check, ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def stands(self) -> bool:
        """Whether the claim stands: all checks passed."""
        return all(check.stands for check in self.checks)

    def data(self) -> dict[str, Any]:
        """All fields of the certificate, its verdict (`stands`) and the summary for a paper (`paragraph`), as plain
        data."""
        return {**asdict(self), "stands": self.stands, "paragraph": self.paragraph()}

    def json(self) -> str:
        """The certificate (`data`) as JSON text."""
        return json.dumps(self.data(), indent=1)

    def text(self) -> str:
        """The certificate for a terminal: verdict, checks, evidence (a table for each space and noise), and last the
        summary for a paper (`paragraph`)."""
        verdict = "stands" if self.stands else "DOES NOT STAND"
        lines = [f"{self.subject}: the claim {self.claims!r} {verdict}", ""]
        for check in self.checks:
            lines.append(f"  {'ok  ' if check.stands else 'FAIL'}  {check.name}: {check.says}")
        lines += [f"  note  {note}" for note in self.notes]
        places: dict[tuple[str, str], list[Evidence]] = {}
        for evidence in self.evidence:
            places.setdefault((evidence.space, evidence.noise), []).append(evidence)
        for (space, noise), some in places.items():
            lines += ["", f"{space}, {noise} noise", _table(some)]
        return "\n".join([*lines, "", self.paragraph()])

    def paragraph(self) -> str:
        """A summary of the certificate for the appendix of a paper."""
        tests = sum(check.false_alarm > 0 for check in self.checks)
        rate = sum(check.false_alarm for check in self.checks)
        failed = [check for check in self.checks if not check.stands]
        text = (
            f"The {self.kind} {self.subject} claims {self.claims!r}. It was tested with `repro.certify` on laws "
            f"whose conditionals are all known ({self.meaning} denoiser). "
        )
        text += " ".join(f"{check.name.capitalize()}: {check.says}." for check in failed or self.checks)
        text += "".join(f" {note.capitalize()}." for note in self.notes)
        text += f" The claim {'stands' if self.stands else 'does not stand'}."
        if tests:
            text += (
                f" The false-alarm rate of the {tests} random tests together is at most {rate:.0e}. "
                + " ".join(check.minimum_detectable for check in self.checks if check.minimum_detectable)
            )
        return text


COLUMNS: dict[str, Callable[[Evidence], str]] = {
    "statistic": lambda e: e.statistic,
    "denoiser": lambda e: e.oracle,
    "steps": lambda e: shown(e.steps),
    "tokens\n/step": lambda e: shown(e.tokens_per_step),
    "value": lambda e: shown(e.value),
    "true\nsamples": lambda e: shown(e.true),
    "ancestral": lambda e: shown(e.best),
}
"""Header of a column of the printed evidence -> function that gives the text of its cells."""


def _table(some: list[Evidence]) -> str:
    """Measured numbers (`some`) as a table of text, at most 80 characters wide, without columns that are empty. It is
    made without the package tabulate, so that `pytest --certify` at its smoke level does not require it."""
    filled = {head: cells for head, of in COLUMNS.items() if any(cells := [of(each) for each in some])}
    heads = [["", *head.split("\n")][-2:] for head in filled]
    wide = [max(map(len, [*head, *cells])) for head, cells in zip(heads, filled.values(), strict=True)]
    rows = [*zip(*heads, strict=True), ["-" * size for size in wide], *zip(*filled.values(), strict=True)]
    lines = ["  ".join(map(str.ljust, row, wide)).rstrip() for row in rows]
    return "\n".join(line for line in lines if line)


def shown(number: float | None) -> str:
    """Text of a number with four significant digits; empty for None."""
    return "" if number is None else f"{number:.4g}"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The sample sizes of a certificate (numbers of sentences, steps and calls) and its limit of wall time."""

    rows: int
    """Sentences sampled at every number of steps but the last."""
    last_rows: int
    """Sentences sampled at the last number of steps."""
    call_rows: int
    """Sentences of one call of the sampler."""
    steps: tuple[int, ...]
    """Numbers of steps, rising."""
    spoiled_rows: int
    spoiled_steps: int
    """Sentences (0: none) and steps under each wrong denoiser."""
    long_rows: int
    long_steps: tuple[int, ...]
    """Long sentences at every number of steps (0: they are left out), and these numbers, rising."""
    row_calls: int
    small_calls: int
    """Numbers of calls in the tests of independent rows: large ones at each number of steps, and calls of few rows."""
    rare_rows: int
    """Sentences of the test of rare tokens, at most (0: it is left out)."""
    loss_calls: int
    loss_repeats: int
    """Calls of a random loss, and how often each call has every sentence."""
    seconds: float
    """Seconds of wall time after which the certificate is given up with an error."""


FULL = Effort(
    rows=50_000,
    last_rows=100_000,
    call_rows=25_000,
    steps=(1, 4, 16, 64, 256),
    spoiled_rows=25_000,
    spoiled_steps=16,
    long_rows=1_000,
    long_steps=(1, 4, 16, 64),
    row_calls=40,
    small_calls=1_000,
    rare_rows=4_800_000,
    loss_calls=32,
    loss_repeats=10_000,
    seconds=120.0,
)
"""Default of the command line: about twenty seconds on one core for vectorised code, a minute for slow code."""
SMOKE = Effort(
    rows=25_000,
    last_rows=50_000,
    call_rows=25_000,
    steps=(1, 4, 16, 64),
    spoiled_rows=0,
    spoiled_steps=16,
    long_rows=0,
    long_steps=(),
    row_calls=40,
    small_calls=500,
    rare_rows=0,
    loss_calls=8,
    loss_repeats=1_000,
    seconds=60.0,
)
"""For a test suite: about three seconds for vectorised code, torch loaded. Wrong denoisers (which give evidence and no
check), long sentences and rare tokens are left out."""
