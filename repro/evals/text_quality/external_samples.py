"""Score a file of samples from any engine.

    python -m repro.evals judge FILE.jsonl --judge CKPT [--rule duo] [--out DIR] [--reference TEXTS.jsonl]

Each line is an object with `text` (tokenised by the judge), `ids` (the judge's own), or both: then the judge reads the
text, and entropy is that of the ids. Other fields are ignored, so the stored items of a generation task (OUT/items) are
such a file. With a reference, a file of at least twice as many real texts, MAUVE is computed too.

The answer is stored as a record in OUT/raw (default: runs/external/raw). Its question has the file's SHA-256 in place
of a checkpoint's, and its protocol has `engine: external`, so no table or figure puts it in a column of samples that
were decoded here. It has no speed.
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
from repro.evals.text_quality.gen_ppl import EveryToken, Rule, rule, score_texts
from repro.evals.text_quality.judges import CheckpointJudge, Judge, load_judge
from repro.evals.text_quality.mauve import Mauve
from repro.evals.text_quality.quality import Retokenise, diversity_metrics, judge_protocol
from repro.evals.text_quality.references import ReferenceTexts, compare_with_reference, load_reference
from repro.evals.text_quality.samples import entropy
from repro.results.record import Question, Record, make_record
from repro.results.store import Store

SIZES = (1, 2, 3)
"""Sizes of the n-grams that are counted."""
EXTERNAL = "external"


@part
class ExternalSamples(Part):
    """The task of a record about another engine's samples; `samples` is the SHA-256 of their file."""

    name: str
    samples: str
    distinct: tuple[int, ...]


@part
class ExternalLikeness(ExternalSamples):
    """The same with MAUVE against the texts of a file with SHA-256 `reference`."""

    reference: str
    mauve: tuple[Mauve, ...]


class _Sample(msgspec.Struct, frozen=True):
    text: str | None = None
    ids: list[int] | None = None


def read_samples(path: Path) -> list[_Sample]:
    """The samples of a file, in order; ValueError `FILE:LINE: ...` for an invalid line, or one with other fields."""
    if not path.is_file():
        raise ValueError(f"no file {path}; give one whose lines are objects with text or ids")
    found: list[_Sample] = []
    for number, line in enumerate(json_lines(path), start=1):
        try:
            sample = msgspec.json.decode(line, type=_Sample)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        if sample.text is None and sample.ids is None:
            raise ValueError(f"{path}:{number}: neither text nor ids")
        if found and _kind(sample) != _kind(found[0]):
            raise ValueError(
                f"{path}:{number}: {_kind(sample)}, and line 1 has {_kind(found[0])}; use one kind of lines"
            )
        found.append(sample)
    if len(found) < 2:
        raise ValueError(f"{path} holds {len(found)} samples; a standard error needs two or more")
    return found


def _kind(sample: _Sample) -> str:
    return "ids" if sample.text is None else "text" if sample.ids is None else "text and ids"


def score_file(
    path: Path, judge: Judge, rule: Rule, reference: ReferenceTexts | None
) -> tuple[Question, Answer]:
    """The question and the answer, with one item per sample, of a file of samples.

    ValueError for an invalid file, and for a sample too short for the n-grams.
    """
    samples = read_samples(path)
    kind = _kind(samples[0])
    retokenise: Retokenise = "ids" if kind == "ids" else "text"
    rows = [judge.encode(s.text) if s.text is not None else s.ids or [] for s in samples]
    own = rows if kind == "text" else [sample.ids or [] for sample in samples]
    short = next((i for i, row in enumerate(own) if len(row) < max(SIZES)), None)
    if short is not None:
        raise ValueError(
            f"{path}:{short + 1}: a sample of {len(own[short])} ids; leave out samples of fewer than {max(SIZES)}"
        )
    found = score_texts(rows, judge, rule)
    items = [
        {"name": i, "nll": float(nll), "tokens": int(tokens), "entropy": entropy(ids)}
        for i, (nll, tokens, ids) in enumerate(zip(found.nll, found.tokens, own, strict=True))
    ]
    metrics = {"gen_ppl": found.perplexity(), **diversity_metrics(own, SIZES)}
    protocol = judge_protocol(judge, rule, retokenise) | {"engine": EXTERNAL}
    protocol["entropy"] = "judge's ids" if kind == "text" else "generator's ids"
    digest = file_digest(path)
    pins: dict[str, Any] = {"name": "samples", "samples": digest, "distinct": SIZES}
    if reference is None:
        return external_question(digest, ExternalSamples(**pins), protocol), Answer(metrics, items=items)
    settings = default_mauve(judge, len(rows))
    metrics |= compare_with_reference(judge, rule, settings, reference, rows, 0)
    task = ExternalLikeness(**pins, reference=reference.digest, mauve=settings)
    return external_question(digest, task, protocol), Answer(metrics, items=items)


def default_mauve(judge: Judge, count: int) -> tuple[Mauve, Mauve]:
    """MAUVE with mauve-text's defaults for either state: a tenth of the samples as clusters, 1,024 ids at most."""
    shared = {"clusters": max(2, round(count / 10)), "length": min(1024, judge.max_length)}
    fixed = {"seeds": 5, "starts": 5, "variance": 0.9, "scaling": 5.0, "mixtures": 25}
    return Mauve(state="last", **shared, **fixed), Mauve(state="mean", **shared, **fixed)


def external_question(digest: str, task: ExternalSamples, protocol: dict[str, Any]) -> Question:
    """The question about the file of samples with that SHA-256."""
    checkpoint = {"digest": digest, "recipe": EXTERNAL, "seed": 0, "step": 0, "weights": EXTERNAL}
    settings = {"sampler": None, "plan": None, "seed": 0, "limit": None}
    return Question.read(
        {"checkpoint": checkpoint, "task": parts.canonical(task), **settings, "protocol": protocol}
    )


def score_and_store(
    path: Path, judge: Judge, rule: Rule, reference: ReferenceTexts | None, out: Path
) -> Record:
    """Score a file and store its record in OUT/raw and its items in OUT/items. A file whose record is there already is
    scored again, and must give the same answer."""
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
    """`duo` for a folder of transformers, as published; `every_token` for a checkpoint of this repository."""
    if isinstance(judge, CheckpointJudge):
        return EveryToken(length=judge.model.data.row_length())
    return rule("duo")


def command(
    path: Path, judge: str, named: str | None, real: str | None, out: Path | None, as_json: bool
) -> Sequence[str]:
    """Score and store a file of samples; returns the lines to print."""
    rule_asked = None if named is None else rule(named)  # before the slow part
    read_samples(path)
    reference = None if real is None else load_reference(real)
    reader = load_judge(judge)
    folder = runs() / EXTERNAL if out is None else out
    record = score_and_store(path, reader, rule_asked or default_rule(reader), reference, folder)
    if as_json:
        return [json.dumps({"records": [record.data()], "skipped": []}, indent=1)]
    protocol, digest = record.question.protocol, record.question.checkpoint.digest
    head = f"{path.name} ({digest[:12]}): {protocol['judge']} ({protocol['judge_digest'][:12]})"
    lines = [
        f"{head}, rule {protocol['rule']['part']}, {protocol['retokenise']}, entropy of the {protocol['entropy']}"
    ]
    wide = max(map(len, record.answer.metrics))
    for name, metric in record.answer.metrics.items():
        lines.append(f"{name:<{wide}} {metric.value:.4f} ± {metric.se:.4f}  (n = {metric.n})")
    return lines
