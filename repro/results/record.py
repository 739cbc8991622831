"""Schema of a record (one evaluation, its result and how it was measured), its hashes, and the agreement of two
results.

    record = make_record(Question.read(data), labels, answer, measurements)
    agree(record, again, path)

The *question* of a record is the evaluation: everything that may change the result. Its `id` is the SHA-256 of its
canonical JSON (sorted keys, no spaces), its `key` the same without the checkpoint's digest (same recipe, train seed and
step), its `cell` the same also without the seeds: a row of a table is one cell, that is one evaluation under all its
seeds. The *answer* is the result. Within a numerics class (device, dtype, torch, attention kernel, threads) two results
of an evaluation agree: integers, strings and tokens are equal, floats to 1e-5 relative. *Labels* are the names that
tables print; no hash of the question depends on them. A *component* (part) is a registered class with fixed settings,
as a task, sampler or plan; its canonical form is a dictionary of its name (`part`), `version` and settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from repro.core.parts import sha256
from repro.results.difference import difference

Json = dict[str, Any]
MARK = re.compile(r" \((step \d+ of \d+|raw weights)(, raw weights)?\)$")
HASHES = ("id", "key", "cell")
Number = int | float
"""A number in a record. Integers are not converted to floats, so that the canonical text of a record stays that of the
line from which it was read."""


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of the structures that make up a record, such as `Question` and `Answer`. Reading a structure from
    JSON raises ValueError, with the name of the field, if a field is unknown, missing or of the wrong type."""

    def data(self) -> Json:
        """The structure as plain JSON (a dictionary), without optional fields that are not set."""
        return msgspec.to_builtins(self)


class Checkpoint(_Strict, frozen=True, kw_only=True):
    """The evaluated network: SHA-256 of its files (`digest`) and of its recipe (`recipe`), train `seed`, training
    `step`, and which `weights` were read: `raw`, or `ema`, their moving average. `weights` is `exact` for a denoiser
    that is not trained but computed from the known probabilities of a synthetic language (oracle), and `external` where
    the texts come from a server, or from a file of another program, whose SHA-256 is then the digest."""

    digest: str
    recipe: str
    seed: int
    step: int
    weights: Literal["raw", "ema", "exact", "external"]


class Question(_Strict, frozen=True, kw_only=True):
    """An evaluation: everything that may change its result. `task`, `sampler` and decoding `plan` (lengths, steps,
    cache) are canonical forms of components (see the module), `sampler` and `plan` None where nothing is decoded;
    `seed`: that of sampling; `limit`: number of items evaluated (None: all); `protocol`: name -> value of what the
    result depends on besides (precision, tokenizer, what is counted). ValueError unless `task` has a name and a
    version."""

    checkpoint: Checkpoint
    task: dict[str, Any]
    sampler: dict[str, Any] | None
    plan: dict[str, Any] | None
    seed: int
    limit: int | None
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.task.get("name"), str) or type(self.task.get("version")) is not int:
            raise ValueError(f"task={self.task} needs a 'name' (string) and a 'version' (integer)")

    @classmethod
    def read(cls, data: Json) -> Question:
        """The evaluation that plain JSON describes; ValueError names an invalid field."""
        return _convert(data, cls)

    @property
    def id(self) -> str:
        """SHA-256 of the canonical JSON of the whole question."""
        return sha256(text(self))

    @property
    def key(self) -> str:
        """SHA-256 of the question without the digest of the checkpoint, which retraining may change."""
        return sha256(text(_without_digest(self.data())))

    @property
    def subject(self) -> Json:
        """The question, as JSON, without the checkpoint's digest and the seeds: equal for all seeds of an
        evaluation."""
        return _without_seeds(_without_digest(self.data()))

    @property
    def cell(self) -> str:
        """SHA-256 of the question without the checkpoint's digest and the seeds (`subject`): equal for all seeds of an
        evaluation."""
        return sha256(text(self.subject))


