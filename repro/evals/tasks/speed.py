"""Decoding speed on an lm-eval task: latency (one text at a time) and throughput (batches of texts).

    python -m repro.evals --ckpt runs/llada@nano.sudoku-s0 --suite speed.sudoku --samplers all

The task is evaluated once without a clock, which gives its accuracy, counts of tokens and forward passes, and results
per document. Then some of the same rows are decoded again and timed, with batch size 1 (latency) and with `batch` rows
together (throughput). Counts are stored in the record's `answer`, seconds in its `measurements`. Tokenisation,
lm-eval's own code and scoring are not timed.

On one CPU thread the clock is process time, which leaves out other programs on a shared machine. Otherwise the clock is
wall time, read when the device has finished all work that was queued.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from repro.core.devices import processor
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.decoding import decoded
from repro.evals.lm.adapter import Adapter, Generation
from repro.evals.lm.harness import HarnessTask
from repro.evals.lm.lm_tasks import LmGeneration
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload
from repro.model import Model
from repro.results.record import Counts, Latency, Speed, Throughput

if TYPE_CHECKING:
    from repro.samplers.decoded import Decoded
    from repro.samplers.plan import Plan

ENGINE = "repro"
"""Name of this package's decoding loop in records of speed; records of other inference engines have theirs."""


@part
class DecodingSpeed(Task):
    """Accuracy and decoding speed on the lm-eval task `of`. Accuracy is the mean over documents of lm-eval's metric
    `metric` (0 or 1), computed after the task's answer filter `filter`.

    `batch`: rows per batch; `together`: batches per throughput pass, the first that are decoded (shortest prompts
    first); `alone`: texts per latency pass, decoded one by one, those of the first documents; `warmup`: batches, and
    single texts, decoded before timing starts; `repeats`: number of timed passes.
    """

    of: Task
    metric: str
    filter: str
    batch: int
    together: int
    alone: int
    warmup: int
    repeats: int
    generates = True

    def protocol(self) -> dict[str, Any]:
        return self.of.protocol() | {
            "clock": "decoding alone",
            "useful": "before the first end id or stop string",
        }

    def timed_on(self, model: Model) -> str:
        return device_name(model.denoiser.home)

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        return self.of.overridden(ask)

    def resolved(self) -> Task:
        return replace(self, of=self.of.resolved())

    def gives(self, metric: str) -> bool:
        return metric == "accuracy"

    def skip(self, model: Model) -> str | None:
        return self.of.skip(model)

    def gen_length(self, model: Model) -> int:
        return self.of.gen_length(model)

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        """Estimated workload of the untimed evaluation and all timed passes, with the single texts counted as if they
        were decoded in batches; None if unknown."""
        once = self.of.workload(model, ask)
        if once is None or once.items is None:
            return once
        again = self.repeats * (self.together * self.batch + self.alone) + self.warmup * (self.batch + 1)
        return replace(once, items=once.items + again)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        """Accuracy, counts of tokens and forwards, per-document results and decoding speeds, of at most `ask.limit`
        documents. Processes share the decoding that is not timed through `work`; then one process decodes again and
        measures the time, while the others on its CPU wait (`WorkQueue.alone`).

        Raises ValueError if a number of batches, texts or passes is below 1, if `of` is not an lm-eval task that
        generates text, and if it has no such `metric` or `filter`.
        """
        for name in ("batch", "together", "alone", "warmup", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"task {self.name!r}: {name}={getattr(self, name)} times nothing; give 1 or more"
                )
        adapter = self._adapter(model, ask, work)
        found = self._of().evaluate_with(adapter, ask)
        work.join()
        assert found.items is not None
        values = outcomes(found.items, self.metric, self.filter)
        counts = adapter.counts(adapter.made, adapter.batches)
        n, mean = len(values), statistics.fmean(values)
        with work.alone():
            speed = self._timed(adapter)
        return Answer(
            metrics={"accuracy": (mean, statistics.stdev(values) / math.sqrt(n) if n > 1 else None, n)},
            nfe=counts.forwards / counts.rows,
            tokens_per_nfe=counts.committed / max(1, counts.forwards),
            samples=found.samples,
            items=found.items,
            counts=counts,
            outcomes="".join(f"{value:.0f}" for value in values),
            speed=speed,
        )

    def _of(self) -> HarnessTask | LmGeneration:
        if not isinstance(self.of, HarnessTask | LmGeneration):
            raise ValueError(
                f"task {self.name!r} times {self.of.name!r}, which is no lm-eval task that generates texts; set `of`"
                " to one that is"
            )
        return self.of

    def _adapter(self, model: Model, ask: Ask, work: WorkQueue) -> RecordingAdapter:
        assert ask.sampler is not None
        of = self._of()
        known = isinstance(of, LmGeneration)
        how = Generation(ask.sampler, ask.plan, 1.0, of.policy if known else "suite")
        if not known:
            return RecordingAdapter(model, None, how, "error", ask.seed, self.batch, work)
        return RecordingAdapter(model, None, how, of.overlong, ask.seed, self.batch, work, of.template)

    def _timed(self, adapter: RecordingAdapter) -> Speed:
        device = adapter.model.denoiser.home
        name, read = clock(device)
        batches = adapter.batches[: self.together]
        singles = sorted((one for batch in adapter.batches for one in batch.singles()), key=lambda b: b.names)
        singles = singles[: self.alone]
        together = passes([adapter.decoder(each) for each in batches], self.warmup, self.repeats, read)
        alone = passes([adapter.decoder(each) for each in singles], self.warmup, self.repeats, read)
        each = sorted(statistics.median(taken) for taken in zip(*alone.seconds, strict=True))
        return Speed(
            engine=ENGINE,
            device=device_name(device),
            clock=name,
            warmup=self.warmup,
            latency=Latency(
                median=statistics.median(each),
                p95=each[math.ceil(0.95 * len(each)) - 1],
                passes=[sum(taken) for taken in alone.seconds],
                counts=adapter.counts(alone.last, singles),
            ),
            throughput=Throughput(
                batch=self.batch,
                passes=[sum(taken) for taken in together.seconds],
                counts=adapter.counts(together.last, batches),
            ),
        )


