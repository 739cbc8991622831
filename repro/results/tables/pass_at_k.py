"""Table of pass@k (probability that at least one of k draws of an item is right) and flips (probability that of two
draws of an item one is right and one is wrong), from records of the task `pass_at_k` (docs/method.md#pass-at-k).

rows(records)       numbers, also of the figure `passes`
markdown(numbers)   text of the table
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from repro.core.stats import draws_differ, pass_at_k
from repro.results.record import Metric, Record
from repro.results.store import checkpoint_order, one_protocol, to_frame, tokens_order
from repro.results.tables.text import grid, measured, page

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "pass_at_k"
_Place = tuple[str, str, str, str, int]
"""Suite, checkpoint, preset, tokens per step and train seed of a row."""
LABELS = ("suite", "checkpoint", "preset", "tokens_per_step")
COLUMNS = [
    *LABELS,
    "k",
    "value",
    "se",
    "flips",
    "flips_se",
    "changed",
    "changed_se",
    "nfe",
    "draws",
    "n",
    "seed",
]
ADAPTIVE = "low_confidence"
"""Preset with whose texts, at one token per step, those of adaptive rules are compared (column `changed`)."""
TITLE = "pass@k and flips"
CAPTION = (
    "pass@k: probability that one of k draws of an item is right, without bias from all draws (arXiv 2107.03374 eq. "
    "1); pass@1 is the accuracy. flips: probability that of two draws of an item one is right and one is wrong. "
    "changed: the same of a draw and one of the same sampler at one token per step (adaptive rules: of "
    "low_confidence), at least the difference of their accuracies. ±: half of a 95 % interval over n items, 1.96 "
    "standard errors."
)
REMEDY = "No records yet: `python -m repro.evals --suite passes.sudoku`, then `python -m repro.results publish DIR`."


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """The draws of one network under one sampler: its `records`, one for each sampling seed, the number of `draws` of
    each item, and how many of these are right (`correct`)."""

    records: tuple[Record, ...]
    draws: int
    correct: tuple[float, ...]

    @property
    def shares(self) -> list[float]:
        """For each item the share of its draws that are right."""
        return [count / self.draws for count in self.correct]

    def metrics(self) -> dict[str, Metric]:
        """`flips` and each `pass_k` of the records: as stored, or of several records computed from all their draws."""
        stored = self.records[0].answer.metrics
        if len(self.records) == 1:
            return stored
        counts = [round(count) for count in self.correct]
        found = {
            name: [pass_at_k(self.draws, c, int(name.removeprefix("pass_"))) for c in counts]
            for name in stored
            if name.startswith("pass_")
        }
        found["flips"] = [draws_differ(self.draws, c) for c in counts]
        return {
            name: Metric(value=value, se=None if math.isnan(se) else se, n=len(counts))
            for name, values in found.items()
            for value, se in (_mean(values),)
        }


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with columns `COLUMNS`, one row per evaluation and k, sorted; the draws of several sampling seeds of one
    network are those of one evaluation. `changed`: probability that of two draws of an item one is right and one is
    wrong, where the first draw is of this evaluation and the second of its sampler at one token per step (for an
    adaptive sampler: of `low_confidence` at one token per step); NaN where the two evaluations are the same one, or the
    second is not stored or was made with another number of items. ValueError for two protocols (precision, what is
    counted, ...), two other records of one row, or a record without the number of right draws of each item."""
    from pandas import DataFrame

    chosen = [record for record in records if record.question.task.get("part") == PART]
    for _, section in to_frame(chosen).groupby("suite"):
        one_protocol(section)
    placed: dict[_Place, list[Record]] = {}
    for record in chosen:
        placed.setdefault(_place(record), []).append(record)
    evaluations = {place: _evaluation(own) for place, own in placed.items()}
    made: list[dict[str, Any]] = []
    for (suite, checkpoint, preset, tokens, seed), ours in evaluations.items():
        single = evaluations.get((suite, checkpoint, preset if tokens else ADAPTIVE, "1", seed))
        paired = single is not None and single is not ours and len(single.correct) == len(ours.correct)
        changed, changed_se = changes(ours.shares, single.shares) if paired else (math.nan, math.nan)
        metrics = ours.metrics()
        flips = metrics["flips"]
        costs = [record.answer.nfe for record in ours.records if record.answer.nfe is not None]
        shared: dict[str, Any] = {
            **dict(zip(LABELS, (suite, checkpoint, preset, tokens), strict=True)),
            **{"flips": flips.value, "flips_se": _se(flips), "changed": changed, "changed_se": changed_se},
            **{"nfe": fmean(costs) if costs else None, "draws": ours.draws, "n": flips.n, "seed": seed},
        }
        for name, found in metrics.items():
            if name.startswith("pass_"):
                k = int(name.removeprefix("pass_"))
                made.append(shared | {"k": k, "value": found.value, "se": _se(found)})
    made.sort(
        key=lambda row: (
            *(row["suite"], checkpoint_order(row["checkpoint"]), row["preset"]),
            *(tokens_order(row["tokens_per_step"]), row["seed"], row["k"]),
        )
    )
    return DataFrame(made, columns=COLUMNS)


