"""What a certificate says: the checks, each with its evidence and its errors, and one verdict.

A check *fails* a claim, or does not. Its false-alarm rate bounds how often a right program fails it; `sees` is the
smallest departure that it would report nineteen times in twenty.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

ALPHA = 1e-4
"""False-alarm rate of each check that draws."""
POWER = 0.95


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A number: a statistic of a space under a noise at so many steps, beside that of true samples (or of the best that
    independent draws can do)."""

    statistic: str
    space: str
    noise: str
    oracle: str
    steps: int | None
    tokens_per_step: float | None
    value: float
    true: float | None
    best: float | None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question: did it stand, and in a sentence why."""

    name: str
    stands: bool
    says: str
    false_alarm: float
    sees: str


class Findings(NamedTuple):
    """What was found: checks decide, evidence and notes are to read."""

    checks: tuple[Check, ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The verdict on a function: it stands when all checks do."""

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
        return all(check.stands for check in self.checks)

    def data(self) -> dict[str, Any]:
        return {**asdict(self), "stands": self.stands, "paragraph": self.paragraph()}

    def json(self) -> str:
        return json.dumps(self.data(), indent=1)

    def text(self) -> str:
        """To read: verdict, checks, evidence, paragraph."""
        from tabulate import tabulate

        lines = [
            f"{self.subject}: the claim {self.claims!r} {'stands' if self.stands else 'DOES NOT STAND'}",
            "",
        ]
        for check in self.checks:
            lines.append(f"  {'ok  ' if check.stands else 'FAIL'}  {check.name}: {check.says}")
        lines += [f"  note  {note}" for note in self.notes]
        rows = [
            [
                *(e.statistic, e.space, e.noise, e.oracle, shown(e.steps), shown(e.tokens_per_step)),
                *(shown(e.value), shown(e.true), shown(e.best)),
            ]
            for e in self.evidence
        ]
        header = ["statistic", "space", "noise", "denoiser", "steps", "tokens/step", "value", "true samples"]
        table = tabulate(rows, [*header, "ancestral"], disable_numparse=True)
        return "\n".join([*lines, "", table, "", self.paragraph()])

    def paragraph(self) -> str:
        """For an appendix."""
        tests = sum(check.false_alarm > 0 for check in self.checks)
        rate = sum(check.false_alarm for check in self.checks)
        failed = [check for check in self.checks if not check.stands]
        text = (
            f"The {self.kind} {self.subject} claims {self.claims!r}. It was certified with `repro.certify` against "
            f"laws whose every conditional is known ({self.meaning} denoiser). "
        )
        text += " ".join(f"{check.name.capitalize()}: {check.says}." for check in failed or self.checks)
        text += "".join(f" {note.capitalize()}." for note in self.notes)
        text += f" The claim {'stands' if self.stands else 'does not stand'}."
        if tests:
            text += f" False alarms of the {tests} tests that draw: at most {rate:.0e} together. " + " ".join(
                check.sees for check in self.checks if check.sees
            )
        return text


def shown(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a certificate draws: rows of every number of steps (`last_rows` at the last), in calls of `call_rows`;
    rows under each spoiled denoiser, and steps; rows of long sentences and their steps; calls of a loss, each with
    `repeats` of every sentence; CPU seconds after which a certificate gives up."""

    rows: int
    last_rows: int
    call_rows: int
    steps: tuple[int, ...]
    spoiled_rows: int
    spoiled_steps: int
    long_rows: int
    long_steps: tuple[int, ...]
    rare_rows: int
    loss_calls: int
    loss_repeats: int
    seconds: float


FULL = Effort(
    rows=50_000,
    last_rows=100_000,
    call_rows=25_000,
    steps=(1, 4, 16, 64, 256),
    spoiled_rows=25_000,
    spoiled_steps=16,
    long_rows=1_000,
    long_steps=(1, 4, 16, 64),
    rare_rows=24_000,
    loss_calls=32,
    loss_repeats=10_000,
    seconds=120.0,
)
"""What the command line draws: some twenty seconds on one core for code that works on all rows at once, a minute for
code that is slow."""
