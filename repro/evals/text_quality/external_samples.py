"""Command `judge`: let a language model (the judge) score a file of samples that any program (engine) generated.

    python -m repro.evals judge FILE.jsonl --judge CKPT [--rule duo] [--out DIR] [--reference TEXTS.jsonl]

Each line is an object with `text` (tokenised by the judge; `[EOS]`, which `repro.sample` writes at the end of a
document, is replaced by the judge's own end-of-text token), `ids` (token ids of the judge), or both: then the judge
reads the text, and entropy is that of the ids, which may be the generating program's. Other fields are ignored, so the
stored per-item results of a generation task (OUT/items) are such a file. `--rule`: scoring rule of generative
perplexity (`repro.evals.text_quality.gen_ppl`). With `--reference`, a file of real texts, MAUVE is computed too; the
file must hold at least twice as many texts as there are samples.

Each metric is computed over the samples that have it: entropy and MAUVE need an id, distinct_N needs N ids, gen_ppl a
token that the rule scores. How many samples are left out of a metric is printed; blank lines are no samples.

The result is stored as a record in OUT/raw (default: runs/external/raw). The record is identified by the file's SHA-256
instead of a checkpoint's, and its protocol has `engine: external`, so that no table or figure puts it in a column of
samples that this package generated. No decoding speed is recorded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from repro.core import parts
from repro.core.errors import naming
from repro.core.files import file_digest, runs
from repro.core.parts import Part, part
from repro.core.reading import json_lines, parse_json
from repro.evals.runner import measured_alone
from repro.evals.task import Answer
from repro.evals.text_quality.gen_ppl import EveryToken, Rule, rule, score_texts
from repro.evals.text_quality.judges import CheckpointJudge, Judge, load_judge
from repro.evals.text_quality.mauve import Mauve
from repro.evals.text_quality.quality import Retokenise, diversity_metrics, judge_protocol
from repro.evals.text_quality.references import ReferenceTexts, compare_with_reference, load_reference
from repro.evals.text_quality.samples import entropy
from repro.evals.work_queue import SERIAL
from repro.results.record import Question, Record, make_record
from repro.results.shares import shown
from repro.results.store import Store, write_items

SIZES = (1, 2, 3)
"""Sizes n of the n-grams for which distinct n-grams are counted."""
EXTERNAL = "external"
END_OF_DOCUMENT = "[EOS]"
"""The end of a document in texts of `repro.data.text`; a judge without such an id reads on beyond it."""


@part
class ExternalSamples(Part):
    """The `task` in the record of samples that were read from a file of another program (engine), not generated here.
    `samples`: SHA-256 of that file; `distinct`: sizes of the n-grams counted."""

    name: str
    samples: str
    distinct: tuple[int, ...]


@part
class ExternalLikeness(ExternalSamples):
    """The `task` in the record of samples that were read from a file of another program (engine), not generated here,
    and were compared with real texts by MAUVE, with each of the settings `mauve`. `reference`: SHA-256 of the file of
    real texts."""

    reference: str
    mauve: tuple[Mauve, ...]


LINES = "give lines that are JSON objects with text or ids"
"""Remedy in messages about a file that holds no samples."""


class _Sample(msgspec.Struct, frozen=True):
    text: str | None = None
    ids: list[int] | None = None


def read_samples(path: Path) -> list[_Sample]:
    """The samples of a JSON Lines file, in order; blank lines are skipped. ValueError `FILE:LINE: ...` for an invalid
    line and for a line whose fields (`text`, `ids` or both) are not those of the first sample; ValueError for fewer
    than 2 samples."""
    found: list[_Sample] = []
    for number, line in enumerate(json_lines(path), start=1):
        if not line.strip():
            continue
        sample = parse_json(line, _Sample, f"{path}:{number}", LINES)
        if sample.text is None and sample.ids is None:
            raise ValueError(
                f"{path}:{number}: this line has neither text nor ids; each line needs one of them"
            )
        if found and _kind(sample) != _kind(found[0]):
            raise ValueError(
                f"{path}:{number}: this line has {_kind(sample)}, the first sample {_kind(found[0])}; give all lines"
                " the same fields"
            )
        found.append(sample)
    if len(found) < 2:
        raise ValueError(f"{path} holds {len(found)} samples; give two or more, for a standard error")
    return found


def _kind(sample: _Sample) -> str:
    return "ids" if sample.text is None else "text" if sample.ids is None else "text and ids"


def score_file(
    path: Path, judge: Judge, rule: Rule, reference: ReferenceTexts | None
) -> tuple[Question, Answer]:
    """Score the samples in the file `path` by `judge` under the scoring rule `rule`, and compare them with the texts of
    `reference`, if given, by MAUVE. Returns (the evaluation's settings, as the `question` of a record; its result, with
    one item per sample).

    ValueError for an invalid file, and for a metric that has a value for fewer than two samples.
    """
    samples = read_samples(path)
    kind = _kind(samples[0])
    retokenise: Retokenise = "ids" if kind == "ids" else "text"
    rows = []
    for name, sample in enumerate(samples):
        with naming(f"{path}, sample {name}"):
            read = None if sample.text is None else sample.text.replace(END_OF_DOCUMENT, judge.end or "")
            rows.append(sample.ids or [] if read is None else judge.encode(read))
    own = rows if kind == "text" else [sample.ids or [] for sample in samples]
    found = score_texts(rows, judge, rule)
    items = [
        {"name": i, "nll": float(nll), "tokens": int(tokens), "entropy": entropy(ids) if ids else None}
        for i, (nll, tokens, ids) in enumerate(zip(found.nll, found.tokens, own, strict=True))
    ]
    metrics = {"gen_ppl": found.perplexity(), **diversity_metrics(own, SIZES)}
    protocol = judge_protocol(judge, rule, retokenise) | {"engine": EXTERNAL}
    protocol["entropy"] = "judge's ids" if kind == "text" else "generator's ids"
    digest = file_digest(path)
    pins: dict[str, Any] = {"name": "samples", "samples": digest, "distinct": SIZES}
    if reference is None:
        return external_question(digest, ExternalSamples(**pins), protocol), Answer(metrics, items=items)
    read = [row for row in rows if row]
    settings = default_mauve(judge, len(read))
    metrics |= compare_with_reference(judge, rule, settings, reference, read, 0, SERIAL)
    task = ExternalLikeness(**pins, reference=reference.digest, mauve=settings)
    return external_question(digest, task, protocol), Answer(metrics, items=items)


def default_mauve(judge: Judge, count: int) -> tuple[Mauve, Mauve]:
    """Two settings of MAUVE, one with the last and one with the mean hidden state as feature. The other settings are
    the defaults of the package mauve-text: a tenth as many clusters as the `count` samples (at least 2), at most 1,024
    ids read of each text; but the value is a mean over 5 clusterings."""
    shared = {"clusters": max(2, round(count / 10)), "length": min(1024, judge.max_length)}
    fixed = {"seeds": 5, "starts": 5, "variance": 0.9, "scaling": 5.0, "mixtures": 25}
    return Mauve(state="last", **shared, **fixed), Mauve(state="mean", **shared, **fixed)


def external_question(digest: str, task: ExternalSamples, protocol: dict[str, Any]) -> Question:
    """The `question` of a record about a file of samples, that is, what was evaluated: `task`, `protocol` (field ->
    value) and, in place of a checkpoint, the file with the SHA-256 `digest`; without sampler and decoding plan."""
    checkpoint = {"digest": digest, "recipe": EXTERNAL, "seed": 0, "step": 0, "weights": EXTERNAL}
    settings = {"sampler": None, "plan": None, "seed": 0, "limit": None}
    return Question.read(
        {"checkpoint": checkpoint, "task": parts.canonical(task), **settings, "protocol": protocol}
    )


def score_and_store(
    path: Path, judge: Judge, rule: Rule, reference: ReferenceTexts | None, out: Path
) -> Record:
    """Score the samples in the file `path` by `judge` under the scoring rule `rule` and, with `reference`, by MAUVE.
    Returns the record, which is stored in `out`/raw, as are the per-item results in `out`/items. A file whose record is
    stored already is scored again, and must give the same result."""
    began = time.perf_counter()
    question, answer = score_file(path, judge, rule, reference)
    name = f"{EXTERNAL}:{path.stem}"
    where = {"recipe": EXTERNAL, "checkpoint": name, "suite": EXTERNAL, "task": "samples"}
    labels = {**where, "preset": None, "tokens_per_step": None}
    measured = measured_alone(judge.device, time.perf_counter() - began)
    record = make_record(question, labels, answer.data(), measured)
    store = Store(out / "raw")
    write_items(store.folder, record, answer.items or [])
    store.append(record)
    return record


def default_rule(judge: Judge) -> Rule:
    """Default scoring rule of generative perplexity under a judge: `duo`, as published, for a folder saved by
    transformers; `every_token` for a checkpoint of this repository."""
    if isinstance(judge, CheckpointJudge):
        return EveryToken(length=judge.model.data.row_length())
    return rule("duo")


def command(
    path: Path, judge: str, named: str | None, real: str | None, out: Path | None, as_json: bool
) -> Sequence[str]:
    """Score the samples in the file `path` and store the record; returns the lines that the command `judge` prints.
    `judge`: path or name of the judge; `named`: scoring rule (None: the judge's default); `real`: file of reference
    texts, or None; `out`: folder of results (None: runs/external); `as_json`: print the record as JSON."""
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
        " (±: 95 % intervals)"
    ]
    wide = max(map(len, record.answer.metrics))
    for name, metric in record.answer.metrics.items():
        lines.append(f"{name:<{wide}} {shown(name, metric)}  (n = {metric.n})")
    return [*lines, *left_out(path, record), f"records: {folder / 'raw'}"]


LACKS = {"gen_ppl": "no token that the rule scores", "entropy": "no id", "mauve": "no id"}
LACKS |= {f"distinct_{n}": f"fewer than {n} ids" for n in SIZES}
"""Metric -> why a sample does not count in it, as the end of a sentence "N samples, with ..."."""


def left_out(path: Path, record: Record) -> Iterator[str]:
    """One line of text for each metric of `record` that does not count all samples of the file `path`: how many are
    left out and why; before these, a line about blank lines if the file has any."""
    lines, samples = len(json_lines(path)), len(read_samples(path))
    if lines > samples:
        yield f"left out: {lines - samples} of {lines} lines, which are blank"
    for name, lack in LACKS.items():
        metric = record.answer.metrics.get(name)
        if metric is not None and metric.n < samples:
            yield f"left out of {name}: {samples - metric.n} of {samples} samples, with {lack}"
