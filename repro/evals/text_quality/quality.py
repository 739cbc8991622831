"""Quality of generated text by a judge: gen_ppl with entropy and distinct n-grams beside it (docs/method.md#metrics).

The same statistics of as many held-out rows stand under `true_`, and `NaiveSamples` asks them of samples that fool a
judge: a frontier of gen_ppl against entropy is read with both. Samples are kept: one item a row with its ids, its text
and what the judge found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from repro.core import parts, rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import prepared
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, Task, samples_digest
from repro.evals.text_quality.gen_ppl import Rule, judged
from repro.evals.text_quality.judges import Judge, find, load_judge, written
from repro.evals.text_quality.samples import Ids, Metric, distinct, entropy, mean, repetition, unigram
from repro.evals.work_queue import Work
from repro.evals.workload import Workload, of_texts
from repro.model import Model

Retokenise = Literal["text", "ids"]
"""What the judge reads: the samples' text in its own tokens, as published, or their ids (one vocabulary for both)."""


@part
class Judged(Task):
    """Kind: a task whose answer a judge gives. `judge` names a folder in `runs/`: a run of ours that is left to right,
    or a causal LM in transformers' layout; `distinct` the sizes of n-grams."""

    samples: int
    judge: str
    rule: Rule
    retokenise: Retokenise
    distinct: tuple[int, ...]

    def skip(self, model: Model) -> str | None:
        try:
            find(self.judge)
        except ValueError as error:
            return str(error)
        if self.retokenise == "ids" and not load_judge(self.judge).reads(model.data):
            return f"judge {self.judge} does not share this model's ids; take retokenise=text"
        return None

    def protocol(self) -> dict[str, Any]:
        return {**judging(load_judge(self.judge), self.rule, self.retokenise), "entropy": "generator's ids"}

    def told(self) -> dict[str, Any]:
        """The protocol as far as it can be said before the judge is loaded."""
        rule = parts.canonical(self.rule)
        return {"judge": self.judge, "rule": rule, "retokenise": self.retokenise}

    def gives(self, metric: str) -> bool:
        return metric in ("gen_ppl", "entropy") or metric.startswith("distinct_")

    def workload(self, model: Model, ask: Ask) -> Workload:
        if not self.generates:
            return Workload.of_rows(0, 0, 1)
        return of_texts(self.samples, model, ask, 0)

    def count(self, ask: Ask) -> int:
        count = self.samples if ask.limit is None else min(self.samples, ask.limit)
        if count < 2:
            raise ValueError(f"task {self.name!r} needs at least 2 samples, got {count}")
        return count

    def statistics(
        self, model: Model, rows: Sequence[list[int]], work: Work
    ) -> tuple[dict[str, Metric], list[dict[str, Any]]]:
        """Metrics of samples of the model's ids, and an item a sample. Raises Elsewhere while others read for it."""
        judge = load_judge(self.judge)
        texts = [model.data.decode(row) for row in rows]
        found = judged(read_by(judge, model, rows, self.retokenise), judge, self.rule, work)
        metrics = {"gen_ppl": found.perplexity(), **by_themselves(rows, self.distinct)}
        items = [
            {"name": i, "ids": row, "text": text, "nll": float(nll), "tokens": int(tokens)}
            for i, (row, text, nll, tokens) in enumerate(
                zip(rows, texts, found.nll, found.tokens, strict=True)
            )
        ]
        return metrics, items

    def true_rows(self, model: Model, count: int) -> np.ndarray:
        """Held-out rows [count, L] in a keyed order."""
        return self.other_rows(model, 0, count)

    def other_rows(self, model: Model, start: int, count: int) -> np.ndarray:
        """Rows [count, L] of that order from `start` on, so that two stretches share none."""
        ids = prepared(model.data).heldout.ids
        if start + count > len(ids):
            raise ValueError(
                f"task {self.name!r} wants {start + count} held-out rows; there are {len(ids)}: ask for less by "
                "--samples"
            )
        order = rng.permutation(0, rng.QUOTED, 0, len(ids)).numpy()
        return np.asarray(ids[np.sort(order[start : start + count])])


