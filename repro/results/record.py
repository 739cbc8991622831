"""A record: one question, its answer and how it was measured; the schema, the hashes, the agreement of two answers.

    record = make_record(Question.read(data), labels, answer, measurements)
    agree(record, again)

A *question* contains everything that may change the answer. Its `id` is the SHA-256 of its canonical JSON (sorted
keys, no spaces), its `key` the same without the checkpoint's digest (same recipe, train seed and step), its `cell`
the same also without the seeds: tables group by cells. Within a numerics class (device, dtype, torch, attention
kernel, threads) two *answers* to a question agree: integers, strings and tokens are equal, floats to 1e-5 relative.
*Labels* are what tables print; no hash of the question depends on them.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from repro.core.parts import sha256
from repro.results.difference import difference, without

Json = dict[str, Any]
HASHES = ("id", "key", "cell")
Number = int | float
"""Integers in a record are not converted to floats, so that its canonical text stays that of the line it was read
from."""


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Strict conversion: an unknown, missing or mistyped field is an error that names its path."""

    def data(self) -> Json:
        """Plain JSON, without optional fields that are not set."""
        return msgspec.to_builtins(self)


class Checkpoint(_Strict, frozen=True, kw_only=True):
    """A network: digests of its files and of its recipe, train seed, trained step, which weights (`exact`: an oracle;
    `external`: samples of another engine, whose digest replaces that of a network)."""

    digest: str
    recipe: str
    seed: int
    step: int
    weights: Literal["raw", "ema", "exact", "external"]


class Question(_Strict, frozen=True, kw_only=True):
    """Everything that may change the answer; `sampler` and `plan` are canonical forms of parts. ValueError unless
    `task` has a name and a version."""

    checkpoint: Checkpoint
    task: dict[str, Any]
    sampler: dict[str, Any] | None
    plan: dict[str, Any] | None
    seed: int
    limit: int | None
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.task.get("name"), str) or type(self.task.get("version")) is not int:
            raise ValueError("task needs a 'name' (string) and a 'version' (integer)")

    @classmethod
    def read(cls, data: Json) -> Question:
        """From plain JSON; ValueError names an invalid field."""
        return _convert(data, cls)

    @property
    def id(self) -> str:
        """SHA-256 of the whole question."""
        return sha256(text(self))

    @property
    def key(self) -> str:
        """SHA-256 of the question without the digest of the weights, which retraining may change."""
        return sha256(text(without(self.data(), "checkpoint.digest")))

    @property
    def subject(self) -> Json:
        """The question without the digest and seeds, shared by all seeds."""
        return without(self.data(), "checkpoint.digest", "checkpoint.seed", "seed")

    @property
    def cell(self) -> str:
        """SHA-256 of the subject."""
        return sha256(text(self.subject))


class Labels(_Strict, frozen=True, kw_only=True):
    """What tables print. `preset` and `tokens_per_step` are null where no sampler ran; `note`: a caveat."""

    recipe: str
    checkpoint: str
    suite: str
    task: str
    preset: str | None
    tokens_per_step: str | None
    note: str | UnsetType = UNSET


class Metric(_Strict, frozen=True, kw_only=True):
    """A value, its standard error (None: unknown) and the number of rows that it is computed from."""

    value: Number
    se: Number | None
    n: int


class Counts(_Strict, frozen=True, kw_only=True):
    """Sums over the decoded rows: `committed` positions, `useful` tokens (those before the first end id or stop
    string), `forwards` of single rows, among them `further` ones and cache `refreshes`, and `token_forwards`."""

    rows: int
    committed: int
    useful: int
    forwards: int
    further: int
    refreshes: int
    token_forwards: int


