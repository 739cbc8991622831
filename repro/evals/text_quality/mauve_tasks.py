"""Tasks of `repro.evals.text_quality.quality` with MAUVE beside gen_ppl; each sample's numbers are kept to match
entropies.

Reference rows are held out, as many as samples, and none of them is among the rows under `true_` or `real_`: the MAUVE
of those is real against real. A record's curves `nll`, `tokens` and `entropy` hold one number a sample, in order:
differences at matched entropy need the samples, not their means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from repro.core import parts
from repro.core.parts import part
from repro.evals.task import Answer, Ask
from repro.evals.text_quality.judges import Judge, load_judge
from repro.evals.text_quality.mauve import Mauve, scored
from repro.evals.text_quality.quality import Judged, beside_true, fooling, read_by
from repro.evals.text_quality.samples import Ids, Metric, entropy
from repro.evals.work_queue import Work
from repro.evals.workload import Workload, of_texts
from repro.model import Model

DIGITS = {"nll": 4, "tokens": 0, "entropy": 6}
"""Decimals kept of each sample's numbers."""


@part
class Likened(Judged):
    """Kind: a judged task that also compares its samples with held-out text, by one or more settings of MAUVE."""

    mauve: tuple[Mauve, ...]

    def protocol(self) -> dict[str, Any]:
        how = {"mauve": parts.canonical(self.mauve), "features": "last layer, float32"}
        return super().protocol() | how

    def __post_init__(self) -> None:
        names = [pins.name for pins in self.mauve]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"task {self.name!r} asks for {names or 'no MAUVE'}; give each state once")

    def gives(self, metric: str) -> bool:
        return super().gives(metric) or metric in [pins.name for pins in self.mauve]

    def skip(self, model: Model) -> str | None:
        why = super().skip(model)
        if why is None and self.generates and load_judge(self.judge).digest == model.digest:
            return f"{self.judge} is the judge; it would be pleased with its own samples"
        return why

    def count(self, ask: Ask) -> int:
        count = super().count(ask)
        for pins in self.mauve:
            if count < pins.clusters:
                raise ValueError(
                    f"task {self.name!r} makes {pins.clusters} clusters of {count} samples; ask for more of them"
                )
        return count

    def likeness(self, model: Model, kinds: Mapping[str, Sequence[Ids]], seed: int) -> dict[str, Metric]:
        """MAUVE of rows of each kind against held-out rows that are none of them."""
        judge = load_judge(self.judge)
        count = len(next(iter(kinds.values())))
        rows = {**kinds, "reference": self.other_rows(model, count, count).tolist()}
        read = {kind: read_by(judge, model, each, self.retokenise) for kind, each in rows.items()}
        return likened(judge, self.mauve, read.pop("reference"), read, seed)


@part
class GenerationMauve(Likened):
    """`generation_quality` with MAUVE; the same rows are generated."""

    generates = True

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"}

    def gen_length(self, model: Model) -> int:
        return model.data.row_length()

    def workload(self, model: Model, ask: Ask) -> Workload:
        return of_texts(self.samples, model, ask, 0)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        found = beside_true(self, model, ask, work)
        work.join()
        assert found.items is not None
        kinds: dict[str, list[Ids]] = {"": [item["ids"] for item in found.items]}
        kinds["true_"] = self.true_rows(model, len(found.items)).tolist()
        metrics = found.metrics | self.likeness(model, kinds, ask.seed)
        return replace(found, metrics=metrics, curve=by_sample(found.items))


@part
class NaiveMauve(Likened):
    """`naive_samples` with MAUVE of each kind."""

    period: int
    generates = False

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        found = fooling(self, self.period, model, ask, work)
        work.join()
        assert found.items is not None
        kinds: dict[str, list[Ids]] = {}
        for item in found.items:
            kinds.setdefault(f"{item['kind']}_", []).append(item["ids"])
        return replace(found, metrics=found.metrics | self.likeness(model, kinds, ask.seed))


def likened(
    judge: Judge,
    settings: Sequence[Mauve],
    reference: Sequence[Ids],
    kinds: Mapping[str, Sequence[Ids]],
    seed: int,
) -> dict[str, Metric]:
    """MAUVE of each kind of texts, in the judge's ids, against the reference: its name behind the kind's, and with the
    standard error over clusterings alone beside it."""
    metrics: dict[str, Metric] = {}
    for pins in settings:
        theirs = judge.features([ids[: pins.length] for ids in reference], pins.state)
        for kind, rows in kinds.items():
            found = scored(
                theirs, judge.features([ids[: pins.length] for ids in rows], pins.state), pins, seed
            )
            metrics[f"{kind}{pins.name}"] = found.metric()
            metrics[f"{kind}{pins.name}_clusterings"] = found.over_clusterings()
    return metrics


def by_sample(items: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """What the judge found of each sample, as curves of a record."""
    found = {
        "nll": [item["nll"] for item in items],
        "tokens": [item["tokens"] for item in items],
        "entropy": [entropy(item["ids"]) for item in items],
    }
    return {name: [round(float(each), DIGITS[name]) for each in values] for name, values in found.items()}
