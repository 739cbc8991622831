"""Table of lossless lookahead, from records of the tasks `lookahead_cost` and `prompted_lookahead`. Lookahead decodes
the same tokens in fewer rounds: a round is one batched forward pass of up to m states of a text, that is of the text
after 0 to m - 1 guessed steps (docs/method.md#lookahead). One row per checkpoint, sampler and m. A second table has the
samplers that commit several tokens at once, which change the text, and their quality.

    rows(records)              numbers, also of the figure `lookahead`
    beside(records)            rules that commit several tokens at once, of the same checkpoints
    tables(records)            files lookahead.md, lookahead.csv, lookahead_beside.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.results.record import Record
from repro.results.store import by_cell, one_protocol, scale_of, summarise, to_frame
from repro.results.tables.text import csv_text, grid, measured, page

if TYPE_CHECKING:
    from pandas import DataFrame

PARTS = frozenset({"lookahead_cost", "prompted_lookahead"})
PARALLEL = ("threshold_0.9", "factor_1", "entropy_bound_0.1")
"""Presets of the rules that commit several tokens at once, in the default setting of each."""
QUALITY = {
    "sudoku": ("accuracy", "low_confidence", "puzzles solved"),
    "law": ("excess", "low_confidence:temperature=1.0", "excess over the true law, nats per token"),
    "agreement": ("same", "", "tokens equal to those of one per step"),
}
"""Task -> its metric, the preset whose value at one token per step is printed for comparison, and what the metric
is."""
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
BESIDE = (
    "Rules that commit several tokens in one forward, of the same checkpoints: they change the texts. tokens per "
    "round: realised, of one state per token. quality: what the last column names; one per step: the same of low "
    "confidence at one token per step, and so of its lookahead."
)
BESIDE_COLUMNS = [
    "scale",
    "checkpoint",
    "preset",
    "per_round",
    "measure",
    "quality",
    "quality_se",
    "single",
    "n",
    "seeds",
]
REMEDY = "No records yet: `python -m repro.evals --suite lookahead ...`, then `python -m repro.results publish DIR`."


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with columns `COLUMNS`, sorted, one row per checkpoint, sampler and m (`states`), where lookahead decodes
    in rounds: a round is one batched forward pass of up to m states of a text, that is of the text after 0, 1, 2, ...
    guessed steps. `rounds` and `forwards` (states forwarded) are per token, `per_round` is tokens per round; `tokens`:
    tokens forwarded, relative to one token per step; `equal`: share of texts equal to those of one token per step;
    `best`: `*` for the row of fewest rounds whose `tokens` are at most 2 (MOST). ValueError if the records have several
    protocols."""
    from pandas import DataFrame

    chosen = to_frame(each for each in records if each.question.task.get("part") in PARTS)
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


def beside(records: Sequence[Record]) -> DataFrame:
    """Frame with columns `BESIDE_COLUMNS`, sorted: samplers that commit several tokens at once (PARALLEL) on the
    checkpoints of `rows`. `per_round`: realised tokens per forward pass; `quality`: value of the metric that `measure`
    names (see QUALITY); `single`: this metric at one token per step (NaN where it is not stored)."""
    from pandas import DataFrame

    looked = {r.labels.checkpoint for r in records if r.question.task.get("part") in PARTS}
    frame = to_frame(r for r in records if r.labels.checkpoint in looked and r.labels.task in QUALITY)
    made = []
    for task, (metric, reference, measure) in QUALITY.items():
        found = frame[(frame.task == task) & (frame.metric == metric)]
        for _, section in found.groupby(["suite", "checkpoint"], sort=True):
            one_protocol(section)
            cells = [shared for shared, _ in by_cell(summarise(section))]
            single = next(
                (e.value for e in cells if (e.preset, e.tokens_per_step) == (reference, "1")), float("nan")
            )
            made += [
                {
                    **{"scale": scale_of(each.recipe), "checkpoint": each.checkpoint, "preset": each.preset},
                    **{"per_round": each.tokens_per_nfe, "measure": measure, "quality": each.value},
                    **{"quality_se": each.se, "single": 1.0 if task == "agreement" else single},
                    **{"n": int(each.n), "seeds": each.seeds},
                }
                for each in cells
                if each.preset.partition(":")[0] in PARALLEL
            ]
    return DataFrame(made, columns=BESIDE_COLUMNS).sort_values(
        list(LABELS[:3]), kind="stable", ignore_index=True
    )


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Texts of lookahead.md, lookahead.csv (numbers of `rows`) and lookahead_beside.csv (`beside`), by file name."""
    numbers, others = rows(records), beside(records)
    return {
        "lookahead.md": markdown(numbers, others),
        "lookahead.csv": csv_text(numbers),
        "lookahead_beside.csv": csv_text(others),
    }


def markdown(numbers: DataFrame, others: DataFrame) -> str:
    """Markdown of the table from the frames of `rows` (`numbers`) and `beside` (`others`), one section per scale."""
    parts = [CAPTION, *([] if others.empty else [BESIDE])]
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
        parts += [f"## {scale}", grid(headers, lines)]
        lines = [
            [
                *(each["checkpoint"], each["preset"], f"{each['per_round']:.2f}"),
                *(measured(each["quality"], each["quality_se"], 0.0), measured(each["single"], 0.0, 0.0)),
                *(each["measure"], each["n"]),
            ]
            for each in others[others.scale == scale].to_dict("records")
        ]
        headers = ["checkpoint", "sampler", "tokens per round", "quality", "one per step", "measure", "n"]
        if lines:
            parts += ["### Rules that commit several tokens", grid(headers, lines)]
    return page(TITLE, *parts, *([REMEDY] if numbers.empty else []))