@part
class GenerationQuality(Judged):
    """`samples` rows generated from nothing, as a judge reads them."""

    generates = True

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"}

    def gen_length(self, model: Model) -> int:
        return model.data.row_length()

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        return beside_true(self, model, ask, work)


@part
class OpenGeneration(Judged):
    """`samples` rows of `length` ids generated from nothing by a model that came without data (released weights), as a
    judge reads them; no true rows stand beside them."""

    length: int
    generates = True

    def gen_length(self, model: Model) -> int:
        return self.length

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        return generated(self, model, ask, work)


@part
class NaiveSamples(Judged):
    """What fools a judge, made of held-out rows: the first `period` ids of each repeated, and ids drawn one by one by
    their frequency; the rows themselves beside them. No model is asked."""

    period: int
    generates = False

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        return fooling(self, self.period, model, ask, work)


def read_by(judge: Judge, model: Model, rows: Sequence[Ids], retokenise: Retokenise) -> list[Ids]:
    """What the judge reads of rows of the model's ids."""
    if retokenise == "ids":
        return list(rows)
    return [judge.encode(written(model.data, row, judge.end)) for row in rows]


def fooling(task: Judged, period: int, model: Model, ask: Ask, work: Work) -> Answer:
    """Held-out rows and the naive ones made of them, as the task's judge reads them; metrics named by kind."""
    true = task.true_rows(model, task.count(ask))
    keys = rng.keys(ask.seed, rng.NAIVE, 0, torch.arange(len(true)))
    kinds = {  # "true_" would make them another task's reference row
        "real": true.tolist(),
        "repetition": [repetition(row, period) for row in true.tolist()],
        "unigram": unigram(true, keys),
    }
    metrics: dict[str, Metric] = {}
    items: list[dict[str, Any]] = []
    for kind, rows in kinds.items():
        found, each = task.statistics(model, rows, work)
        metrics |= {f"{kind}_{name}": metric for name, metric in found.items()}
        items += [{"kind": kind, **item} for item in each]
    return Answer(metrics, items=items)


def beside_true(task: Judged, model: Model, ask: Ask, work: Work) -> Answer:
    """What the model writes for a task, and the same metrics of as many held-out rows under `true_`."""
    true, _ = task.statistics(model, task.true_rows(model, task.count(ask)).tolist(), work)
    found = generated(task, model, ask, work)
    return replace(found, metrics=found.metrics | {f"true_{name}": metric for name, metric in true.items()})


def generated(task: Judged, model: Model, ask: Ask, work: Work) -> Answer:
    """Rows that the model writes for a task, as its judge reads them."""
    assert ask.sampler is not None and ask.plan is not None
    count = task.count(ask)
    prompts: list[list[int]] = [[] for _ in range(count)]
    found = decoded(
        work, model, ask.sampler, ask.plan, prompts, seed=ask.seed, names=range(count), batch=work.batch
    )
    metrics, items = task.statistics(model, found.ids.tolist(), work)
    return Answer(
        metrics=metrics,
        nfe=found.cost.forwards.double().mean().item(),
        tokens_per_nfe=found.ids.numel() / max(1.0, float(found.cost.forwards.sum())),
        tokens=found.ids.numel(),
        samples=samples_digest(found.ids),
        items=items,
    )


def judging(judge: Judge, rule: Rule, retokenise: Retokenise) -> dict[str, Any]:
    """The fields of a protocol that say how a judge was asked."""
    return {
        "judge": judge.name,
        "judge_digest": judge.digest,
        "rule": parts.canonical(rule),
        "retokenise": retokenise,
        "weighting": "token-weighted, every sample",
        "precision": "float32, log-softmax in float64",
    }


def by_themselves(rows: Sequence[Ids], sizes: Sequence[int]) -> dict[str, Metric]:
    """Entropy and distinct n-grams of samples, means with standard errors."""
    found = {"entropy": mean([entropy(row) for row in rows])}
    return found | {f"distinct_{n}": mean([distinct(row, n) for row in rows]) for n in sizes}
