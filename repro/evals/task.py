"""What a task is: a part that evaluates one thing of a model, with or without a sampler, and returns an answer.

A suite (`evals/suites/NAME.toml`) lists tasks in the canonical form of parts; `repro.evals.request` combines those
that generate with presets and tokens per step.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from repro.core.parts import Part, part
from repro.evals.work_queue import SERIAL, WorkQueue
from repro.evals.workload import Workload
from repro.model import Model
from repro.results.record import Counts, Speed
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """Settings of a question: sampler and plan (None if nothing is generated), seed, and a limit on its items."""

    sampler: Sampler | None
    plan: Plan | None
    seed: int
    limit: int | None


@dataclass(frozen=True)
class Answer:
    """Metrics, name -> (value, standard error or None, n); cost of generation; digest of samples; curves by name."""

    metrics: dict[str, tuple[float, float | None, int]]
    nfe: float | None = None
    tokens_per_nfe: float | None = None
    tokens: int | None = None
    """Generated tokens; a record's `tokens_per_second` divides them by the question's seconds, a judge's included."""
    samples: str | None = None
    curve: dict[str, list[float]] | None = None
    items: list[dict[str, Any]] | None = None
    """One JSON object an item, stored beside the records; the record itself holds sums."""
    counts: Counts | None = None
    outcomes: str | None = None
    speed: Speed | None = None
    """Timings; a record holds them with its measurements, not in its answer."""

    def data(self) -> dict[str, Any]:
        """The answer as a record holds it."""
        metrics = {
            name: {"value": v, "se": None if se is None or math.isnan(se) else se, "n": n}
            for name, (v, se, n) in self.metrics.items()
        }
        found: dict[str, Any] = {
            "metrics": metrics,
            "nfe": self.nfe,
            "tokens_per_nfe": self.tokens_per_nfe,
            "samples": self.samples,
        }
        if self.curve is not None:
            found["curve"] = self.curve
        if self.counts is not None:
            found["counts"] = msgspec.to_builtins(self.counts)
        if self.outcomes is not None:
            found["outcomes"] = self.outcomes
        return found


@part
class Task(Part):
    """Kind: an evaluation of a model; `name` is what tables print. A task implements `answer` or `shared`."""

    name: str

    generates: ClassVar[bool]
    """Whether the task needs a sampler and a plan."""

    def gen_length(self, model: Model) -> int:
        """Tokens that a generating task generates; ValueError for a task that generates nothing."""
        raise ValueError(f"task {self.name!r} generates nothing")

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        """The estimated cost; None if unknown."""
        return None

    def gives(self, metric: str) -> bool:
        """Whether an answer may hold this metric, as far as that is known beforehand."""
        return True

    def timed_on(self, model: Model) -> str | None:
        """The device on which a stored answer must have been timed to be reused; None if nothing is timed."""
        return None

    def skip(self, model: Model) -> str | None:
        """Why the task does not apply to this model, or None."""
        return None

    def resolved(self) -> Task:
        """The task with every pin filled in that only its source knows; ConnectionError if that cannot be reached."""
        return self

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What else the answer depends on, by name: precision, counting rules."""

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        """Fields of the task that sampler and plan override: field -> [the task's, used]; part of the protocol."""
        return {}

    def answer(self, model: Model, ask: Ask) -> Answer:
        """The answer, computed by this process alone."""
        return self.shared(model, ask, SERIAL)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        """The answer, its chunks shared with other processes through `work` (default: one process computes it all).

        Raises Busy while other processes compute the rest.
        """
        work.join()
        return self.answer(model, ask)


def mean_metric(values: Tensor) -> tuple[float, float | None, int]:
    """Mean of values [n], its standard error (None for one value), and n."""
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return values.mean().item(), error, len(values)


def samples_digest(rows: Iterable[Tensor]) -> str:
    """SHA-256 of generated ids, so that two runs can be compared token by token."""
    found = hashlib.sha256()
    for row in rows:
        found.update(row.cpu().to(dtype=row.dtype).numpy().astype("<i8").tobytes())
    return found.hexdigest()