def _se(metric: Metric) -> float:
    return math.nan if metric.se is None else metric.se


def _place(record: Record) -> _Place:
    labels = record.labels
    checkpoint = labels.marked(labels.checkpoint)
    return (
        *(labels.suite, checkpoint, labels.preset or "", labels.tokens_per_step or ""),
        record.question.checkpoint.seed,
    )


def _evaluation(records: Sequence[Record]) -> _Evaluation:
    """All draws of the records of one row; ValueError unless they differ in their sampling seeds and in nothing else,
    and each has the number of right draws of every item."""
    first = records[0]
    seeds = {record.question.seed for record in records}
    for record in records[1:]:
        alike = (record.cell, record.question.checkpoint.digest) == (
            first.cell,
            first.question.checkpoint.digest,
        )
        if not alike or len(seeds) < len(records):
            raise ValueError(
                f"records {first.id[:12]} and {record.id[:12]} would share a row of pass@k (same checkpoint, sampler"
                " and train seed); remove one of them"
            )
    right = [_correct(record) for record in records]
    return _Evaluation(
        records=tuple(records),
        draws=len(records) * first.question.task["draws"],
        correct=tuple(map(sum, zip(*right, strict=True))),
    )


def _correct(record: Record) -> list[float]:
    """The number of right draws of each item of a record; ValueError if the record does not hold it."""
    curve = record.answer.curve
    if curve is UNSET or "correct" not in curve:
        raise ValueError(
            f"record {record.id[:12]} lacks the number of right draws of each item; remove it and evaluate its suite"
            " again"
        )
    return curve["correct"]


def changes(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Probability that of two independent draws of an item, one of each sampler, one is right and one is wrong: the
    mean over items of p (1 - q) + q (1 - p), and its standard error. `ours`, `theirs`: p and q of each item, its share
    of right draws by either sampler."""
    return _mean([p * (1 - q) + q * (1 - p) for p, q in zip(ours, theirs, strict=True)])


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean over items and its standard error, NaN for one item."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def markdown(numbers: DataFrame) -> str:
    """Markdown of the table of pass@k and flips from the frame of `rows`: a section per suite, a column per k."""
    parts = [CAPTION]
    for suite, section in numbers.groupby("suite", sort=True):
        ks = sorted(section.k.unique())
        lines = []
        for _, line in section.groupby([*LABELS, "seed"], sort=False):
            first = line.iloc[0]
            by_k = {row["k"]: measured(row["value"], row["se"], 0.0) for row in line.to_dict("records")}
            lines.append(
                [
                    *(first.checkpoint, first.preset, first.tokens_per_step, *(by_k.get(k, "") for k in ks)),
                    *(
                        measured(first.flips, first.flips_se, 0.0),
                        measured(first.changed, first.changed_se, 0.0),
                    ),
                    *(f"{first.nfe:.4g}", first.draws, first.n, first.seed),
                ]
            )
        headers = ["checkpoint", "sampler", "tokens per step", *(f"pass@{k}" for k in ks)]
        headers += ["flips", "changed", "NFE", "draws", "n", "train seed"]
        parts += [f"## {suite}", grid(headers, lines)]
    return page(TITLE, *parts, *([REMEDY] if numbers.empty else []))
