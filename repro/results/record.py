"""A record: one question, its answer and how it was measured; the schema, the hashes, when two answers agree.

    record = make_record(Question.read(data), labels, answer, measurements)
    agree(record, again)

A *question* names everything that may change the answer. `id` is the SHA-256 of its canonical JSON (sorted
keys, no spaces), `key` the same without the checkpoint's digest (same recipe, seed and step), `cell` without
the seeds as well: tables and intervals group by it. An *answer* is the same wherever the question is asked in
one numerics class (device, dtype, torch, attention kernel, threads): integers, strings and tokens equal,
floats to 1e-5 relative. *Labels* are what tables print; they enter no hash of the question.
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
"""In records: an integer stays one, so that the canonical text of a record that was read is that of its line."""


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read strictly: an unknown or missing field, or one of another type, is an error that names its path."""

    def data(self) -> Json:
        """Plain JSON, without optional fields that are not set."""
        return msgspec.to_builtins(self)


class Checkpoint(_Strict, frozen=True, kw_only=True):
    """Which network: digest of its files and of its recipe, train seed, trained step, which weights (`exact`: an
    oracle; `external`: samples of another engine, their digest in place of a network's)."""

    digest: str
    recipe: str
    seed: int
    step: int
    weights: Literal["raw", "ema", "exact", "external"]


class Question(_Strict, frozen=True, kw_only=True):
    """Everything that may change the answer; `sampler` and `plan` are canonical forms of parts."""

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
        """From plain JSON, strictly; ValueError names the field."""
        return _convert(data, cls)

    @property
    def id(self) -> str:
        return sha256(text(self))

    @property
    def key(self) -> str:
        """Same recipe, train seed and step: answers of two keys are compared statistically."""
        return sha256(text(without(self.data(), "checkpoint.digest")))

    @property
    def subject(self) -> Json:
        """The question that all seeds share."""
        return without(self.data(), "checkpoint.digest", "checkpoint.seed", "seed")

    @property
    def cell(self) -> str:
        return sha256(text(self.subject))


class Labels(_Strict, frozen=True, kw_only=True):
    """What is printed; `preset` and `tokens_per_step` are null where no sampler ran, `note` a caveat."""

    recipe: str
    checkpoint: str
    suite: str
    task: str
    preset: str | None
    tokens_per_step: str | None
    note: str | UnsetType = UNSET


class Metric(_Strict, frozen=True, kw_only=True):
    """A value, its standard error (None: unknown) and the number of rows behind it."""

    value: Number
    se: Number | None
    n: int


class Counts(_Strict, frozen=True, kw_only=True):
    """Sums over the rows of a decode: `committed` positions, `useful` tokens (kept in the text: before the first end id
    or stop string), `forwards` of single rows, `further` and `refreshes` among them, `token_forwards`."""

    rows: int
    committed: int
    useful: int
    forwards: int
    further: int
    refreshes: int
    token_forwards: int


class Answer(_Strict, frozen=True, kw_only=True):
    """Metrics by name; mean forwards a row, realised tokens a forward, digest of samples, curves by name.

    `counts`: what its decoding summed up to; `outcomes`: a digit a document in the task's order, 1 where it was right.
    """

    metrics: dict[str, Metric]
    nfe: Number | None
    tokens_per_nfe: Number | None
    samples: str | None
    curve: dict[str, list[Number]] | UnsetType = UNSET
    counts: Counts | UnsetType = UNSET
    outcomes: str | UnsetType = UNSET


class Numerics(_Strict, frozen=True, kw_only=True):
    """The numerics class: inside one, answers are equal up to rounding."""

    device: str
    dtype: str
    torch: str
    attention: str
    threads: int


class Latency(_Strict, frozen=True, kw_only=True):
    """One text at a time: seconds of each in the median of all passes (`median` and `p95` over texts), the sum of each
    pass (`passes`), and what one pass summed up to."""

    median: Number
    p95: Number
    passes: list[Number]
    counts: Counts


class Throughput(_Strict, frozen=True, kw_only=True):
    """Batches of `batch` rows: seconds of each pass over some, and what one pass summed up to."""

    batch: int
    passes: list[Number]
    counts: Counts


class Speed(_Strict, frozen=True, kw_only=True):
    """Decoding alone, timed after `warmup` batches that no number holds; `clock`: CPU seconds of the process, or wall
    seconds with the device's queue awaited."""

    engine: str
    device: str
    clock: Literal["process", "wall"]
    warmup: int
    latency: Latency
    throughput: Throughput


class Measurements(_Strict, frozen=True, kw_only=True):
    """What depends on the machine and the day; seconds of wall clock, those of all pieces whoever did them."""

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
    """Canonical JSON of plain data or of a part of a record; NaN and infinity are refused."""
    return json.dumps(msgspec.to_builtins(data), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _convert(data: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "'").replace("$.", "")) from None


def make_record(question: Question, labels: Json, answer: Json, measurements: Json) -> Record:
    """A whole record; ValueError names a field missing, unknown, mistyped or not finite."""
    for name, metric in answer.get("metrics", {}).items():
        if not math.isfinite(metric.get("value", 0.0)):
            raise ValueError(f"metric {name!r} of {labels['checkpoint']!r} is {metric['value']}, not finite")
    hashes = {name: getattr(question, name) for name in HASHES}
    body = {"question": question.data(), "labels": labels, "answer": answer, "measurements": measurements}
    body = json.loads(text({**hashes, **body}))
    return read_record({**body, "sha256": sha256(text(body))})


def read_record(data: Any) -> Record:
    """From plain JSON; ValueError unless it fits the schema, names its own question and carries its own hash."""
    record: Record = _convert(data, Record)
    if sha256(text({name: value for name, value in data.items() if name != "sha256"})) != record.sha256:
        raise ValueError("sha256 does not match: the line was changed after it was written")
    for name in HASHES:
        if getattr(record.question, name) != getattr(record, name):
            raise ValueError(f"{name!r} is not the hash of this question")
    return record


def agree(first: Record, second: Record) -> None:
    """ValueError naming the metric and both values unless two answers to one question are equal."""
    found = difference(first.answer.data(), second.answer.data())
    if found is not None:
        raise ValueError(
            f"two answers to question {first.id[:12]} ({first.labels.checkpoint}, {first.labels.task}) in one "
            f"numerics class: {found}; raise the version of the part that changed, or remove the stale record"
        )