def outcomes(items: Sequence[dict[str, Any]], metric: str, filter_name: str) -> list[float]:
    """Value, 0 or 1, of lm-eval's metric `metric` for each document, in document order, computed after the answer
    filter `filter_name`.

    `items` are the per-item results of a task, with `doc_id`, `filter` and `metrics`. ValueError if none of them is of
    this filter, and unless each value is 0 or 1.
    """
    chosen = sorted(
        (item for item in items if item["filter"] == filter_name), key=lambda item: item["doc_id"]
    )
    if not chosen:
        known = ", ".join(sorted({item["filter"] for item in items}))
        raise ValueError(f"this task has no answer filter {filter_name!r}; set `filter` to one of: {known}")
    for item in chosen:
        if item["metrics"].get(metric) not in (0, 1):
            has = ", ".join(sorted(item["metrics"]))
            raise ValueError(
                f"metric {metric!r} of document {item['doc_id']} is {item['metrics'].get(metric)!r}, not 0 or 1; "
                f"its metrics are {has}; name one whose values are 0 or 1"
            )
    return [float(item["metrics"][metric]) for item in chosen]


# --- decoding again -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowBatch:
    """Rows decoded together: their decoding plan, token ids of their prompts, and `names`, one integer per row that
    keys its random draws."""

    plan: Plan
    prompts: list[list[int]]
    names: list[int]

    def singles(self) -> list[RowBatch]:
        """This batch as batches of one row each."""
        rows = zip(self.prompts, self.names, strict=True)
        return [RowBatch(self.plan, [prompt], [name]) for prompt, name in rows]


