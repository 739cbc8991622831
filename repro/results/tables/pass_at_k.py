"""Table of pass@k (probability that at least one of k draws of an item is right) and flips (probability that of two
draws of an item one is right and one is wrong), from records of the task `pass_at_k` (docs/method.md#pass-at-k).

rows(records)       numbers, also of the figure `passes`
markdown(numbers)   text of the table
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from repro.results.record import Metric, Record
from repro.results.store import checkpoint_order, one_protocol, to_frame, tokens_order
from repro.results.tables.text import grid, measured, page

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "pass_at_k"
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


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with columns `COLUMNS`, one row per evaluation and k, sorted. `changed`: probability that of two draws of
    an item one is right and one is wrong, where the first draw is of this evaluation and the second of its sampler at
    one token per step (for an adaptive sampler: of `low_confidence` at one token per step); NaN where the two
    evaluations are the same one or the second is not stored. ValueError for two protocols (precision, what is counted,
    ...) in the records, for two records of one row, or for a record without the number of right draws of each item."""
    from pandas import DataFrame

    chosen = [record for record in records if record.question.task.get("part") == PART]
    for _, section in to_frame(chosen).groupby("suite"):
        one_protocol(section)
    shares: dict[tuple[str, str, str, str, int], tuple[Record, list[float]]] = {}
    for record in chosen:
        if _place(record) in shares:
            other = shares[_place(record)][0].id[:12]
            raise ValueError(
                f"records {other} and {record.id[:12]} would share a row of pass@k (same checkpoint, sampler"
                " and train seed); remove one of them"
            )
        shares[_place(record)] = record, _shares(record)
    made: list[dict[str, Any]] = []
    for (suite, checkpoint, preset, tokens, seed), (record, ours) in shares.items():
        single = shares.get((suite, checkpoint, preset if tokens else ADAPTIVE, "1", seed))
        reference = None if single is None or single[0] is record else single[1]
        changed, changed_se = (math.nan, math.nan) if reference is None else changes(ours, reference)
        metrics = record.answer.metrics
        flips = metrics["flips"]
        shared: dict[str, Any] = {
            **dict(zip(LABELS, (suite, checkpoint, preset, tokens), strict=True)),
            **{"flips": flips.value, "flips_se": _se(flips), "changed": changed, "changed_se": changed_se},
            **{"nfe": record.answer.nfe, "draws": record.question.task["draws"], "n": flips.n, "seed": seed},
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


def _place(record: Record) -> tuple[str, str, str, str, int]:
    labels = record.labels
    checkpoint = labels.marked(labels.checkpoint)
    return (
        *(labels.suite, checkpoint, labels.preset or "", labels.tokens_per_step or ""),
        record.question.checkpoint.seed,
    )


def _shares(record: Record) -> list[float]:
    """For each item of a record the share of its draws that are right; ValueError if the record does not hold the
    numbers of right draws."""
    curve = record.answer.curve
    if curve is UNSET or "correct" not in curve:
        raise ValueError(
            f"record {record.id[:12]} lacks the number of right draws of each item; remove it and evaluate its suite"
            " again"
        )
    return [count / record.question.task["draws"] for count in curve["correct"]]


def changes(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Probability that of two independent draws of an item, one of each sampler, one is right and one is wrong: the
    mean over items of p (1 - q) + q (1 - p), and its standard error. `ours`, `theirs`: p and q of each item, its share
    of right draws by either sampler."""
    each = [p * (1 - q) + q * (1 - p) for p, q in zip(ours, theirs, strict=True)]
    return fmean(each), stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan


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
