"""Table of lossless lookahead, from records of the task `lookahead_cost` alone: one row per checkpoint, sampler and
number of states.

    rows(records)       numbers, also of the figure `lookahead`
    markdown(numbers)   text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.results.record import Record
from repro.results.store import by_cell, one_protocol, scale_of, summarise, to_frame
from repro.results.tables.text import measured

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "lookahead_cost"
MOST = 2.0
"""Tokens forwarded, relative to one token per step, that the best number of states may take at most."""
LABELS = ("scale", "checkpoint", "preset", "states")
METRICS = ("rounds", "forwards", "tokens", "equal")
COLUMNS = [*LABELS, "per_round", *METRICS, "rounds_se", "forwards_se", "best", "n", "seeds"]
TITLE = "Lossless lookahead"
CAPTION = (
    "One token per step in fewer rounds of forwards, the same tokens (docs/method.md#lookahead). m: most states of a "
    "text in a round. rounds per token: forwards one after another (one token per step: 1), on average over texts; "
    "tokens per round: its reciprocal. states per token: forwards of a whole text, for left-to-right networks of a few "
    "columns of it. tokens forwarded: relative to one token per step. equal: share of texts that are the same token "
    f"for token. best: the m of fewest rounds at up to {MOST:g} times the tokens forwarded. ±: standard error over n "
    "texts (at temperature 0 without a prompt all texts are one, but for random orders)."
)
REMEDY = "No records yet: `python -m repro.evals --suite lookahead ...`, then `python -m repro.results publish DIR`."


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with columns `COLUMNS`, sorted; `per_round` is 1 / `rounds`, and `best` marks one row per sampler, or none
    if `tokens` (forwarded, relative to one token per step) exceeds `MOST` at every number of states."""
    from pandas import DataFrame

    chosen = to_frame(each for each in records if each.question.task.get("part") == PART)
    one_protocol(chosen)
    made = []
    for shared, by_metric in by_cell(summarise(chosen)):
        for m in sorted(int(name.removeprefix("rounds_")) for name in by_metric if "rounds" in name):
            found = {name: by_metric[f"{name}_{m}"] for name in METRICS}
            made.append(
                {
                    "scale": scale_of(shared.recipe),
                    "checkpoint": shared.checkpoint,
                    "preset": shared.preset,
                    "states": m,
                    "per_round": 1 / found["rounds"].value,
                    **{name: each.value for name, each in found.items()},
                    **{f"{name}_se": found[name].se for name in ("rounds", "forwards")},
                    "n": int(shared.n),
                    "seeds": shared.seeds,
                }
            )
    numbers = DataFrame(made, columns=COLUMNS).sort_values(list(LABELS), kind="stable", ignore_index=True)
    cheap = numbers[numbers.tokens <= MOST].sort_values("rounds", kind="stable")
    best = cheap.drop_duplicates(["checkpoint", "preset"]).index
    return numbers.assign(best=["*" if place in best else "" for place in numbers.index])


def markdown(numbers: DataFrame) -> str:
    """Markdown of the table, with one section per scale."""
    from tabulate import tabulate

    text = [f"# {TITLE}", CAPTION]
    for scale, section in numbers.groupby("scale", sort=True):
        lines = [
            [
                *(each["checkpoint"], each["preset"], each["states"], f"{each['per_round']:.2f}"),
                *(measured(each[name], each[f"{name}_se"], 0.0) for name in ("rounds", "forwards")),
                *(f"{each['tokens']:.2f}", f"{each['equal']:.4g}", each["best"], each["n"]),
            ]
            for each in section.to_dict("records")
        ]
        headers = ["checkpoint", "sampler", "m", "tokens per round", "rounds per token", "states per token"]
        headers += ["tokens forwarded", "equal", "best", "n"]
        text += [f"## {scale}", tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)]
    return "\n\n".join([*text, *([REMEDY] if numbers.empty else [])]) + "\n"
