"""What a task is: a part that asks a model one thing, with or without a sampler, and returns an answer.

A suite (`evals/suites/NAME.toml`) lists tasks in the canonical form of parts; `repro.evals.request` crosses those that
generate with presets and tokens per step.
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
from repro.evals.work_queue import ALONE, Work
from repro.evals.workload import Workload
from repro.model import Model
from repro.results.record import Counts, Speed
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """How a task is put: sampler and plan (None where nothing is generated), seed, and a limit on its items."""

    sampler: Sampler | None
    plan: Plan | None
    seed: int
    limit: int | None


@dataclass(frozen=True)
class Answer:
    """Metrics name -> (value, standard error or None, n); cost of generation; digest of samples; curves by name."""

    metrics: dict[str, tuple[float, float | None, int]]
    nfe: float | None = None
    tokens_per_nfe: float | None = None
    tokens: int | None = None
    """Generated; a record's `tokens_per_second` divides them by all the seconds of the question, a judge's included."""
    samples: str | None = None
    curve: dict[str, list[float]] | None = None
    items: list[dict[str, Any]] | None = None
    """One JSON object an item, kept beside the records; the record itself holds sums."""
    counts: Counts | None = None
    outcomes: str | None = None
    speed: Speed | None = None
    """A measurement: it stands beside the answer, not in it."""

    def data(self) -> dict[str, Any]:
        """As a record holds it."""
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
    """Kind: a question to a model; `name` is what tables print."""

    name: str

    generates: ClassVar[bool]
    """Whether a sampler and a plan are needed."""

    def gen_length(self, model: Model) -> int:
        """Tokens that a generating task asks for; ValueError for a task that generates nothing."""
        raise ValueError(f"task {self.name!r} generates nothing")

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        """What asking costs, by arithmetic; None where nobody can say."""
        return None

    def gives(self, metric: str) -> bool:
        """Whether an answer may hold this metric, as far as that can be said before asking."""
        return True

    def timed_on(self, model: Model) -> str | None:
        """The device that an answer must have been timed on to be this one's; None where nothing is timed."""
        return None

    def skip(self, model: Model) -> str | None:
        """Why this model cannot be asked, or None."""
        return None

    def resolved(self) -> Task:
        """The same with every pin that only a source knows written out; ConnectionError when it is out of reach."""
        return self

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What else the answer depends on: precision, counting rules (names, not settings)."""

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        """What the task asks and this sampler and plan do otherwise: field -> [asked, done]; part of the protocol."""
        return {}

    def answer(self, model: Model, ask: Ask) -> Answer:
        """Its answer, all made here. A task says this, or `shared`."""
        return self.shared(model, ask, ALONE)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        """Its answer, the work cut into pieces that any process may do; here: in one. Raises Elsewhere while others
        are at what is left."""
        work.join()
        return self.answer(model, ask)


def samples_digest(rows: Iterable[Tensor]) -> str:
    """SHA-256 of generated ids, so that two runs can be compared token by token."""
    found = hashlib.sha256()
    for row in rows:
        found.update(row.cpu().to(dtype=row.dtype).numpy().astype("<i8").tobytes())
    return found.hexdigest()