class Answer(_Strict, frozen=True, kw_only=True):
    """Metrics by name; mean forwards of a row (`nfe`), realised tokens per forward, digest of the samples, curves by
    name, `counts` of the decoding; `outcomes`: one digit per document in the task's order, 1 if it was answered
    correctly."""

    metrics: dict[str, Metric]
    nfe: Number | None
    tokens_per_nfe: Number | None
    samples: str | None
    curve: dict[str, list[Number]] | UnsetType = UNSET
    counts: Counts | UnsetType = UNSET
    outcomes: str | UnsetType = UNSET


class Numerics(_Strict, frozen=True, kw_only=True):
    """The numerics class: within one, answers are equal up to rounding."""

    device: str
    dtype: str
    torch: str
    attention: str
    threads: int


class Latency(_Strict, frozen=True, kw_only=True):
    """One text at a time. The time of a text is its median over passes, in seconds: `median` and `p95` of it over
    texts; `passes`: total seconds of each pass; `counts` of one pass."""

    median: Number
    p95: Number
    passes: list[Number]
    counts: Counts


class Throughput(_Strict, frozen=True, kw_only=True):
    """Batches of `batch` rows: total seconds of each pass, and the counts of one pass."""

    batch: int
    passes: list[Number]
    counts: Counts


class Speed(_Strict, frozen=True, kw_only=True):
    """Time of decoding alone, without the first `warmup` batches; `clock`: CPU seconds of the process, or wall seconds
    with the device synchronised."""

    engine: str
    device: str
    clock: Literal["process", "wall"]
    warmup: int
    latency: Latency
    throughput: Throughput


class Measurements(_Strict, frozen=True, kw_only=True):
    """What depends on the machine and the day; `seconds`: wall-clock time summed over all processes that shared the
    work."""

    numerics: Numerics
    seconds: Number
    tokens_per_second: Number | None
    versions: dict[str, str]
    commit: str | None
    created: str
    speed: Speed | UnsetType = UNSET


class Record(_Strict, frozen=True, kw_only=True):
    """One line of a record file; `sha256` is that of the canonical text of all other fields."""

    id: str
    key: str
    cell: str
    question: Question
    labels: Labels
    answer: Answer
    measurements: Measurements
    sha256: str


def text(data: Any) -> str:
    """Canonical JSON of plain data, of a record or of a field of it; ValueError for NaN and infinity."""
    plain = msgspec.to_builtins  # called for records; numpy floats, which it refuses, are floats to json
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain)


def _convert(data: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "'").replace("$.", "")) from None


def make_record(question: Question, labels: Json, answer: Json, measurements: Json) -> Record:
    """A record from its parts; ValueError names a field that is missing, unknown, mistyped or not finite."""
    for name, metric in answer.get("metrics", {}).items():
        if not math.isfinite(metric.get("value", 0.0)):
            raise ValueError(f"metric {name!r} of {labels['checkpoint']!r} is {metric['value']}, not finite")
    hashes = {name: getattr(question, name) for name in HASHES}
    body = {"question": question.data(), "labels": labels, "answer": answer, "measurements": measurements}
    body = json.loads(text({**hashes, **body}))
    return read_record({**body, "sha256": sha256(text(body))})


def read_record(data: Any) -> Record:
    """A record from plain JSON; ValueError unless it fits the schema and all its hashes are correct."""
    record: Record = _convert(data, Record)
    if sha256(text({name: value for name, value in data.items() if name != "sha256"})) != record.sha256:
        raise ValueError("sha256 does not match: the line was changed after it was written")
    for name in HASHES:
        if getattr(record.question, name) != getattr(record, name):
            raise ValueError(f"{name!r} is not the hash of this question")
    return record


def agree(first: Record, second: Record) -> None:
    """ValueError with the metric and both values unless two answers to one question are equal up to rounding."""
    found = difference(first.answer.data(), second.answer.data())
    if found is not None:
        raise ValueError(
            f"two answers to question {first.id[:12]} ({first.labels.checkpoint}, {first.labels.task}) in one "
            f"numerics class: {found}; raise the version of the part that changed, or remove the stale record"
        )
