"""Tables of the paper, computed from records alone: results/tables/NAME.md to read, NAME.csv for programs.

`python -m repro.report` writes them. They are a pure function of the records: rows in a fixed order, at most six
significant digits, the same bytes on any machine. A *cell* is an evaluation under all its seeds
(`repro.results.record`), and gives one row of a table. The scale of a recipe is what follows `@` in its name:
`mdlm@nano` has scale `nano`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repro.core.files import RESULTS
from repro.core.stats import Interval, wilson
from repro.results.store import (
    by_cell,
    checkpoint_order,
    one_protocol,
    scale_of,
    summarise,
    to_frame,
    tokens_order,
)
from repro.results.tables import lookahead, pass_at_k, perplexities, speed, speed_text, tasks, text_quality
from repro.results.tables.latex import WIDTH, latex_of_markdown
from repro.results.tables.text import csv_text, grid, measured, page, proportion
from repro.results.versions import largest, latest

if TYPE_CHECKING:
    from pandas import DataFrame

    from repro.results.record import Record

TABLES = RESULTS / "tables"
LEVEL = 0.95  # of the interval of an accuracy


@dataclass(frozen=True, kw_only=True)
class Table:
    """Definition of the table of one task. `labels`, `metrics` and `costs` map the name of a column in the frame of
    records to its printed header."""

    name: str
    title: str
    task: str
    labels: Mapping[str, str]
    metrics: Mapping[str, str]
    costs: Mapping[str, str]
    caption: str


ENTRIES = (
    Table(
        name="bounds",
        title="Held-out likelihood",
        task="bound",
        labels={"checkpoint": "checkpoint"},
        metrics={"nll_bound": "nll bound", "nll_exact": "exact nll", "gap": "gap", "ppl_bound": "ppl bound"},
        costs={},
        caption=(
            "nll: negative log-likelihood in nats per token. A bound is an upper bound on the nll of the "
            "model, prior and tail terms included, whatever loss the network was trained with; the note marks losses "
            "that are no bound themselves, and the levels alpha (weight of the clean token) that training drew, if not "
            "all: elsewhere the bound reads outputs that were never trained. exact nll: "
            "that of the language which generated the data, on the same rows. gap: bound minus exact nll, "
            "paired by row."
        ),
    ),
    Table(
        name="law",
        title="Law of the samples",
        task="law",
        labels={"checkpoint": "checkpoint", "preset": "sampler", "tokens_per_step": "tokens per step"},
        metrics={
            "excess": "excess",
            "true_excess": "excess, true samples",
            "bigram": "bigram",
            "true_bigram": "bigram, true samples",
        },
        costs={"nfe": "NFE"},
        caption=(
            "excess: mean nll of the samples under the true law minus its entropy, in nats per token "
            "(negative: the samples concentrate near the modes). bigram: unbiased squared distance of "
            "bigram frequencies. true samples: the same statistics of as many samples of the true law. NFE: "
            "forwards per row. oracle: the exact denoiser, so that only the error of the sampler remains."
        ),
    ),
    Table(
        name="sudoku",
        title="4x4 sudoku",
        task="sudoku",
        labels={"recipe": "recipe", "preset": "sampler", "tokens_per_step": "tokens per step"},
        metrics={"accuracy": "accuracy"},
        costs={"nfe": "NFE", "tokens_per_nfe": "tokens per NFE"},
        caption=(
            "accuracy: share of puzzles completed validly, in brackets its 95 % Wilson interval for n "
            "puzzles (the same puzzles for every seed). tokens per step: planned (empty: adaptive); tokens "
            "per NFE: realised."
        ),
    ),
)
UNCERTAINTY = (
    "±: half of the 95 % interval of the evaluation of one network, 1.96 standard errors (root mean square over "
    "train seeds). With several train seeds a value is their mean and sd their standard deviation. n: rows "
    "evaluated per seed; seeds: number of train seeds."
)


# --- rows ---------------------------------------------------------------------------------------------------
def build(table: Table, rows: DataFrame) -> DataFrame:
    """Frame of a table, one row per cell (an evaluation under all its seeds): labels; each metric, its standard error
    `_se` and its standard deviation over train seeds `_sd_seeds`; costs; number of evaluated rows `n`, number of train
    `seeds`, `note`.

    `rows` is a frame of records (`store.to_frame`). ValueError if records of one section (suite and scale) have
    different protocols, or if two evaluations have the same labels and so would be one row.
    """
    from pandas import DataFrame

    rows = rows[(rows.task == table.task) & rows.metric.isin(list(table.metrics))]
    made = []
    for _, section in rows.assign(scale=rows.recipe.map(scale_of)).groupby(["suite", "scale"], sort=True):
        one_protocol(section)
        made += [_row(table, shared, by_metric) for shared, by_metric in by_cell(summarise(section))]
    made.sort(
        key=lambda row: (
            *(row["suite"], row["scale"], checkpoint_order(row.get("checkpoint", row.get("recipe", "")))),
            *(row.get("preset", ""), tokens_order(row.get("tokens_per_step", ""))),
            row["note"],
        )
    )
    return DataFrame(made, columns=_columns(table))


def _columns(table: Table) -> list[str]:
    columns = ["suite", "scale", *table.labels]
    for name in table.metrics:
        columns += [name, f"{name}_se", f"{name}_sd_seeds"]
        columns += [f"{name}_low", f"{name}_high"] if name == "accuracy" else []
    return [*columns, *table.costs, "n", "seeds", "note"]


def _row(table: Table, shared: Any, by_metric: Mapping[str, Any]) -> dict[str, Any]:
    """Row of the table `table` for one cell (an evaluation under all its seeds). `shared`: a row of the frame of
    `store.summarise` that has the labels and costs of the cell; `by_metric`: metric -> the row that has its mean and
    errors (see `store.by_cell`)."""
    row = {name: getattr(shared, name) for name in ("suite", *table.labels, *table.costs, "note", "seeds")}
    row |= {"scale": scale_of(shared.recipe), "n": min(each.n for each in by_metric.values())}
    for name in table.metrics:
        if name in by_metric:
            found = by_metric[name]
            row |= {name: found.value, f"{name}_se": found.se, f"{name}_sd_seeds": found.sd_seeds}
            if name == "accuracy":
                row[f"{name}_low"], row[f"{name}_high"] = wilson(found.value, int(found.n), LEVEL)
    return row


def markdown(table: Table, numbers: DataFrame) -> str:
    """Markdown of a table from its frame (`build`), with one section per (suite, scale), because these differ in their
    data."""
    parts = [table.caption, UNCERTAINTY]
    sections = numbers.groupby(["suite", "scale"], sort=True)
    for _, section in sections:
        suite, scale = section.suite.iloc[0], section.scale.iloc[0]
        name = scale or "full scale"
        parts += [f"## {name}" if scale == suite else f"## {name} (suite {suite})", _section(table, section)]
    if numbers.empty:
        parts += [
            _section(table, numbers),
            "No records yet: `make reproduce`, then `python -m repro.results publish DIR`.",
        ]
    return page(table.title, *parts)


def _section(table: Table, section: DataFrame) -> str:
    header = [*table.labels.values(), *table.metrics.values(), *table.costs.values(), "n", "seeds", "note"]
    lines = []
    for row in section.to_dict("records"):
        cells = [row[name] for name in table.labels]
        for name in table.metrics:
            sd = row[f"{name}_sd_seeds"]
            if name == "accuracy":
                interval = Interval(row["accuracy_low"], row["accuracy_high"])
                cells.append(proportion(row[name], interval, sd))
            else:
                cells.append(measured(row[name], row[f"{name}_se"], sd))
        cells += ["" if math.isnan(row[name]) else f"{row[name]:.4g}" for name in table.costs]
        lines.append(
            [*cells, str(row["n"]), str(row["seeds"]), row["note"].replace("objective", "training loss")]
        )
    return grid(header, lines)


def tables(stored: Sequence[Record]) -> dict[str, str]:
    """Texts of all tables of the records `stored`, by file name (Markdown and CSV; `with_latex` adds LaTeX);
    `repro.results.certificates` makes those of certificates."""
    records = largest(stored)
    newest = latest(records)  # tables without a column `note` omit records of older versions
    files = text_quality.tables(newest) | perplexities.tables(newest) | lookahead.tables(newest)
    for table in ENTRIES:
        numbers = build(table, to_frame(record for record in records if record.labels.task == table.task))
        files[f"{table.name}.md"] = markdown(table, numbers)
        files[f"{table.name}.csv"] = csv_text(numbers)
    for name, numbers, text in (
        ("tasks", tasks.rows(newest), tasks.markdown),
        ("speed", speed.speeds(newest), speed_text.speeds),
        ("parallelism", speed.curves(newest), speed_text.curves),
        ("pass_at_k", pass_at_k.rows(newest), pass_at_k.markdown),
    ):
        files[f"{name}.md"] = text(numbers)
        files[f"{name}.csv"] = csv_text(numbers)
    return files


def with_latex(files: Mapping[str, str], inches: float = WIDTH) -> dict[str, str]:
    """`files` and, beside each Markdown file that holds a table, NAME.tex with the same table for `\\input`, at most
    `inches` wide; where it has further tables or does not fit a page, also NAME-2.tex and so on."""
    made = {
        f"{name.removesuffix('.md')}{f'-{i}' if i > 1 else ''}.tex": part
        for name, text in files.items()
        if name.endswith(".md")
        for i, part in enumerate(latex_of_markdown(text, inches), start=1)
    }
    return {**files, **made}
