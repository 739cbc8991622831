"""Stored certificates of sampler presets (results/certificates/NAME.json) and the table of them. A certificate tests
whether a preset draws from the distribution that it claims (`repro.certify`).

`python -m repro.certify --presets all` writes the certificates, `python -m scripts.controls` the controls (samplers and
losses that are known to be wrong or right); `python -m repro.report` makes results/tables/certificates.{md,csv} and
controls.{md,csv}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from repro.core.files import RESULTS
from repro.core.reading import convert, read_json
from repro.results.certified_peers import FILE
from repro.results.tables.text import csv_text, grid, page

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = RESULTS / "certificates"
CONTROLS = "controls.json"
"""Name of the file of controls in that folder: `wrong` samplers and losses, with the tests that refuse them, and
`right` ones."""
Stored = Mapping[str, Any]
REMEDY = "`python -m repro.certify --presets all` writes them."
TITLE = "Output distributions of samplers"
CAPTION = (
    "Every preset on languages whose conditionals are known exactly: its claim, and the distribution of its "
    "output. TV: total variation distance between the exact, enumerated output distribution and the true "
    "one (27 sentences of 3 tokens; no sampling noise) at the given number of tokens per step; finest TV: "
    "at the largest number of steps (on 9 sentences where 512 steps are taken). mixed, noisy: the same at "
    "one token per step with an inexact denoiser (mixed with 10 % unigrams; fixed normal noise of standard "
    "deviation 0.5 on every logit). bigram: unbiased squared distance of bigram frequencies on the oracle "
    "language at one token per step, in parentheses that of as many true samples. KL: nats per token on the "
    "oracle language, by exact replay where the order of a rule is not random, else the KL divergence of "
    "paths, an upper bound. Adaptive rules: at the number of tokens that they realise. All numbers: "
    "certificates.csv."
)
CONTROLS_TITLE = "Wrong and right samplers and losses, and the tests that refuse them"
CONTROLS_CAPTION = (
    "Controls of `python -m repro.certify`: functions of examples/certify, certified with the default number of "
    "samples. Each wrong one has a single defect; the kinds of tests that refuse it are listed. The right ones do what "
    "they claim in many ways, and no test may refuse them. Each test with its number of steps and noise process: "
    "controls.csv."
)
COLUMNS = ["preset", "claim", "noise", "verdict", "stands", "oracle", "statistic", "space", "steps"]
COLUMNS += ["tokens_per_step", "value", "se", "true", "best"]
HEADER = ["preset", "noise", "claim", "verdict", "TV, 3 per step", "TV, 1 per step", "finest TV"]
HEADER += ["mixed", "noisy", "bigram", "KL, 2 per step"]


class _Verdict(Struct):
    noise: str
    kind: str
    stands: bool
    says: str


class _Number(Struct):
    noise: str
    oracle: str
    statistic: str
    space: str
    steps: int | None
    tokens_per_step: float | None
    value: float
    se: float | None
    true: float | None
    best: float | None


class _Certificate(Struct):
    """The fields of a stored certificate that its tables and the page read."""

    preset: str
    part: Any
    digest: str
    claim: Literal["law", "mode", "biased"]
    verdicts: list[_Verdict]
    numbers: list[_Number]


class _Control(Struct):
    name: str
    kind: str
    family: str
    what: str
    refused_by: list[str]


class _Controls(Struct, forbid_unknown_fields=True):
    wrong: list[_Control]
    right: list[_Control]


def file_name(preset: str) -> str:
    """File name of the certificate of a preset: `random:temperature=1.0` -> `random_temperature=1.0.json`."""
    return re.sub(r"[^A-Za-z0-9_.=+-]", "_", preset) + ".json"


def read(folder: Path) -> list[Stored]:
    """The certificates in the *.json files of a folder (except the files of controls and of other projects), sorted by
    preset; ValueError for a file that holds no certificate."""
    found = []
    for path in sorted(path for path in folder.glob("*.json") if path.name not in (CONTROLS, FILE)):
        remedy = f"remove it; {REMEDY}"
        stored = read_json(path, dict, remedy)
        shape: _Certificate = convert(stored, _Certificate, f"{path} is not a certificate", remedy)
        noises = {verdict.noise for verdict in shape.verdicts}
        odd = [number.noise for number in shape.numbers if number.noise not in noises]
        if odd:
            raise ValueError(f"{path} has numbers but no verdict for noise process {odd[0]!r}: {remedy}")
        found.append(stored)
    return sorted(found, key=lambda stored: stored["preset"])


def to_frame(certificates: Sequence[Stored]) -> DataFrame:
    """Frame with columns `COLUMNS`: one row per statistic in the certificates, with the verdict on its preset and noise
    process."""
    from pandas import DataFrame

    rows = []
    for stored in sorted(certificates, key=lambda stored: stored["preset"]):
        verdicts = {verdict["noise"]: verdict for verdict in stored["verdicts"]}
        for number in stored["numbers"]:
            verdict = verdicts[number["noise"]]
            shared = {"preset": stored["preset"], "claim": stored["claim"]}
            rows.append(shared | {"verdict": verdict["kind"], "stands": verdict["stands"]} | number)
    return DataFrame(rows, columns=COLUMNS)


def tables(certificates: Sequence[Stored]) -> dict[str, str]:
    """Texts of certificates.md (one row per preset and noise process) and certificates.csv (all numbers), by file
    name."""
    numbers = to_frame(certificates)
    lines = [
        _line(stored, verdict, numbers)
        for stored in sorted(certificates, key=lambda stored: stored["preset"])
        for verdict in stored["verdicts"]
    ]
    lines.sort(key=lambda line: line[1])
    none = [] if lines else [f"No certificates yet: {REMEDY}"]
    text = page(TITLE, CAPTION, grid(HEADER, lines), *none)
    steps = numbers.assign(steps=numbers.steps.astype("Int64"))
    return {"certificates.md": text, "certificates.csv": csv_text(steps)}


def _line(stored: Stored, verdict: Mapping[str, Any], numbers: DataFrame) -> list[str]:
    own = numbers[(numbers.preset == stored["preset"]) & (numbers.noise == verdict["noise"])]
    listed = own[own.statistic == "total variation"]
    large = listed[listed.space == "27 sentences"]
    exact = large[large.oracle == "exact"]

    def at(rows: DataFrame, tokens: float) -> str:
        """A statistic, as printed, from that one of its `rows` (one per number of steps) which has the fewest tokens
        per step among those with at least `tokens`; of an adaptive sampler, which has no number of steps, from its only
        row. "" if there is none."""
        chosen = rows[(rows.tokens_per_step >= tokens - 1e-9) | rows.steps.isna()]
        return f"{chosen.sort_values('tokens_per_step').value.iloc[0]:.3g}" if len(chosen) else ""

    bigram = own[(own.statistic == "bigram distance squared") & (own.oracle == "exact")]
    kl = own[own.statistic.isin(["path KL", "KL (replay)"])]
    true = f" ({bigram.true.iloc[0]:.1e})" if len(bigram) else ""
    word = verdict["says"] if verdict["stands"] else f"**does not stand**: {verdict['says']}"
    return [
        *(stored["preset"], verdict["noise"], stored["claim"], word),
        *(at(exact, 3.0), at(exact, 1.0), f"{listed[listed.oracle == 'exact'].value.iloc[-1]:.2g}"),
        *(at(large[large.oracle == name], 1.0) for name in ("mixed 0.1", "noisy 0.5")),
        *(at(bigram, 1.0) + true, at(kl, 2.0)),
    ]


def read_controls(folder: Path) -> dict[str, list[Stored]]:
    """The certificates in the file controls.json of a folder, by which the tests themselves are tested: "wrong" lists
    those of samplers made wrong on purpose, "right" those of correct ones. Both lists are empty without the file;
    ValueError for a file of another form."""
    path, remedy = folder / CONTROLS, "remove it; `python -m scripts.controls` writes it"
    if not path.exists():
        return {"wrong": [], "right": []}
    found = read_json(path, dict, remedy)
    convert(found, _Controls, f"{path} is not a file of controls", remedy)
    return found


def controls_tables(controls: Mapping[str, Sequence[Stored]]) -> dict[str, str]:
    """Texts of controls.md (a row for each sampler or loss) and controls.csv (a row for each test that refuses a
    sampler or loss, or one row with an empty test if none does), by file name; empty without controls."""
    from pandas import DataFrame

    if not any(controls.values()):
        return {}
    parts, each = [CONTROLS_CAPTION], []
    for group, none in (("wrong", "**no test**"), ("right", "none: stands")):
        lines = []
        for row in controls[group]:
            own = [row["kind"], row["family"], row["name"], row["what"]]
            kinds = dict.fromkeys(re.sub(r",.*| at \d+ steps", "", test) for test in row["refused_by"])
            lines.append([*own, ", ".join(kinds) or none])
            each += [[group, *own, test] for test in row["refused_by"] or [""]]
        header = ["kind", "family", "function", "defect" if group == "wrong" else "what it is", "refused by"]
        parts += [f"## {group.capitalize()}", grid(header, lines)]
    columns = ["group", "kind", "family", "function", "what", "refused_by"]
    return {
        "controls.md": page(CONTROLS_TITLE, *parts),
        "controls.csv": csv_text(DataFrame(each, columns=columns)),
    }
