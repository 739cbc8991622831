"""Certificates of samplers, and the claims of papers with their verdicts (`repro.results.claims`), as JSON for the
browser, with the source of each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from repro.results import certificates
from repro.results.certificates import Stored
from repro.results.claims import Claim, ClaimCell, Claims, Verdict
from repro.results.page.series import rule_text
from repro.results.page.sources import Json, Sources
from repro.results.record import Record

CLAIMED = {
    "law": "texts follow the model's distribution",
    "mode": "seeks likely texts",
    "biased": "no distribution",
}
"""What a preset claims (`repro.samplers.sampler.Claim`), in words."""
SHOWN = {
    ("total variation", "27 sentences"): "total variation, 27 sentences",
    ("total variation", "9 sentences"): "total variation, 9 sentences",
    ("bigram distance squared", "strong"): "squared bigram distance, 32 tokens",
    ("path KL", "strong"): "path KL, nats per token",
    ("KL (replay)", "strong"): "KL, nats per token",
}


def certified(stored: Sequence[Stored]) -> list[Json]:
    """Entries of the page's list of certificates, one for each preset and noise process: what the preset claims, the
    verdict, and the statistics that were measured with the exact denoiser, such as the total variation from the true
    distribution for each number of steps. `stored`: the certificates, as `repro.results.certificates.read` returns
    them."""
    return [
        {
            "preset": one["preset"],
            "noise": verdict["noise"],
            "claim": CLAIMED[one["claim"]],
            "kind": verdict["kind"],
            "stands": verdict["stands"],
            "says": verdict["says"],
            "about": rule_text(one["preset"]),
            "file": certificates.file_name(one["preset"]),
            "digest": one["digest"],
            "numbers": [
                {
                    "label": SHOWN.get(
                        (number["statistic"], number["space"]), f"{number['statistic']}, {number['space']}"
                    ),
                    "steps": number["steps"],
                    "number": _number(one, i),
                }
                for i, number in enumerate(one["numbers"])
                if number["noise"] == verdict["noise"] and number["oracle"] == "exact"
            ],
        }
        for one in stored
        for verdict in one["verdicts"]
    ]


def _number(stored: Stored, place: int) -> Json:
    number = stored["numbers"][place]
    how = "equal to" if number["se"] is None else f"with a standard error of {number['se']:.2g}, equal to"
    file = certificates.file_name(stored["preset"])
    return {"v": number["value"], "how": how, "field": "value", "certificate": file, "place": place}


def cited(stored: Sequence[Stored]) -> dict[str, Json]:
    """The certificates as sources of the numbers that the page shows: file name -> preset, settings (`part`) and their
    digest, all measured statistics (`numbers`), and the machine on which the certificate was made."""
    names = ("preset", "part", "digest", "numbers", "machine")
    return {certificates.file_name(one["preset"]): {name: one.get(name) for name in names} for one in stored}


# --- claims -------------------------------------------------------------------------------------------------


def judged(
    ledger: tuple[Claims, list[Verdict]] | None, records: Mapping[str, Sequence[Record]], sources: Sources
) -> Json:
    """JSON of the claims with their verdicts and the records that decide them, and of the claims that cannot be tested
    here. `ledger`: claims and verdicts (None: both lists are empty); `records`: folder name -> records; `sources` notes
    the records."""
    if ledger is None:
        return {"claims": [], "untestable": []}
    found, verdicts = ledger
    return {
        "claims": [_claim(verdict, records[verdict.claim.where], sources) for verdict in verdicts],
        "untestable": [
            {"says": each.says, "why": each.why, "source": each.source} for each in found.untestable
        ],
    }


def _claim(verdict: Verdict, records: Sequence[Record], sources: Sources) -> Json:
    claim = verdict.claim
    cells = [(cell, _by_seed(claim, cell, records)) for cell in claim.cells]
    seeds = [seed for seed in claim.seeds if all(seed in found for _, found in cells)]
    values = [
        sum(cell.sign * found[seed].answer.metrics[cell.metric].value for cell, found in cells)
        for seed in seeds
    ]
    assert not values or abs(fmean(values) - verdict.mean) < 1e-9 * max(1.0, abs(verdict.mean))
    enough = verdict.n >= 2
    return {
        **{"name": claim.name, "says": claim.says, "source": claim.source, "family": claim.family},
        **{"quantity": claim.quantity, "verdict": verdict.word, "direction": claim.direction},
        **{"margin": claim.margin, "power": claim.power, "n": verdict.n},
        **{"mean": verdict.mean if enough else None, "p": verdict.p if verdict.n else None},
        "interval": [verdict.interval.low, verdict.interval.high] if enough else None,
        "seeds": seeds,
        "values": values,
        "cells": [
            {
                "sign": cell.sign,
                "label": _label(cell),
                "field": f"answer.metrics.{cell.metric}.value",
                "records": sources.cite([found[seed] for seed in seeds]),
            }
            for cell, found in cells
        ],
    }


def _by_seed(claim: Claim, cell: ClaimCell, records: Sequence[Record]) -> dict[int, Record]:
    wanted = (cell.recipe, cell.task, cell.preset, cell.tokens_per_step)
    return {
        record.question.checkpoint.seed: record
        for record in records
        if (
            record.labels.recipe,
            record.labels.task,
            record.labels.preset or "",
            record.labels.tokens_per_step or "",
        )
        == wanted
        and cell.metric in record.answer.metrics
    }


def _label(cell: ClaimCell) -> str:
    """Text that names a term of a claim, such as `llada@nano.sudoku, random, 4 per step: accuracy`."""
    words = [cell.recipe, *([cell.preset] if cell.preset else [])]
    words += [f"{cell.tokens_per_step} per step"] if cell.tokens_per_step else []
    return f"{', '.join(words)}: {cell.metric}"
