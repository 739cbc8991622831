"""Tasks that measure the quality of generated text: generative perplexity (gen_ppl) under a judge (a causal language
model), entropy and distinct n-grams (docs/method.md#metrics).

The same statistics of equally many held-out rows are reported with the metric prefix `true_`, and `NaiveSamples`
reports them for samples that score well without being text; both are needed to read a plot of gen_ppl against entropy.
All samples are stored as per-item results (items), each with its ids, its text and its scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from repro.core import parts, rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import prepared
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, Task, generated
from repro.evals.text_quality.gen_ppl import Rule, score_texts
from repro.evals.text_quality.judges import Judge, find_judge, judge_text, load_judge
from repro.evals.text_quality.samples import Ids, Metric, distinct, entropy, mean, repetition, unigram
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload, of_texts
from repro.model import Model

Retokenise = Literal["text", "ids"]
"""What the judge reads of a sample: its text, tokenised again by the judge, as published ("text"), or its token ids, if
model and judge have the same vocabulary ("ids")."""


@part
class TextQualityTask(Task):
    """Base class of tasks that measure the quality of `samples` samples: generative perplexity (gen_ppl) under a judge
    (a causal language model), entropy and distinct n-grams. `judge`: path of the judge's folder, or its name in `runs/`
    (a left-to-right run, or a causal LM saved by transformers); `rule`: scoring rule of gen_ppl; `retokenise`: whether
    the judge reads the samples' texts ("text") or their ids ("ids"); `distinct`: sizes of the n-grams counted."""

    samples: int
    judge: str
    rule: Rule
    retokenise: Retokenise
    distinct: tuple[int, ...]

    def skip(self, model: Model) -> str | None:
        try:
            find_judge(self.judge)
        except ValueError as error:
            return str(error)
        if self.retokenise == "ids" and not load_judge(self.judge).shares_ids(model.data):
            return f"judge {self.judge} does not share this model's ids; use retokenise=text"
        return None

    def protocol(self) -> dict[str, Any]:
        return {
            **judge_protocol(load_judge(self.judge), self.rule, self.retokenise),
            "entropy": "generator's ids",
        }

    def protocol_without_judge(self) -> dict[str, Any]:
        """The fields of the result's protocol (name -> value) that are known before the judge is loaded."""
        rule = parts.canonical(self.rule)
        return {"judge": self.judge, "rule": rule, "retokenise": self.retokenise}

    def gives(self, metric: str) -> bool:
        return metric in ("gen_ppl", "entropy") or metric.startswith("distinct_")

    def workload(self, model: Model, ask: Ask) -> Workload:
        if not self.generates:
            return Workload.of_rows(0, 0, 1)
        return of_texts(self.samples, model, ask.sampler, ask.plan, 0).limited(ask.limit)

    def judged(self, ask: Ask) -> tuple[int, int]:
        """(number of texts that the judge reads for this evaluation alone; number of held-out texts that it reads once,
        because all evaluations of the task share them), for estimates of cost."""
        return TextQualityTask.count(self, ask), 0

    def count(self, ask: Ask) -> int:
        """Number of samples: the task's, or the evaluation's limit if that is smaller; ValueError for fewer than 2."""
        count = ask.at_most(self.samples)
        if count < 2:
            raise ValueError(
                f"task {self.name!r} needs at least 2 samples, got {count}; raise --samples or --limit"
            )
        return count

    def score_samples(
        self, model: Model, rows: Sequence[list[int]], work: WorkQueue
    ) -> tuple[dict[str, Metric], list[dict[str, Any]]]:
        """(metrics of the samples `rows`, in the model's ids, scored by the judge; per-item results, one for each
        sample). Processes share the samples through `work`; raises Busy while other processes still score some of the
        samples."""
        judge = load_judge(self.judge)
        texts = [model.data.decode(row) for row in rows]
        found = score_texts(judge_ids(judge, model, rows, self.retokenise), judge, self.rule, work)
        metrics = {"gen_ppl": found.perplexity(), **diversity_metrics(rows, self.distinct)}
        items = [
            {"name": i, "ids": row, "text": text, "nll": float(nll), "tokens": int(tokens)}
            for i, (row, text, nll, tokens) in enumerate(
                zip(rows, texts, found.nll, found.tokens, strict=True)
            )
        ]
        return metrics, items

    def heldout_rows(self, model: Model, start: int, count: int) -> np.ndarray:
        """`count` held-out rows of the model's data, [count, L] ids, from position `start` on in a fixed random order,
        so that disjoint ranges share no row; ValueError if there are too few."""
        ids = prepared(model.data).heldout.ids
        if start + count > len(ids):
            raise ValueError(
                f"task {self.name!r} needs {start + count} held-out rows and there are {len(ids)}; use fewer --samples"
            )
        order = rng.permutation(0, rng.QUOTED, 0, len(ids)).numpy()
        return np.asarray(ids[np.sort(order[start : start + count])])


@part
class GenerationQuality(TextQualityTask):
    """Generative perplexity under a judge (a causal language model), entropy and distinct n-grams of `samples` rows
    that are generated without a prompt, of the length of the training rows, and of as many held-out rows."""

    generates = True
    needs_draws = True

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"}

    def gen_length(self, model: Model) -> int:
        return model.data.row_length()

    def judged(self, ask: Ask) -> tuple[int, int]:
        return self.count(ask), self.count(ask)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        return generate_with_heldout(self, model, ask, work)


