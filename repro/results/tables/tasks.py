"""Table of all tasks that have no table of their own: lm-eval's tasks, and tasks that users add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.core.stats import NORMAL, Interval, wilson
from repro.results.record import Record
from repro.results.shares import is_share
from repro.results.store import means, to_frame
from repro.results.tables.text import grid, measured, page, proportion

if TYPE_CHECKING:
    from pandas import DataFrame

ELSEWHERE = frozenset(
    {
        *("heldout_bound", "truncated_bound", "perplexity", "truncated_perplexity", "training_curve", "law"),
        *("decoding_speed", "cache_error", "choice_draws", "naive_samples", "naive_mauve"),
        *("lookahead_cost", "prompted_lookahead", "parallel_agreement", "pass_at_k"),
        *("generation_quality", "open_generation", "redrawn_generation", "generation_mauve", "open_mauve"),
        *("external_samples", "external_likeness"),
    }
)
"""Registered names of the task classes whose results other tables or figures show."""
OWN_TABLE = frozenset({"bound", "law", "sudoku", "speed", "lookahead", "lookahead_wide", "training"})
"""Names of tasks with a table or figure of their own."""
TITLE = "Tasks of lm-eval and of users"
CAPTION = (
    "One row per checkpoint, task, sampler and metric, as the task names it. In brackets the 95 % Wilson interval of a "
    "share of items that are each right or wrong; ±: half of the 95 % interval of any other metric, 1.96 standard "
    "errors; both are of the evaluation of one network. all equal: every item has this value, so that their spread is "
    "unknown; no interval: the task gives no standard error. sd: standard deviation over train seeds; n: items per "
    "seed. evaluation: beginning of the hash of the settings, where two rows differ in nothing else that is shown."
)
HEADER = ("checkpoint", "task", "sampler", "tokens per step", "metric", "value", "n", "seeds", "evaluation")
LEVEL = 0.95
LABELS = ("checkpoint", "task", "preset", "tokens_per_step", "metric")


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with one row per evaluation (all its seeds together) and metric. Columns: LABELS; `value`; its standard
    error `se`; `low` and `high`, the ends of the 95 % interval (NaN: unknown); `share`, whether it is a share of items;
    `sd_seeds`, standard deviation over train seeds; `n`, number of items; `seeds`, number of train seeds; `evaluation`,
    the beginning of the evaluation's hash ("" where the labels tell the rows apart)."""
    from pandas import DataFrame

    shown = [
        record
        for record in records
        if record.question.task.get("part") not in ELSEWHERE and record.labels.task not in OWN_TABLE
    ]
    frame = to_frame(shown)
    columns = [*LABELS, "value", "se", "low", "high", "share", "sd_seeds", "n", "seeds", "evaluation"]
    if frame.empty:
        return DataFrame(columns=columns)
    numbers = zip(frame.metric, frame.value, frame.se, frame.n, strict=True)
    frame["share"] = [is_share(*each) for each in numbers]
    shares = frame.groupby(["cell", "metric"]).share.all()
    found = means(frame)  # two evaluations with the same labels (other shots, other template) are two rows
    found["share"] = [shares[place] for place in zip(found.cell, found.metric, strict=True)]
    ends = [_interval(row) for row in found.itertuples()]
    found["low"], found["high"] = [each.low for each in ends], [each.high for each in ends]
    twice = found.duplicated(list(LABELS), keep=False)
    found["evaluation"] = found.cell.str[:8].where(twice, "")
    return found.sort_values([*LABELS, "evaluation"], kind="stable")[columns]


def _interval(row: Any) -> Interval:
    """95 % interval of a value (a row of `means` with its `share`): Wilson's for a share of items, else 1.96 standard
    errors; NaN where none is known: without a standard error, and where all items are equal."""
    if row.share:
        return wilson(row.value, int(row.n), LEVEL)
    half = NORMAL * row.se if row.se > 0 else math.nan
    return Interval(row.value - half, row.value + half)


def _value(row: dict[str, Any]) -> str:
    """Text of the value in `row` (a row of the frame of `rows`) with its interval, or with the reason why it has none,
    such as that all items are equal."""
    if row["share"]:
        return proportion(row["value"], Interval(row["low"], row["high"]), row["sd_seeds"])
    text = measured(row["value"], row["se"], row["sd_seeds"])
    reason = "" if row["se"] > 0 else ", all equal" if row["se"] == 0 else ", no interval"
    return text + reason


def markdown(numbers: DataFrame) -> str:
    """Markdown of the table of all tasks that have no table of their own, from the frame of `rows`."""
    lines = [
        [
            *(row[name] for name in LABELS),
            _value(row),
            *(str(row["n"]), str(row["seeds"]), row["evaluation"]),
        ]
        for row in numbers.to_dict("records")
    ]
    note = [] if lines else ["No records yet: `python -m repro.evals --ckpt DIR --tasks NAME`."]
    return page(TITLE, CAPTION, grid(HEADER, lines), *note)
