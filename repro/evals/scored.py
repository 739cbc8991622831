"""Samples of any engine, judged: `python -m repro.evals --samples FILE.jsonl --judge CKPT [--rule duo]`.

A line is an object with `text` (retokenised by the judge), `ids`, or both: the judge then reads the text and entropy is
the ids'. Ids alone must be the judge's own. Other fields are ignored, so the items that a generating task keeps
(OUT/items) are such a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from repro.checkpoint import file_digest
from repro.evals.gen_ppl import EveryToken, Rule, judged, rule
from repro.evals.judges import Judge, OurJudge, load_judge
from repro.evals.quality import Retokenise, by_themselves, judging
from repro.evals.samples import Metric

SIZES = (1, 2, 3)
"""n-grams that are counted."""


class _Line(msgspec.Struct, frozen=True):
    text: str | None = None
    ids: list[int] | None = None


def read(path: Path) -> list[_Line]:
    """The samples of a file, in order; ValueError `FILE:LINE: what` for a line that is none or of another kind."""
    if not path.is_file():
        raise ValueError(f"no file {path}; a line of it is an object with text or ids")
    found: list[_Line] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            sample = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        if sample.text is None and sample.ids is None:
            raise ValueError(f"{path}:{number}: neither text nor ids")
        if found and _kind(sample) != _kind(found[0]):
            raise ValueError(
                f"{path}:{number}: {_kind(sample)}, and line 1 has {_kind(found[0])}; give one kind"
            )
        found.append(sample)
    if len(found) < 2:
        raise ValueError(f"{path} holds {len(found)} samples; an interval needs two or more")
    return found


def _kind(sample: _Line) -> str:
    return "ids" if sample.text is None else "text" if sample.ids is None else "text and ids"


def score_file(path: Path, judge: Judge, rule: Rule) -> dict[str, Any]:
    """Metrics of a file's samples, and the protocol that they stand under; ValueError when an empty sample is among
    them."""
    samples = read(path)
    kind = _kind(samples[0])
    retokenise: Retokenise = "ids" if kind == "ids" else "text"
    rows = [judge.encode(s.text) if s.text is not None else s.ids or [] for s in samples]
    own = rows if kind == "text" else [sample.ids or [] for sample in samples]
    short = next((i for i, row in enumerate(own) if len(row) < max(SIZES)), None)
    if short is not None:
        raise ValueError(
            f"{path}:{short + 1}: a sample of {len(own[short])} ids; {max(SIZES)} are the least, leave it out"
        )
    metrics: dict[str, Metric] = {"gen_ppl": judged(rows, judge, rule).perplexity()}
    metrics |= by_themselves(own, SIZES)
    found = {name: {"value": v, "se": se, "n": n} for name, (v, se, n) in metrics.items()}
    protocol = judging(judge, rule, retokenise)
    protocol["entropy"] = "judge's ids" if kind == "text" else "generator's ids"
    return {"file": path.name, "samples": file_digest(path), "protocol": protocol, "metrics": found}


def default_rule(judge: Judge) -> Rule:
    """`duo` for a folder of transformers', as published; the whole chain rule for a judge of ours."""
    if isinstance(judge, OurJudge):
        return EveryToken(length=judge.model.data.row_length())
    return rule("duo")


def command(path: Path, judge: str, named: str | None, as_json: bool) -> Sequence[str]:
    """The lines to print."""
    asked = None if named is None else rule(named)  # before the slow part
    read(path)
    reader = load_judge(judge)
    found = score_file(path, reader, asked or default_rule(reader))
    if as_json:
        return [json.dumps(found, indent=1)]
    protocol = found["protocol"]
    head = (
        f"{path.name}: {protocol['judge']} ({protocol['judge_digest'][:12]}), rule {protocol['rule']['part']}"
    )
    lines = [f"{head}, {protocol['retokenise']}, entropy of the {protocol['entropy']}"]
    for name, metric in found["metrics"].items():
        lines.append(f"{name:<12} {metric['value']:.4f} ± {metric['se']:.4f}  (n = {metric['n']})")
    return lines
