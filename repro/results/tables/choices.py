"""Table of what single choices of recipe `duo` (the training script from which this project started) cost: variants of
the recipe (arms) at scale nano, compared in pairs of equal train seed.

`python -m scripts.choices` trains the arms; `python -m repro.report` makes choices.md and choices.csv from their
records (docs/method.md#duo-mended).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from repro.core.files import RESULTS
from repro.core.stats import mean_interval
from repro.results.record import Record
from repro.results.store import collect, one_protocol, to_frame
from repro.results.tables.text import csv_text, grid, page

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = RESULTS / "choices"
"""Records of the arms (scripts/choices.py)."""
ARMS = {
    "duo": "as the reference scripts have it",
    "duo_unscaled": "no view scale",
    "duo_own_window": "the signal levels of Duo's own curriculum",
    "duo_every_level": "every noise level",
    "duo_mended": "every noise level, no view scale",
    "duo_mended_ce": "the same, cross-entropy instead of symmetric KL",
    "duo_nelbo": "the loss of Duo's paper: curriculum, then NELBO",
}
"""Arm -> what differs from the first one."""
MEASURES = {
    "bound": ("bound", "nll_bound", None),
    "excess": ("law", "excess", "1"),
    "excess, 4 a step": ("law", "excess", "4"),
}
"""Column -> task, metric and tokens per step."""
LEVEL = 0.95
TITLE = "What each choice of the founding Duo costs"
CAPTION = (
    "Every arm is recipe `duo` at nano with the change named; arms of one train seed share initial weights, order of "
    "the data and noise. bound: upper bound on the negative log-likelihood of held-out rows, nats per token. excess: "
    "mean negative log-likelihood of the samples (`ancestral`, one or four tokens per step) under the true law minus "
    "its entropy, nats per token; lower is better in every column. Mean over train seeds, sd: their standard "
    "deviation; difference: mean difference from `duo` over pairs of equal train seed, in brackets its 95 % interval."
)


def stored() -> list[Record]:
    """The records of all arms (variants of recipe `duo`); [] where there is no results/choices, as in an installed
    package."""
    return collect(FOLDER) if FOLDER.is_dir() else []


def rows(records: Sequence[Record]) -> DataFrame:
    """Frame with a row for each arm (variant of recipe `duo`) and measure (bound on -log p, or excess of the samples'
    -log p over the entropy; see MEASURES): `arm`, `says` (what differs), `measure`, `seeds` (number of train seeds),
    `value` (mean over them) and `sd`; for every arm except the first also `difference` from the first, paired by train
    seed, and its 95 % interval from `low` to `high`.

    ValueError if arms were evaluated under two protocols (precision, what is counted, ...) or have different train
    seeds.
    """
    from pandas import DataFrame

    columns = ["arm", "says", "measure", "seeds", "value", "sd", "difference", "low", "high"]
    frame = to_frame(records)
    made = []
    for measure, (task, metric, tokens) in MEASURES.items():
        asked = frame[(frame.task == task) & (frame.metric == metric)]
        asked = asked[asked.tokens_per_step == (tokens or "")]
        if asked.empty:
            continue
        one_protocol(asked)
        values = {
            arm: dict(zip(found.train_seed, found.value, strict=True))
            for arm in ARMS
            if not (found := asked[asked.recipe == f"{arm}@nano"]).empty
        }
        first, *_ = values
        for arm, own in values.items():
            if own.keys() != values[first].keys():
                raise ValueError(
                    f"arm {arm} has train seeds {sorted(own)}, arm {first} has {sorted(values[first])};"
                    " `python -m scripts.choices` trains those that are missing"
                )
            row = [arm, ARMS[arm], measure, len(own), fmean(own.values()), stdev(own.values())]
            apart = [own[seed] - values[first][seed] for seed in own]
            made.append([*row, *([fmean(apart), *mean_interval(apart, LEVEL)] if arm != first else [])])
    return DataFrame(made, columns=columns)


def markdown(numbers: DataFrame) -> str:
    """Text of choices.md from the frame of `rows`: a line for each arm (variant of recipe `duo`)."""
    header = ["arm", "what differs"]
    for measure in MEASURES:
        header += [measure, f"difference of {measure}"]
    lines = []
    for arm, own in numbers.groupby("arm", sort=False):
        line = [arm, own.says.iloc[0]]
        for each in own.to_dict("records"):
            line.append("{value:.3f}, sd {sd:.3f}".format(**each))
            paired = not math.isnan(each["difference"])
            line.append("{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**each) if paired else "")
        lines.append(line)
    return page(TITLE, CAPTION, grid(header, lines), f"{numbers.seeds.iloc[0]} train seeds.")


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Texts of choices.md and choices.csv, by file name; no texts without records."""
    if not records:
        return {}
    numbers = rows(records)
    return {"choices.md": markdown(numbers), "choices.csv": csv_text(numbers)}
