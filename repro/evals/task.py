"""Interface of tasks: a task is a configurable component (part) that evaluates a model in one way, such as accuracy on
a benchmark, and returns metrics.

A suite (`evals/suites/NAME.toml`) lists tasks by kind and settings; `repro.evals.request` combines those that generate
text with sampler presets and tokens per step.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
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
    """Settings of one evaluation: sampler and decoding plan (None if no text is generated), random seed, and largest
    number of items (None: all)."""

    sampler: Sampler | None
    plan: Plan | None
    seed: int
    limit: int | None

    def at_most(self, items: int) -> int:
        """`items`, or the limit if that is smaller."""
        return items if self.limit is None else min(items, self.limit)


@dataclass(frozen=True)
class Answer:
    """Result of one evaluation: `metrics`, name -> (value, standard error or None, number of items), and optional data.

    Of generated rows: `nfe`, mean number of forwards per row; `tokens_per_nfe`, tokens generated per forward;
    `samples`, SHA-256 of the generated ids; `counts`, totals of forwards and tokens. `curve`: lists of numbers by name,
    with one number per sample, item or training step; `outcomes`: one digit per item, its score 0 or 1.
    """

    metrics: dict[str, tuple[float, float | None, int]]
    nfe: float | None = None
    tokens_per_nfe: float | None = None
    tokens: int | None = None
    """Number of generated tokens; a record's `tokens_per_second` divides it by all seconds of the evaluation, including
    those in which a language model scored the text."""
    samples: str | None = None
    curve: dict[str, list[float]] | None = None
    items: list[dict[str, Any]] | None = None
    """Per-item results, one JSON object each, stored in a file of their own; the record holds totals only."""
    counts: Counts | None = None
    outcomes: str | None = None
    speed: Speed | None = None
    """Decoding speeds; a record holds them in its `measurements`, not in its `answer`."""

    def data(self) -> dict[str, Any]:
        """The `answer` field of a record, as plain JSON."""
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
    """Base class of tasks, each an evaluation of a model; tables print its `name`. A subclass overrides `answer`, which
    one process computes alone, or `shared`, which several processes compute together."""

    name: str

    generates: ClassVar[bool]
    """Whether the task generates text, so that it needs a sampler and a decoding plan."""
    needs_draws: ClassVar[bool] = False
    """Whether the task compares distributions, so that greedy decoding says nothing about the model."""

    def gen_length(self, model: Model) -> int:
        """Number of tokens that the task generates per row; ValueError for a task that generates no text."""
        raise ValueError(
            f"task {self.name!r} generates no text, so its texts have no length; give a task that generates text"
        )

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        """Estimated work of the evaluation with the settings `ask`, counted before it is run: forward passes, tokens
        through the network, random draws; None if unknown."""
        return None

    def gives(self, metric: str) -> bool:
        """Whether a result of the task may contain `metric`; True if this is not known before the task is run."""
        return True

    def timed_on(self, model: Model) -> str | None:
        """Name of the device on which a stored result must have been timed to be reused; None if nothing is timed."""
        return None

    def skip(self, model: Model) -> str | None:
        """Reason why the task cannot be run for this model; None if it can."""
        return None

    def resolved(self) -> Task:
        """The task with every setting filled in that only its data source knows, such as a revision on the Hub.

        ConnectionError if the source cannot be reached.
        """
        return self

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What the result depends on besides the task's fields, as name -> value: precision, what is counted, etc."""

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        """Settings of the task that sampler or plan override: field -> [the task's value, the value used].

        They are stored in the record's protocol.
        """
        return {}

    def answer(self, model: Model, ask: Ask) -> Answer:
        """The result of the evaluation, computed by this process alone."""
        return self.shared(model, ask, SERIAL)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        """The result of the evaluation, computed in chunks that processes share through `work`.

        By default one process computes all of it. Raises Busy while other processes compute chunks that are missing.
        """
        work.join()
        return self.answer(model, ask)


def mean_metric(values: Tensor) -> tuple[float, float | None, int]:
    """Mean of `values` [n], its standard error (None for a single value), and n."""
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return values.mean().item(), error, len(values)


def generated(
    rows: Tensor | Sequence[Tensor],
    forwards: Tensor,
    metrics: dict[str, tuple[float, float | None, int]],
    items: list[dict[str, Any]] | None = None,
) -> Answer:
    """The result of an evaluation that generated n `rows` of token ids: its `metrics`, per-item results `items`, and
    what the rows cost, from the number of forward passes of each row, `forwards` [n]."""
    tokens, passes = sum(len(row) for row in rows), forwards.double()
    return Answer(
        metrics=metrics,
        nfe=passes.mean().item(),
        tokens_per_nfe=tokens / max(1.0, float(passes.sum())),
        tokens=tokens,
        samples=samples_digest(rows),
        items=items,
    )


def samples_digest(rows: Iterable[Tensor]) -> str:
    """SHA-256 of the ids of generated rows; two runs with the same digest generated the same tokens."""
    found = hashlib.sha256()
    for row in rows:
        found.update(row.cpu().to(dtype=row.dtype).numpy().astype("<i8").tobytes())
    return found.hexdigest()