class Labels(_Strict, frozen=True, kw_only=True):
    """Names that tables print for a record. `preset` (of a sampler) and `tokens_per_step` are null where no sampler
    ran; `note`: a caveat about the record; `unfinished`: `step 39 of 900` for a network whose training stopped before
    the last step of its recipe; `weights`: `raw weights` where a recipe averages its weights and the raw ones were
    evaluated."""

    recipe: str
    checkpoint: str
    suite: str
    task: str
    preset: str | None
    tokens_per_step: str | None
    note: str | UnsetType = UNSET
    unfinished: str | UnsetType = UNSET
    weights: str | UnsetType = UNSET

    def marked(self, name: str) -> str:
        """`name`, of checkpoint or recipe, as tables print it: with `unfinished` and `weights`, where these are given,
        in brackets, such as `mdlm@nano (step 39 of 900, raw weights)`."""
        marks = [mark for mark in (self.unfinished, self.weights) if mark]
        return f"{name} ({', '.join(marks)})" if marks else name


def unmarked(name: str) -> str:
    """Name of a checkpoint or recipe without the marks that `Labels.marked` appends: `mdlm@nano (step 39 of 900)` ->
    `mdlm@nano`."""
    return MARK.sub("", name)


class Metric(_Strict, frozen=True, kw_only=True):
    """Value of a metric, its standard error (None: unknown) and the number `n` of rows from which it is computed."""

    value: Number
    se: Number | None
    n: int


class Counts(_Strict, frozen=True, kw_only=True):
    """Sums over the `rows` (texts) decoded: `committed`, positions that the sampler filled with a token, each counted
    once; `useful` tokens, which precede the first end id or stop string; `forwards`, forward passes counted per row, of
    which `further` are beyond the first of a step (guidance, correction) and `refreshes` recompute the KV cache;
    `token_forwards`, positions that the network computed in all forward passes, without padding."""

    rows: int
    committed: int
    useful: int
    forwards: int
    further: int
    refreshes: int
    token_forwards: int


class Answer(_Strict, frozen=True, kw_only=True):
    """Result of an evaluation: `metrics` by name; `nfe`, mean number of forward passes per row; `tokens_per_nfe`,
    tokens decoded per forward pass; SHA-256 of the `samples`; lists of numbers (`curve`) by name; `counts` of the
    decoding; `outcomes`, one digit per document in the task's order, 1 if the model answered it correctly."""

    metrics: dict[str, Metric]
    nfe: Number | None
    tokens_per_nfe: Number | None
    samples: str | None
    curve: dict[str, list[Number]] | UnsetType = UNSET
    counts: Counts | UnsetType = UNSET
    outcomes: str | UnsetType = UNSET


class Numerics(_Strict, frozen=True, kw_only=True):
    """Numerics class: type of device, dtype, version of torch, attention kernel and number of threads. Results that are
    computed with equal values of these fields are equal up to rounding."""

    device: str
    dtype: str
    torch: str
    attention: str
    threads: int


class Latency(_Strict, frozen=True, kw_only=True):
    """Time to decode one text at a time (batch size 1). A pass decodes all texts; the time of a text is its median over
    passes, in seconds. `median` and 95th percentile `p95` are over texts; `passes`: total seconds of each pass;
    `counts`: tokens and forward passes of one pass."""

    median: Number
    p95: Number
    passes: list[Number]
    counts: Counts


class Throughput(_Strict, frozen=True, kw_only=True):
    """Time to decode all texts in batches of `batch` rows. `passes`: total seconds of each pass over the texts;
    `counts`: tokens and forward passes of one pass."""

    batch: int
    passes: list[Number]
    counts: Counts


class Speed(_Strict, frozen=True, kw_only=True):
    """Measured decoding speed of an `engine` (program that decodes) on a `device`, scoring excluded and without the
    first `warmup` batches. `clock`: seconds are CPU seconds of the process, or wall-clock seconds with the device
    synchronised."""

    engine: str
    device: str
    clock: Literal["process", "wall"]
    warmup: int
    latency: Latency
    throughput: Throughput


class Measurements(_Strict, frozen=True, kw_only=True):
    """The fields of a record that depend on the machine and the day, and not on the evaluation. `seconds`: wall-clock
    time summed over all processes that shared the work; `commit`: of this repository; `created`: date and time;
    `batch`: largest number of rows in one forward, where it was set."""

    numerics: Numerics
    seconds: Number
    tokens_per_second: Number | None
    versions: dict[str, str]
    commit: str | None
    created: str
    speed: Speed | UnsetType = UNSET
    batch: int | UnsetType = UNSET


