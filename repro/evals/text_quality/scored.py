"""Samples of any engine, judged.

    python -m repro.evals --samples FILE.jsonl --judge CKPT [--rule duo] [--out DIR] [--reference TEXTS.jsonl]

A line is an object with `text` (retokenised by the judge), `ids`, or both: the judge then reads the text and entropy is
the ids'. Ids alone must be the judge's own. Other fields are ignored, so the items that a generating task keeps
(OUT/items) are such a file. With a reference, a file of real texts at least twice as many, MAUVE stands beside.

The answer is a record as any other, in OUT/raw (default: runs/external/raw). Its question names the file by its SHA-256
in place of a checkpoint, and its protocol says `engine: external`: so no table or figure puts it in a column of samples
that were decoded here, and it has no speed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from repro.core import parts
from repro.core.files import file_digest, json_lines, runs, write_text
from repro.core.parts import Part, part
from repro.evals.runner import items_file, measured_alone
from repro.evals.task import Answer
from repro.evals.text_quality.gen_ppl import EveryToken, Rule, judged, rule
from repro.evals.text_quality.judges import Judge, OurJudge, load_judge
from repro.evals.text_quality.mauve import Mauve
from repro.evals.text_quality.quality import Retokenise, by_themselves, judging
from repro.evals.text_quality.references import Reference, beside, load_reference
from repro.evals.text_quality.samples import entropy
from repro.results.record import Question, Record, make_record
from repro.results.store import Store

SIZES = (1, 2, 3)
"""n-grams that are counted."""
EXTERNAL = "external"


@part
class ExternalSamples(Part):
    """The task of a record about samples that another engine wrote: `samples` is the SHA-256 of their file."""

    name: str
    samples: str
    distinct: tuple[int, ...]


@part
class ExternalLikeness(ExternalSamples):
    """The same with MAUVE against the texts of a file, `reference` its SHA-256."""

    reference: str
    mauve: tuple[Mauve, ...]


class _Line(msgspec.Struct, frozen=True):
    text: str | None = None
    ids: list[int] | None = None


def read(path: Path) -> list[_Line]:
    """The samples of a file, in order; ValueError `FILE:LINE: what` for a line that is none or of another kind."""
    if not path.is_file():
        raise ValueError(f"no file {path}; a line of it is an object with text or ids")
    found: list[_Line] = []
    for number, line in enumerate(json_lines(path), start=1):
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


def score_file(path: Path, judge: Judge, rule: Rule, reference: Reference | None) -> tuple[Question, Answer]:
    """The question that a file's samples are, and its answer with an item a sample; ValueError for a sample too short
    to count n-grams of."""
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
    found = judged(rows, judge, rule)
    items = [
        {"name": i, "nll": float(nll), "tokens": int(tokens), "entropy": entropy(ids)}
        for i, (nll, tokens, ids) in enumerate(zip(found.nll, found.tokens, own, strict=True))
    ]
    metrics = {"gen_ppl": found.perplexity(), **by_themselves(own, SIZES)}
    protocol = judging(judge, rule, retokenise) | {"engine": EXTERNAL}
    protocol["entropy"] = "judge's ids" if kind == "text" else "generator's ids"
    digest = file_digest(path)
    pins: dict[str, Any] = {"name": "samples", "samples": digest, "distinct": SIZES}
    if reference is None:
        return asked(digest, ExternalSamples(**pins), protocol), Answer(metrics, items=items)
    settings = usual(judge, len(rows))
    metrics |= beside(judge, rule, settings, reference, rows, 0)
    task = ExternalLikeness(**pins, reference=reference.digest, mauve=settings)
    return asked(digest, task, protocol), Answer(metrics, items=items)


def usual(judge: Judge, count: int) -> tuple[Mauve, Mauve]:
    """MAUVE as its paper sets it, by either state: a tenth of the samples as clusters, at most 1,024 ids read."""
    shared = {"clusters": max(2, round(count / 10)), "length": min(1024, judge.longest)}
    fixed = {"seeds": 5, "starts": 5, "variance": 0.9, "scaling": 5.0, "mixtures": 25}
    return Mauve(state="last", **shared, **fixed), Mauve(state="mean", **shared, **fixed)


def asked(digest: str, task: ExternalSamples, protocol: dict[str, Any]) -> Question:
    """The question about samples with that digest."""
    checkpoint = {"digest": digest, "recipe": EXTERNAL, "seed": 0, "step": 0, "weights": EXTERNAL}
    put = {"sampler": None, "plan": None, "seed": 0, "limit": None}
    return Question.read(
        {"checkpoint": checkpoint, "task": parts.canonical(task), **put, "protocol": protocol}
    )


def keep(path: Path, judge: Judge, rule: Rule, reference: Reference | None, out: Path) -> Record:
    """Score a file and keep its record in OUT/raw, its items in OUT/items. What is answered there already is judged
    again, and must agree."""
    began = time.perf_counter()
    question, answer = score_file(path, judge, rule, reference)
    name = f"{EXTERNAL}:{path.stem}"
    where = {"recipe": EXTERNAL, "checkpoint": name, "suite": EXTERNAL, "task": "samples"}
    labels = {**where, "preset": None, "tokens_per_step": None}
    measured = measured_alone(judge.device, time.perf_counter() - began)
    record = make_record(question, labels, answer.data(), measured)
    store = Store(out / "raw")
    lines = [json.dumps(item, sort_keys=True) for item in answer.items or []]
    write_text(items_file(store, record), "\n".join([*lines, ""]))
    store.append(record)
    return record


def default_rule(judge: Judge) -> Rule:
    """`duo` for a folder of transformers', as published; the whole chain rule for a judge of ours."""
    if isinstance(judge, OurJudge):
        return EveryToken(length=judge.model.data.row_length())
    return rule("duo")


def command(
    path: Path, judge: str, named: str | None, real: str | None, out: Path | None, as_json: bool
) -> Sequence[str]:
    """The lines to print."""
    rule_asked = None if named is None else rule(named)  # before the slow part
    read(path)
    reference = None if real is None else load_reference(real)
    reader = load_judge(judge)
    folder = runs() / EXTERNAL if out is None else out
    record = keep(path, reader, rule_asked or default_rule(reader), reference, folder)
    if as_json:
        return [json.dumps({"records": [record], "skipped": []}, indent=1)]
    protocol, digest = record["question"]["protocol"], record["question"]["checkpoint"]["digest"]
    head = f"{path.name} ({digest[:12]}): {protocol['judge']} ({protocol['judge_digest'][:12]})"
    lines = [
        f"{head}, rule {protocol['rule']['part']}, {protocol['retokenise']}, entropy of the {protocol['entropy']}"
    ]
    wide = max(map(len, record["answer"]["metrics"]))
    for name, metric in record["answer"]["metrics"].items():
        lines.append(f"{name:<{wide}} {metric['value']:.4f} ± {metric['se']:.4f}  (n = {metric['n']})")
    return lines
