"""Results of a comparison of two engines (programs that decode): a finding for each check, a verdict, and a report as
text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from repro.core.reading import finite

Outcome = Literal["pass", "fail", "not checked"]
WIDE = len("log-probabilities")
"""Width in characters of the longest name of a finding."""


@dataclass(frozen=True)
class Finding:
    """Result of one check. `name`: e.g. "stop rule of A"; `outcome`: "pass", "fail" or "not checked"; `says`: one
    sentence with what was found; `data`: the numbers of this sentence as plain JSON."""

    name: str
    outcome: Outcome
    says: str
    data: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The result of the check as a line of text: outcome, name, and what was found."""
        return f"{self.outcome:<11}  {self.name:<{WIDE}}  {self.says}"


@dataclass(frozen=True)
class Report:
    """Report on the check that the engines `a` and `b` (names) agree: `findings`, one for the result of each check, and
    `plan`, what was asked and how it was judged (`check.Plan`), as plain JSON."""

    a: str
    b: str
    plan: dict[str, Any]
    findings: list[Finding]

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [each.name for each in self.findings if each.outcome == "fail"]

    @property
    def agrees(self) -> bool:
        """Whether the engines agree: no check failed, and at least one could be made."""
        return not self.failed and any(each.outcome == "pass" for each in self.findings)

    @property
    def verdict(self) -> str:
        """One line: PASS or FAIL, with the names of the checks that failed or could not be made."""
        left = [each.name for each in self.findings if each.outcome == "not checked"]
        rest = f"; not checked: {', '.join(left)}" if left else ""
        if self.agrees:
            checked = len(self.findings) - len(left)
            return f"PASS: A and B agree in all {checked} checks{rest}"
        return f"FAIL: {', '.join(self.failed) or 'no check could be made'}{rest}"

    def data(self) -> dict[str, Any]:
        """The report as plain JSON: names, plan, findings, whether the engines agree, and the verdict; an infinite
        difference is None."""
        return finite({**dataclasses.asdict(self), "agrees": self.agrees, "verdict": self.verdict})

    def lines(self) -> Iterator[str]:
        """The report as lines of text: names of the engines, a line for the result of each check, and the verdict."""
        yield f"A: {self.a}"
        yield f"B: {self.b}"
        yield from (each.line() for each in self.findings)
        yield self.verdict