class Record(_Strict, frozen=True, kw_only=True):
    """One line of a record file: an evaluation (`question`) with its hashes `id`, `key` and `cell` (see the module),
    labels, the result (`answer`) and how it was measured. `sha256`: SHA-256 of the canonical JSON of all other
    fields."""

    id: str
    key: str
    cell: str
    question: Question
    labels: Labels
    answer: Answer
    measurements: Measurements
    sha256: str


def text(data: Any) -> str:
    """Canonical JSON (sorted keys, no spaces) of plain data, of a `Record` or of one of its fields, such as a
    `Question`; ValueError for NaN and infinity."""
    plain = msgspec.to_builtins  # called for records; numpy floats, which it refuses, are floats to json
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain)


def _without_digest(question: Json) -> Json:
    """Copy of a question without the digest of its checkpoint."""
    return {**question, "checkpoint": _less(question["checkpoint"], "digest")}


def _without_seeds(question: Json) -> Json:
    """Copy of the settings of an evaluation (`question`, JSON) without the train seed and the seed of sampling: equal
    for evaluations that are repetitions of each other."""
    return {**_less(question, "seed"), "checkpoint": _less(question["checkpoint"], "seed")}


def _less(data: Json, left_out: str) -> Json:
    return {name: value for name, value in data.items() if name != left_out}


def _convert(data: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "'").replace("$.", "")) from None


def make_record(question: Question, labels: Json, answer: Json, measurements: Json) -> Record:
    """Record of an evaluation with the settings `question`, from plain JSON of its labels, its result (`answer`) and
    its measurements; the record's hashes of these are computed. ValueError names a field that is missing, unknown,
    mistyped or not finite."""
    for name, metric in answer.get("metrics", {}).items():
        if not math.isfinite(metric.get("value", 0.0)):
            raise ValueError(
                f"metric {name!r} of {labels['checkpoint']!r} is {metric['value']}, not a finite number; "
                "check whether the training of this checkpoint diverged"
            )
    hashes = {name: getattr(question, name) for name in HASHES}
    body = {"question": question.data(), "labels": labels, "answer": answer, "measurements": measurements}
    body = json.loads(text({**hashes, **body}))
    return read_record({**body, "sha256": sha256(text(body))})


def read_record(data: Any, line: bytes = b"") -> Record:
    """Record that plain JSON (`data`) describes; ValueError unless `data` fits the schema and all its hashes are
    correct. `line`: the line of a file from which `data` was parsed (empty: none), with which hashing is faster."""
    record: Record = _convert(data, Record)
    # a line is canonical as a rule, its hash at the end: then nothing need be written anew, a quarter of the time
    body = line.removesuffix(f',"sha256":"{record.sha256}"}}'.encode()) + b"}"
    if hashlib.sha256(body).hexdigest() != record.sha256 and _body_hash(data) != record.sha256:
        raise ValueError(
            "its sha256 is not that of its content: the record was changed after it was written; restore the record"
        )
    question = data["question"]
    known = _without_digest(question)
    parts = {"id": question, "key": known, "cell": _without_seeds(known)}
    for name in HASHES:
        if sha256(text(parts[name])) != getattr(record, name):
            raise ValueError(
                f"its field {name!r} is not the hash of its field 'question': the record was changed after it was"
                " written; restore the record"
            )
    return record


def _body_hash(data: Json) -> str:
    """SHA-256 of the canonical JSON of a record without the field `sha256`."""
    return sha256(text(_less(data, "sha256")))


def agree(first: Record, second: Record, place: Path) -> None:
    """Raise ValueError, with the metric and both values, unless the results of two records of one evaluation are equal
    up to rounding; `place`: file or folder of the second, for the message."""
    found = difference(first.answer.data(), second.answer.data())
    if found is not None:
        raise ValueError(
            f"{place}: two results of evaluation {first.id[:12]} ({first.labels.checkpoint}, {first.labels.task}) in "
            f"one numerics class (device, dtype, torch, attention kernel, threads) differ: {found}; remove the stale "
            "record, or write to another folder (if you changed code that computes it, raise the `version` of its "
            "component)"
        )
