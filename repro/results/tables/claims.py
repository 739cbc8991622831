"""Table (ledger) of claims of papers and of the scripts from which this project started: the sentence of each claim,
what was measured for it, and the verdict at the scale of the networks that were trained (docs/method.md#claims)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from repro.core.files import RESULTS
from repro.results.claims import LOCK, Claims, Verdict, claims, verdicts
from repro.results.store import collect, scale_of
from repro.results.tables.text import csv_text, grid, page

TITLE = "Claims and verdicts"
CAPTION = (
    "Claims of the founding scripts' README and of papers, with margins and families that were committed before the "
    "runs that decide them (evals/claims.toml). quantity: its mean over train seeds, in brackets the 95 % interval "
    "(Student's t); margin: what the quantity must lie above or below for the claim to hold. p: of the one-sided test "
    "that decided (undecided: the smaller one), adjusted within the family (Holm); a verdict needs p at most .05. "
    "power: probability of a verdict under the values that were assumed beforehand. Every verdict is about networks of "
    "half a minute on toy data: it does not carry over to large models, and never says that a paper fails."
)
FOLDERS = {where: RESULTS / where for where in ("claims", "choices")}


def stored() -> tuple[Claims, list[Verdict]] | None:
    """The claims and the verdicts on them by the records of results/claims and results/choices; None where there is no
    evals/claims_lock.json, as in an installed package."""
    if not LOCK.is_file():
        return None
    found = claims()
    records = {where: collect(folder) if folder.is_dir() else [] for where, folder in FOLDERS.items()}
    return found, verdicts(found, records)


def counts(judged: Sequence[Verdict]) -> str:
    """Text that counts the verdicts, such as `5 hold here, 3 fail here, 4 undecided`."""
    number = Counter(verdict.word for verdict in judged)
    words = {"holds here": "hold here", "fails here": "fail here"}
    return ", ".join(f"{number[word]} {words.get(word, word)}" for word in sorted(number))


def tables(ledger: tuple[Claims, list[Verdict]] | None) -> dict[str, str]:
    """Texts by file name of claims.md and claims.csv, which list each claim of evals/claims.toml and whether stored
    records support it. `ledger`: claims and verdicts, from `stored`; empty for None."""
    from pandas import DataFrame

    if ledger is None:
        return {}
    found, judged = ledger
    rows = [_row(verdict) for verdict in judged]
    header = ["claim", "verdict", "quantity", "mean [95 % interval]", "margin", "p", "power", "n"]
    lines = [
        [
            *(row["says"], f"**{row['verdict']}**", row["quantity"]),
            "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**row) if verdict.n >= 2 else "",
            f"{row['direction']} {row['margin']:g}",
            f"{row['p']:.2g}" if verdict.n else "",
            *(f"{row['power']:.2f}", str(row["n"])),
        ]
        for row, verdict in zip(rows, judged, strict=True)
    ]
    parts = [CAPTION]
    for family in dict.fromkeys(verdict.claim.family for verdict in judged):
        own = [line for line, verdict in zip(lines, judged, strict=True) if verdict.claim.family == family]
        parts += [f"## {family}", grid(header, own)]
    absent = [[each.says, each.why, each.source] for each in found.untestable]
    parts += ["## not testable here", grid(["claim", "why", "source"], absent), counts(judged) + "."]
    return {"claims.md": page(TITLE, *parts), "claims.csv": csv_text(DataFrame(rows))}


def _row(verdict: Verdict) -> dict[str, object]:
    claim = verdict.claim
    scales = dict.fromkeys(scale_of(cell.recipe) or "full" for cell in claim.cells)
    return {
        **{"name": claim.name, "says": claim.says, "source": claim.source, "scale": " ".join(scales)},
        **{"family": claim.family, "quantity": claim.quantity, "verdict": verdict.word},
        **{"mean": verdict.mean, "low": verdict.interval.low, "high": verdict.interval.high},
        **{"direction": claim.direction, "margin": claim.margin},
        **{"p": verdict.p, "power": claim.power, "n": verdict.n},
    }
