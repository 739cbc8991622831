"""Table of all tasks that have no table of their own: lm-eval's tasks, and tasks that users add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.results.record import Record
from repro.results.store import means, to_frame
from repro.results.tables.text import measured

if TYPE_CHECKING:
    from pandas import DataFrame

ELSEWHERE = frozenset(
    {
        *("heldout_bound", "truncated_bound", "perplexity", "truncated_perplexity", "training_curve", "law"),
        *("decoding_speed", "lookahead_cost", "cache_error", "choice_draws", "naive_samples", "naive_mauve"),
        *("generation_quality", "open_generation", "redrawn_generation", "generation_mauve", "open_mauve"),
        *("external_samples", "external_likeness"),
    }
)
"""Parts of tasks that other tables or figures show."""
OWN_TABLE = frozenset({"bound", "law", "sudoku", "speed", "lookahead", "lookahead_wide", "training"})
"""Names of tasks with a table or figure of their own."""
TITLE = "Tasks of lm-eval and of users"
CAPTION = (
    "One row per checkpoint, task, sampler and metric, as the task names it. ±: half of the 95 % interval of the "
    "evaluation of one network, 1.96 standard errors; sd: standard deviation over train seeds; n: items per seed. "
    "evaluation: beginning of the hash of the settings, where two rows differ in nothing else that is shown."
)
HEADER = ("checkpoint", "task", "sampler", "tokens per step", "metric", "value", "n", "seeds", "evaluation")
LABELS = ("checkpoint", "task", "preset", "tokens_per_step", "metric")


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with one row per evaluation (under all its seeds) and metric: LABELS, value, se, sd_seeds, n, seeds and
    `evaluation` ("" where the labels tell the rows apart)."""
    from pandas import DataFrame

    shown = [
        record
        for record in records
        if record.question.task.get("part") not in ELSEWHERE and record.labels.task not in OWN_TABLE
    ]
    frame = to_frame(shown)
    columns = [*LABELS, "value", "se", "sd_seeds", "n", "seeds", "evaluation"]
    if frame.empty:
        return DataFrame(columns=columns)
    found = means(frame)  # two evaluations with the same labels (other shots, other template) are two rows
    twice = found.duplicated(list(LABELS), keep=False)
    found["evaluation"] = found.cell.str[:8].where(twice, "")
    return found.sort_values([*LABELS, "evaluation"], kind="stable")[columns]


def markdown(numbers: DataFrame) -> str:
    """Markdown of the table from its frame (`rows`)."""
    from tabulate import tabulate

    lines = [
        [
            *(row[name] for name in LABELS),
            measured(row["value"], row["se"], row["sd_seeds"]),
            *(str(row["n"]), str(row["seeds"]), row["evaluation"]),
        ]
        for row in numbers.to_dict("records")
    ]
    table = tabulate(lines, headers=HEADER, tablefmt="github", disable_numparse=True)
    note = [] if lines else ["No records yet: `python -m repro.evals --ckpt DIR --tasks NAME`."]
    return "\n\n".join([f"# {TITLE}", CAPTION, table, *note]) + "\n"
