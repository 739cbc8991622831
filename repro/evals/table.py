"""Tables of a checkpoint's records (stored results): one row per sampler preset and tokens per step, one column per
metric with its interval, and the NFE (number of forwards per row of tokens).

    rows(records)                        one dict per record and metric, as `--json` prints them
    show(console, title, records)        prints the tables

Metrics that do not depend on a sampler are printed above, one line each; metrics whose names end in a number
(`accuracy_16`) have one line per number and one column per name. Intervals are 95 %: Wilson's for shares of items, else
value ± 1.96 standard errors. A table wider than the console is split into several. Speeds have tables of their own, one
per engine, device, clock and batch size.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from repro.core.cli import broken
from repro.core.columns import packed
from repro.results.record import Metric, Record
from repro.results.shares import interval, shown
from repro.results.tables.parallelism import timed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from repro.evals.runner import Skip

TRUE = "true_"
"""Prefix of a metric that is computed on samples of the true distribution, as many as the model's."""
NUMBERED = re.compile(r"(.+)_(\d+)")
ADAPTIVE = "adaptive"
UNBOUNDED = 1 << 16
"""Console width in characters at which a table is laid out to measure how wide it is without line breaks."""
Row = dict[str, Any]
Value = TypeVar("Value")
Column = tuple[str, str]
"""Name of a task and of one of its metrics."""
Names = dict[str, str]
"""Digest of a checkpoint -> its name in tables."""
HASHED = re.compile(r"\+[0-9a-f]{6}\b")
"""The part of a recipe's name that marks data or settings of the user's own: + and six digits of the recipe's
digest."""


def rows(records: Iterable[Record], given: Mapping[str, str] | None = None) -> list[Row]:
    """One dict per record and metric: checkpoint (its name in tables), task, preset, tokens per step, seed, metric,
    value, standard error (`se`), n, ends of the 95 % interval (`low`, `high`; None: unknown), NFE and tokens per NFE.
    `given`: digest of a checkpoint -> what the user called it."""
    found, records = [], list(records)
    names = checkpoints(records, given)
    for record in records:
        labels, answer = record.labels, record.answer
        shared = {name: getattr(labels, name) for name in ("task", "preset", "tokens_per_step")}
        shared |= {"seed": record.question.seed}
        shared = {"checkpoint": names[record.question.checkpoint.digest], **shared}
        cost = {name: getattr(answer, name) for name in ("nfe", "tokens_per_nfe")}
        for name, metric in answer.metrics.items():
            low, high = interval(name, metric) or (None, None)
            found.append({**shared, "metric": name, **metric.data(), "low": low, "high": high, **cost})
    return found


def show(
    console: Console, title: str, records: Sequence[Record], given: Mapping[str, str] | None = None
) -> None:
    """Print the tables of `records` on the console, those of evaluations without a sampler first; `given`: digest of a
    checkpoint -> what the user called it."""
    names = checkpoints(records, given)
    free = [r for r in records if r.question.sampler is None]
    drawn = [r for r in records if r.question.sampler is not None]
    head = broken(f"{title} (± and brackets: 95 % intervals)", console.width)
    console.print("\n".join(head), highlight=False, markup=False)
    for table in (*_free(console, free, names), *_numbered(free, names)):
        _print(console, table)
    if drawn:
        columns = dict.fromkeys((r.labels.task, name) for r in drawn for name in r.answer.metrics)
        for table in _fitting(console, drawn, names, [c for c in columns if not c[1].startswith(TRUE)]):
            _print(console, table)
    timed: dict[tuple[str, ...], list[Record]] = {}
    for record in drawn:
        if record.measurements.speed:
            timed.setdefault(_clocked(record), []).append(record)
    for some in timed.values():
        _print(console, _timed(some, names))