@part
class OpenGeneration(TextQualityTask):
    """Generative perplexity under a judge (a causal language model), entropy and distinct n-grams of `samples` rows of
    `length` ids that are generated without a prompt. No held-out rows are needed, so the task applies to models that
    come without data (released weights)."""

    length: int
    generates = True
    needs_draws = True

    def gen_length(self, model: Model) -> int:
        return self.length

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        return generate_and_score(self, model, ask, work)


@part
class NaiveSamples(TextQualityTask):
    """Generative perplexity under a judge (a causal language model), entropy and distinct n-grams of held-out rows and
    of naive samples made from them without a model. Naive samples: the first `period` ids of each row repeated, and
    rows of ids drawn independently by their frequency."""

    period: int
    generates = False

    def judged(self, ask: Ask) -> tuple[int, int]:
        return 2 * self.count(ask), self.count(ask)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        return score_naive_samples(self, self.period, model, ask, work)


def judge_ids(judge: Judge, model: Model, rows: Sequence[Ids], retokenise: Retokenise) -> list[Ids]:
    """The ids that the judge reads for each of `rows`, which are in the model's ids: the same ids if `retokenise` is
    "ids", else those of the row's text, tokenised by the judge."""
    if retokenise == "ids":
        return list(rows)
    return [judge.encode(judge_text(model.data, row, judge.end)) for row in rows]


def score_naive_samples(
    task: TextQualityTask, period: int, model: Model, ask: Ask, work: WorkQueue
) -> Answer:
    """Result of scoring held-out rows and naive samples made from them, by the judge and the settings of `task`.
    Metrics have the prefix `real_` (held-out rows), `repetition_` (the first `period` ids of a row repeated) or
    `unigram_` (ids drawn independently by their frequency)."""
    heldout = task.heldout_rows(model, 0, task.count(ask))
    keys = rng.keys(ask.seed, rng.NAIVE, 0, torch.arange(len(heldout)))
    kinds = {  # tables read the prefix "true_" as the reference row of a generating task
        "real": heldout.tolist(),
        "repetition": [repetition(row, period) for row in heldout.tolist()],
        "unigram": unigram(heldout, keys),
    }
    metrics: dict[str, Metric] = {}
    items: list[dict[str, Any]] = []
    for kind, rows in kinds.items():
        found, each = task.score_samples(model, rows, work)
        metrics |= {f"{kind}_{name}": metric for name, metric in found.items()}
        items += [{"kind": kind, **item} for item in each]
    return Answer(metrics, items=items)


def generate_with_heldout(task: TextQualityTask, model: Model, ask: Ask, work: WorkQueue) -> Answer:
    """Result of generating the samples of `task` without prompts and scoring them with its judge, with the cost of
    decoding; and of scoring equally many held-out rows, whose metrics have the prefix `true_`."""
    rows = task.heldout_rows(model, 0, task.count(ask)).tolist()
    heldout, _ = task.score_samples(model, rows, work)
    found = generate_and_score(task, model, ask, work)
    return replace(
        found, metrics=found.metrics | {f"true_{name}": metric for name, metric in heldout.items()}
    )


def generate_and_score(task: TextQualityTask, model: Model, ask: Ask, work: WorkQueue) -> Answer:
    """Result of generating the samples of `task` without prompts, with the sampler and plan in `ask`, and scoring them
    with its judge; with the cost of decoding."""
    assert ask.sampler is not None and ask.plan is not None
    count = task.count(ask)
    prompts: list[list[int]] = [[] for _ in range(count)]
    found = decoded(
        work, model, ask.sampler, ask.plan, prompts, seed=ask.seed, names=range(count), batch=work.batch
    )
    metrics, items = task.score_samples(model, found.ids.tolist(), work)
    return generated(found.ids, found.cost.forwards, metrics, items)


def judge_protocol(judge: Judge, rule: Rule, retokenise: Retokenise) -> dict[str, Any]:
    """The fields of a result's protocol (name -> value) that describe how the judge scores: its name and digest, the
    scoring rule, whether it reads texts or ids, weighting and precision."""
    return {
        "judge": judge.name,
        "judge_digest": judge.digest,
        "rule": parts.canonical(rule),
        "retokenise": retokenise,
        "weighting": "token-weighted, every sample",
        "precision": "float32, log-softmax in float64",
    }


def diversity_metrics(rows: Sequence[Ids], sizes: Sequence[int]) -> dict[str, Metric]:
    """Means over the samples `rows` (token ids), with standard errors: metric `entropy`, unigram entropy in nats, over
    the samples that have an id, and for each N of `sizes` metric `distinct_N`, share of distinct N-grams, over the
    samples that have N ids or more. ValueError if fewer than two samples have that many ids."""

    def over(least: int, value: Callable[[Ids], float]) -> Metric:
        kept = [row for row in rows if len(row) >= least]
        if len(kept) < 2:
            raise ValueError(
                f"{len(kept)} of {len(rows)} samples have {least} or more ids; give at least two such samples"
            )
        return mean([value(row) for row in kept])

    return {"entropy": over(1, entropy)} | {f"distinct_{n}": over(n, partial(distinct, n=n)) for n in sizes}
