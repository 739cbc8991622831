"""Text-quality tasks (as in `repro.evals.text_quality.quality`) that report MAUVE in addition to generative perplexity.

MAUVE compares the samples with equally many held-out rows (the reference). Other held-out rows are scored too, with the
metric prefix `true_` or `real_`, so that their MAUVE is that of real against real text. The field `curve` of a result
holds `nll`, `tokens` and `entropy`, one number per sample, from which samplers can be compared at temperatures of equal
entropy.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from repro.core import parts
from repro.core.parts import part
from repro.core.reading import convert
from repro.evals.task import Answer, Ask
from repro.evals.text_quality.judges import Judge, load_judge
from repro.evals.text_quality.mauve import Mauve, mauve_score
from repro.evals.text_quality.quality import (
    TextQualityTask,
    generate_with_heldout,
    judge_ids,
    score_naive_samples,
)
from repro.evals.text_quality.samples import Ids, Metric, entropy
from repro.evals.work_queue import WorkQueue, rows_per_chunk
from repro.model import Model

DIGITS = {"nll": 4, "tokens": 0, "entropy": 6}
"""Number of decimals to which the numbers of each curve are rounded."""


@part
class MauveTask(TextQualityTask):
    """Base class of text-quality tasks that also compare their samples with real text, by MAUVE with each of the
    settings `mauve`.

    ValueError if `mauve` is empty, or has two settings with the same `state` (hidden state used as feature).
    """

    mauve: tuple[Mauve, ...]

    def protocol(self) -> dict[str, Any]:
        how = {"mauve": parts.canonical(self.mauve), "features": "last layer, float32"}
        return super().protocol() | how

    def __post_init__(self) -> None:
        names = [pins.name for pins in self.mauve]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"task {self.name!r}: `mauve` lists settings for {', '.join(names) or 'no metric'}; give one or"
                " more, each with another `state`"
            )

    def gives(self, metric: str) -> bool:
        return super().gives(metric) or metric in [pins.name for pins in self.mauve]

    def skip(self, model: Model) -> str | None:
        why = super().skip(model)
        if why is None and self.generates and load_judge(self.judge).digest == model.digest:
            return f"this model is the task's judge, {self.judge}, and would score its own samples too well"
        return why

    def count(self, ask: Ask) -> int:
        count = super().count(ask)
        for pins in self.mauve:
            if count < pins.clusters:
                raise ValueError(
                    f"task {self.name!r} makes {pins.clusters} clusters of {count} samples; give {pins.clusters} "
                    "samples or more (--samples, --limit)"
                )
        return count

    def judged(self, ask: Ask) -> tuple[int, int]:
        samples = self.count(ask)
        return samples if self.generates else 2 * samples, 2 * samples

    def mauve_metrics(
        self, model: Model, kinds: Mapping[str, Sequence[Ids]], seed: int, work: WorkQueue
    ) -> dict[str, Metric]:
        """MAUVE of each set of rows in `kinds` (metric prefix -> rows of the model's ids) against equally many held-out
        rows, metric name -> metric. The sets with the prefixes `true_` and `real_` are held-out rows too, and share no
        row with these. `seed`: random seed of the clusterings. Processes share the judge's hidden states through
        `work`; one of them makes the clusterings."""
        judge = load_judge(self.judge)
        count = len(next(iter(kinds.values())))
        rows = {**kinds, "reference": self.heldout_rows(model, count, count).tolist()}
        encoded = {kind: judge_ids(judge, model, each, self.retokenise) for kind, each in rows.items()}
        return mauve_by_kind(judge, self.mauve, encoded.pop("reference"), encoded, seed, work)


@part
class GenerationMauve(MauveTask):
    """MAUVE against held-out rows, generative perplexity under a judge (a causal language model), entropy and distinct
    n-grams of `samples` rows that are generated without a prompt, of the length of the training rows, and of as many
    other held-out rows."""

    generates = True
    needs_draws = True

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"}

    def gen_length(self, model: Model) -> int:
        return model.data.row_length()

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        found = generate_with_heldout(self, model, ask, work)
        assert found.items is not None
        kinds: dict[str, list[Ids]] = {"": [item["ids"] for item in found.items]}
        kinds["true_"] = self.heldout_rows(model, 0, len(found.items)).tolist()
        metrics = found.metrics | self.mauve_metrics(model, kinds, ask.seed, work)
        return replace(found, metrics=metrics, curve=sample_curves(found.items))


@part
class NaiveMauve(MauveTask):
    """MAUVE against held-out rows, generative perplexity under a judge (a causal language model), entropy and distinct
    n-grams of other held-out rows and of naive samples made from them without a model. Naive samples: the first
    `period` ids of each row repeated, and rows of ids drawn independently by their frequency."""

    period: int
    generates = False

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        found = score_naive_samples(self, self.period, model, ask, work)
        assert found.items is not None
        kinds: dict[str, list[Ids]] = {}
        for item in found.items:
            kinds.setdefault(f"{item['kind']}_", []).append(item["ids"])
        return replace(found, metrics=found.metrics | self.mauve_metrics(model, kinds, ask.seed, work))


def mauve_by_kind(
    judge: Judge,
    settings: Sequence[Mauve],
    reference: Sequence[Ids],
    kinds: Mapping[str, Sequence[Ids]],
    seed: int,
    work: WorkQueue,
) -> dict[str, Metric]:
    """MAUVE, with each of `settings`, of each set of texts in `kinds` (metric prefix -> texts) against the texts
    `reference`, all as token ids of the judge; `seed`: random seed of the clusterings.

    Returns metric name -> metric. Each value is reported twice: as prefix + `mauve` (or `mauve_mean`), with the
    standard error from texts and clusterings together, and with `_clusterings` appended to this name, with that from
    the clusterings alone. Processes share the judge's hidden states through `work`; then one process (`work.join`)
    makes the clusterings. Raises Busy while other processes compute hidden states, and ValueError for an empty text.
    """
    names = ("reference", *kinds)
    texts = [reference, *kinds.values()]
    for name, rows in zip(names, texts, strict=True):
        if not all(map(len, rows)):
            at = next(i for i, row in enumerate(rows) if not len(row))
            raise ValueError(
                f"text {at} of {name or 'the samples'} is empty and has no hidden state; leave it out"
            )
    by_setting = [_features(judge, [row for rows in texts for row in rows], pins, work) for pins in settings]
    work.join()
    ends = np.cumsum([len(rows) for rows in texts])[:-1]
    metrics: dict[str, Metric] = {}
    for pins, features in zip(settings, by_setting, strict=True):
        side = dict(zip(names, np.split(features, ends), strict=True))
        for kind in kinds:
            found = mauve_score(side["reference"], side[kind], pins, seed)
            metrics[f"{kind}{pins.name}"] = found.metric()
            metrics[f"{kind}{pins.name}_clusterings"] = found.over_clusterings()
    return metrics


def _features(judge: Judge, texts: Sequence[Ids], pins: Mauve, work: WorkQueue) -> np.ndarray:
    """Features (the judge's hidden states) of n texts under the settings `pins`, float64 [n, D]; computed in chunks
    that processes share through `work`, and stored as base64 of little-endian bytes."""
    windows = [text[: pins.length] for text in texts]

    def find(span: range) -> str:
        found = judge.features(windows[span.start : span.stop], pins.state)
        if not np.isfinite(found).all():
            raise ValueError("a hidden state of the judge is NaN or infinite; use another judge or precision")
        return base64.b64encode(found.astype("<f8").tobytes()).decode("ascii")

    def read(data: Any, span: range) -> np.ndarray:
        content = base64.b64decode(convert(data, str, "the states", "compute them again"), validate=True)
        if not content or len(content) % (8 * len(span)):
            raise ValueError(
                f"a stored result has {len(content)} bytes of hidden states, which do not split into float64 vectors"
                f" for {len(span)} texts"
            )
        found = np.frombuffer(content, "<f8").reshape(len(span), -1)
        if not np.isfinite(found).all():
            raise ValueError("a stored hidden state is NaN or infinite")
        return found

    longest = max(map(len, windows), default=1)
    return np.concatenate(work.map_chunks(len(windows), rows_per_chunk(longest), find, read))


def sample_curves(items: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The field `curve` of a result, with one number per sample of `items`: `nll` (negative log-likelihood under the
    judge in nats, summed over the scored tokens), `tokens` (their number) and `entropy` (nats per token)."""
    found = {
        "nll": [item["nll"] for item in items],
        "tokens": [item["tokens"] for item in items],
        "entropy": [entropy(item["ids"]) for item in items],
    }
    return {name: [round(float(each), DIGITS[name]) for each in values] for name, values in found.items()}