def _fitting(
    console: Console, records: Sequence[Record], names: Names, columns: Sequence[Column]
) -> Iterator[Table]:
    """Tables of the metrics `columns`, each one a (task, metric): a single table if it fits the width of the console,
    else several, divided between tasks or, for one task, between its metrics."""
    table = _grid(records, names, columns)
    if len(columns) == 1 or _needed(console, table) <= console.width:
        yield table
        return
    tasks = list(dict.fromkeys(task for task, _ in columns))
    left = tasks[: len(tasks) // 2]
    cut = sum(task in left for task, _ in columns) or len(columns) // 2
    yield from _fitting(console, records, names, columns[:cut])
    yield from _fitting(console, records, names, columns[cut:])


def _needed(console: Console, table: Table) -> int:
    """Width of the table, in characters, without line breaks."""
    return console.measure(table, options=console.options.update(max_width=UNBOUNDED)).maximum


def _print(console: Console, table: Table) -> None:
    """Print the table; where the console is too narrow, names in the table are broken into lines. No number is ever
    cut: a table that is still too wide is printed wider than the console."""
    for longest in (24, 16, 8):
        if _needed(console, table) <= console.width:
            break
        for column in table.columns:
            if column.justify == "left":
                column._cells = [
                    packed(each, longest) if isinstance(each, str) else each for each in column._cells
                ]
    before, console.width = console.width, max(console.width, _needed(console, table))
    console.print(table)
    console.width = before


def _table(left: Sequence[str], right: Sequence[str], caption: str | None = None) -> Table:
    from rich.table import Table

    made = Table(caption=caption, caption_justify="left")
    for head in left:
        made.add_column(head, no_wrap=True)
    for head in right:
        made.add_column(head, justify="right", no_wrap=True)
    return made


def reasons(skipped: Iterable[Skip]) -> Iterator[str]:
    """Lines of text, one for each reason why tasks, samplers or combinations of them were not run, with the names of
    all that were skipped for this reason."""
    found: dict[str, list[str]] = {}
    for skip in skipped:
        found.setdefault(skip.reason, []).append(skip.what)
    for reason, each in found.items():
        yield f"skipped {', '.join(dict.fromkeys(each))}: {reason}"


def checkpoints(records: Sequence[Record], given: Mapping[str, str] | None = None) -> Names:
    """Digest of each checkpoint -> its name in tables: the label in its record. To equal names the training seed (as in
    run folders' names) is appended, then the training step, then the kind of weights, raw or ema (averaged), each where
    it differs. Networks whose training is unfinished are marked as such.

    `given`: digest -> what the user called the checkpoint. It replaces a label that contains digits of a hash
    (`HASHED`), and one that is still that of several checkpoints, such as two trainings of one recipe with one seed;
    without it the first digits of the digest are appended.
    """
    found = {record.question.checkpoint.digest: record for record in records}
    names = {digest: record.labels.checkpoint for digest, record in found.items()}
    for more in ("-s{0.seed}", " step {0.step}", " {0.weights}"):
        ends = {digest: more.format(record.question.checkpoint) for digest, record in found.items()}
        names |= {
            digest: names[digest] + ends[digest]
            for same in _alike(found, names)
            if len({ends[digest] for digest in same}) > 1
            for digest in same
        }
    given = given or {}
    own = {digest: given[digest] for digest in names if digest in given and HASHED.search(names[digest])}
    for digest in itertools.chain.from_iterable(_alike(found, names)):
        own[digest] = given.get(digest, f"{names[digest]} {digest[:8]}")
    return {digest: found[digest].labels.marked(name) for digest, name in (names | own).items()}


def _alike(found: Mapping[str, Record], names: Names) -> list[list[str]]:
    """The digests of each name, with the mark of an unfinished network, that several checkpoints have; `found`: digest
    -> a record of the checkpoint."""
    by_name: dict[str, list[str]] = {}
    for digest, name in names.items():
        by_name.setdefault(found[digest].labels.marked(name), []).append(digest)
    return [same for same in by_name.values() if len(same) > 1]


@dataclass(frozen=True)
class _Places:
    """The columns checkpoint and seed, which a table has only if its lines differ in them: `names` of the checkpoints
    by digest (None if there is only one), and whether there are several sampling `seeds`."""

    names: Names | None
    seeds: bool

    @classmethod
    def of(cls, records: Sequence[Record], names: Names) -> _Places:
        several = len({r.question.checkpoint.digest for r in records}) > 1
        return cls(names if several else None, len({r.question.seed for r in records}) > 1)

    @property
    def heads(self) -> list[str]:
        return ["checkpoint"] * (self.names is not None) + ["seed"] * self.seeds

    def cells(self, record: Record) -> list[str]:
        names = [] if self.names is None else [self.names[record.question.checkpoint.digest]]
        return names + [str(record.question.seed)] * self.seeds


def _free(console: Console, records: Sequence[Record], names: Names) -> list[Table]:
    """Table of metrics that do not depend on a sampler: a line per task and metric, with the values of several
    checkpoints beside each other where each has one and that fits the console, else one line for each. Metrics whose
    names end in a number, such as `accuracy_16`, are left out, as they have tables of their own (`_numbered`)."""
    places = _Places.of(records, names)
    made = _table(["task", "metric", *places.heads], ["value", "n"])
    lines: dict[tuple[str, ...], dict[str, Metric]] = {}
    twice = False  # whether a checkpoint has two evaluations of one task, which need a line each
    for record in records:
        for name, metric in record.answer.metrics.items():
            if not NUMBERED.fullmatch(name):
                line = [record.labels.task, name, *places.cells(record)]
                made.add_row(*line, shown(name, metric), str(metric.n))
                seed = [str(record.question.seed)] * places.seeds
                values = lines.setdefault((record.labels.task, name, *seed), {})
                twice |= record.question.checkpoint.digest in values
                values[record.question.checkpoint.digest] = metric
    if places.names is not None and not twice:
        for longest in (UNBOUNDED, 16):
            beside = _beside(places.names, places.seeds, lines, longest)
            if _needed(console, beside) <= console.width:
                return [beside] if beside.row_count else []
    return [made] if made.row_count else []


def _beside(
    names: Names, seeds: bool, lines: Mapping[tuple[str, ...], Mapping[str, Metric]], longest: int
) -> Table:
    """Table with one column per checkpoint and one line per task, metric and seed (if there are several `seeds`). The
    number of items, `n`, is one column or, where it differs between checkpoints, one beside each. `lines`: (task,
    metric, seed) -> digest of a checkpoint -> value. Names are broken into lines of `longest` characters."""
    digests = [digest for digest in names if any(digest in values for values in lines.values())]
    same = all(len({metric.n for metric in values.values()}) == 1 for values in lines.values())
    heads = [
        each for digest in digests for each in (packed(names[digest], longest), *([] if same else ["n"]))
    ]
    made = _table(["task", "metric", *["seed"] * seeds], [*heads, *(["n"] if same else [])])
    for (task, name, *seed), values in lines.items():
        cells: list[str] = []
        for metric in map(values.get, digests):
            cells.append("" if metric is None else shown(name, metric))
            cells += [] if same else ["" if metric is None else str(metric.n)]
        count = [str(metric.n) for metric in values.values()][:1] if same else []
        made.add_row(packed(task, longest), packed(name, longest), *seed, *cells, *count)
    return made


def _numbered(records: Sequence[Record], names: Names) -> list[Table]:
    """Tables of metrics whose names end in a number (`accuracy_16`): one line per task and number, one column per name.

    Tasks with the same metric names share a table.
    """
    found: dict[tuple[str, ...], list[list[str]]] = {}
    places = _Places.of(records, names)
    for record in records:
        metrics = record.answer.metrics
        named = [(*match.groups(), name) for name in metrics if (match := NUMBERED.fullmatch(name))]
        columns = tuple(dict.fromkeys(what for what, *_ in named))
        for number in sorted({at for _, at, _ in named}, key=int):
            full = [f"{what}_{number}" for what in columns]
            cells = [shown(name, metrics[name]) if name in metrics else "" for name in full]
            line = [record.labels.task, *places.cells(record), number, *cells]
            found.setdefault(columns, []).append(line)
    tables = []
    for columns, lines in found.items():
        made = _table(["task", *places.heads], ["number", *columns])
        for line in lines:
            made.add_row(*line)
        tables.append(made)
    return tables


def _grid(records: Sequence[Record], names: Names, columns: Sequence[Column]) -> Table:
    """Table with one line per preset and tokens per step, a group of columns per task, and the numbers of items in the
    caption."""
    tasks = {task: [name for mine, name in columns if mine == task] for task, _ in columns}
    records = [r for r in records if r.labels.task in tasks]
    places = _Places.of(records, names)
    heads = [f"{task}\n{name}" for task, metrics in tasks.items() for name in (*metrics, "NFE", "tokens/NFE")]
    made = _table(["preset", *places.heads], ["tokens\nper step", *heads], _counts(records, tasks))
    lines: dict[tuple, list[dict[str, Record]]] = {}
    for record in records:
        labels = record.labels
        key = (labels.preset, *places.cells(record), labels.tokens_per_step or ADAPTIVE)
        place_of(lines.setdefault(key, []), labels.task)[labels.task] = record
    for key, by_task in ((key, each) for key, several in lines.items() for each in several):
        made.add_row(
            *key, *[cell for task, metrics in tasks.items() for cell in _cells(by_task.get(task), metrics)]
        )
    truth = [cell for task, metrics in tasks.items() for cell in _truth(records, task, metrics)]
    if any(truth):
        made.add_section()
        made.add_row("true samples", *[""] * len(places.heads), "", *truth)
    return made


def place_of(lines: list[dict[str, Value]], task: str) -> dict[str, Value]:
    """The first of the `lines` with equal labels that has no cell of `task` yet, or a new line at their end: records
    may have the same labels and differ in other settings (shots, limit), and none may take the place of another."""
    free = next((line for line in lines if task not in line), None)
    if free is None:
        lines.append(free := {})
    return free


def _counts(records: Sequence[Record], tasks: Mapping[str, Sequence[str]]) -> str:
    """Caption of a table of `tasks`, task -> metrics: the number of items of each task, such as `law: n = 500`, what
    NFE means, and a note on each task whose samplers are compared with one prompt template only (`_one_template`)."""
    found: dict[str, set[int]] = {}
    for record in records:
        metrics = record.answer.metrics
        mine = found.setdefault(record.labels.task, set())
        mine.update(metrics[name].n for name in tasks[record.labels.task] if name in metrics)
    found = {task: n for task, n in found.items() if n}
    each = [f"{task}: n = {' to '.join(map(str, sorted({min(n), max(n)})))}" for task, n in found.items()]
    return "; ".join([*each, "NFE: forwards a row", *_one_template(records)])


def _one_template(records: Sequence[Record]) -> Iterator[str]:
    """For each lm-eval task on which several samplers were all run with the same prompt template, a note that says so,
    as another template may rank the samplers differently (docs/method.md#factors)."""
    found: dict[str, tuple[set[str | None], set[str]]] = {}
    for record in records:
        task = record.question.task.get("of", record.question.task)
        if "template" in task:
            presets, templates = found.setdefault(record.labels.task, (set(), set()))
            presets.add(record.labels.preset)
            templates.add(task["template"])
    for name, (presets, templates) in found.items():
        if len(presets) > 1 and len(templates) == 1:
            yield f"{name}: samplers ranked under one template ({next(iter(templates))})"


def _cells(record: Record | None, names: Sequence[str]) -> list[str]:
    """Cells of a table line for one record: the metrics `names`, NFE and tokens per NFE; empty strings for None."""
    if record is None:
        return [""] * (len(names) + 2)
    answer = record.answer
    found = [shown(name, answer.metrics[name]) if name in answer.metrics else "" for name in names]
    nfe = "" if answer.nfe is None else f"{answer.nfe:.1f}"
    return [*found, nfe, "" if answer.tokens_per_nfe is None else f"{answer.tokens_per_nfe:.2f}"]


def _clocked(record: Record) -> tuple[str, ...]:
    """Engine (program that decodes), device, clock (process or wall) and batch size of a record's speeds; records that
    agree in these share a table."""
    speed = timed(record)
    return speed.engine, speed.device, speed.clock, str(speed.throughput.batch)


def _timed(records: Sequence[Record], names: Names) -> Table:
    """Table of speeds with the same engine, device, clock and batch size, one line per record: useful tokens per second
    in batches and for single texts, and milliseconds per single text (median and 95th percentile)."""
    places, first = _Places.of(records, names), timed(records[0])
    heads = [f"useful tokens\na second, batch {batch}" for batch in (first.throughput.batch, 1)]
    said = f"engine {first.engine} on {first.device}; {first.clock} seconds of decoding alone, warm-up apart"
    made = _table(["preset", *places.heads], ["tokens\nper step", *heads, "ms a text,\nmedian", "p95"], said)
    for record in records:
        labels, speed = record.labels, timed(record)
        line = [labels.preset, *places.cells(record), labels.tokens_per_step or ADAPTIVE]
        rates = [mode.counts.useful / median(mode.passes) for mode in (speed.throughput, speed.latency)]
        alone = (speed.latency.median, speed.latency.p95)
        made.add_row(
            *line, *[f"{rate:,.0f}" for rate in rates], *[f"{1000 * seconds:.1f}" for seconds in alone]
        )
    return made


def _truth(records: Sequence[Record], task: str, names: Sequence[str]) -> list[str]:
    """Cells of the table line "true samples": the metrics `names` of a task, computed on samples of the true
    distribution, as many as the model drew; empty strings for metrics that are not computed on these, and for NFE and
    tokens per NFE."""
    metrics = next(r.answer.metrics for r in records if r.labels.task == task)
    found = [shown(name, metrics[TRUE + name]) if TRUE + name in metrics else "" for name in names]
    return [*found, "", ""]