@dataclass(eq=False)
class RecordingAdapter(Adapter):
    """lm-eval's model interface (`Adapter`), which also stores each batch of rows that it decodes, the decoded ids and
    costs, and where each text ends, so that the same rows can be decoded again."""

    batches: list[RowBatch] = field(default_factory=list)
    made: list[Decoded] = field(default_factory=list)
    """Decoded ids and costs of each of `batches`."""
    order: list[int] = field(default_factory=list)
    """Row names (`RowBatch.names`) in the order of decoding."""
    ends: dict[int, tuple[Sequence[str], int]] = field(default_factory=dict)
    """Row name -> stop strings and maximum number of ids of its text."""

    def _decode(self, plan: Plan, prompts: list[list[int]], names: list[int]) -> list[list[int]]:
        assert self.generation is not None
        found = decoded(
            self.work,
            self.model,
            self.generation.sampler,
            plan,
            prompts,
            seed=self.seed,
            names=names,
            batch=self.batch,
            size=self.batch,
        )
        for start in range(0, len(names), self.batch):
            some = slice(start, start + self.batch)
            self.batches.append(RowBatch(plan, prompts[some], names[some]))
            self.made.append(found.rows(some))
        self.order += names
        self.forwards.append(found.cost.forwards)
        self.ids.append(found.ids)
        return found.ids.tolist()

    def _text(self, row: list[int], until: Sequence[str], length: int) -> str:
        # `_text` is called for the rows in the order in which they were decoded
        self.ends[self.order[len(self.ends)]] = (until, length)
        return super()._text(row, until, length)

    def decoder(self, batch: RowBatch) -> Callable[[], Decoded]:
        """Function without arguments that decodes the rows of `batch` again and stores nothing in this object."""
        from repro.samplers.decode import decode

        assert self.generation is not None
        net, process, rule = self.model.denoiser, self.model.recipe.process, self.generation.sampler
        plan, prompts = batch.plan, batch.prompts
        return lambda: decode(net, process, rule, plan, prompts, seed=self.seed, names=batch.names)

    def counts(self, made: Sequence[Decoded], batches: Sequence[RowBatch]) -> Counts:
        """Numbers of rows, tokens and forwards, summed over all rows of `batches`; `made`: the decoded ids and costs of
        each batch."""
        useful = 0
        for each, batch in zip(made, batches, strict=True):
            rows = zip(each.ids.tolist(), batch.names, strict=True)
            useful += sum(self.useful(row, *self.ends[name]) for row, name in rows)

        def total(name: str) -> int:
            return sum(int(getattr(each.cost, name).sum()) for each in made)

        return Counts(
            rows=sum(len(each.ids) for each in made),
            committed=sum(int(each.committed.sum()) for each in made),
            useful=useful,
            forwards=total("forwards"),
            further=total("further"),
            refreshes=total("refreshes"),
            token_forwards=total("token_forwards"),
        )


# --- clocks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passes:
    """Timed decoding of a list of batches, several times: `seconds` [passes][batches], and `last`, the decoded results
    of the last pass [batches]."""

    seconds: list[list[float]]
    last: list[Decoded]


def passes(
    work: Sequence[Callable[[], Decoded]], warmup: int, repeats: int, read: Callable[[], float]
) -> Passes:
    """Time each function of `work`, which decodes one batch, in turn; all of them `repeats` times, after the first
    `warmup` functions were called once without timing.

    `read` returns the time of the clock in seconds.
    """
    for each in work[:warmup]:
        each()
    seconds, last = [], []
    for _ in range(repeats):
        taken, last = [], []
        for each in work:
            began = read()
            last.append(each())
            taken.append(read() - began)
        seconds.append(taken)
    return Passes(seconds, last)


def clock(device: torch.device) -> tuple[Literal["process", "wall"], Callable[[], float]]:
    """(name, function) of the clock for work on a device. Name: "process" (CPU time, for one CPU thread) or "wall"; the
    function returns the time in seconds, once the work queued on the device has finished."""
    if device.type == "cpu":
        return ("process", time.process_time) if torch.get_num_threads() == 1 else ("wall", time.perf_counter)

    def read() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return "wall", read


def device_name(device: torch.device) -> str:
    """Product name of the GPU or CPU that `device` is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()
