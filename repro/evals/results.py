"""Results of `repro.score`: records with tables as text, LaTeX, HTML and data frames.

results = score("runs/mdlm@nano-s0", samplers=["ancestral", "random"], tasks=["law"])
print(results.table())                    as the command line prints it
results.frame()                           a pandas.DataFrame, one row per record and metric
results.to_latex()                        a tabular with booktabs' rules
results.skipped                           what was not run, and why
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from repro.core.cli import broken
from repro.core.cli import width as terminal_width
from repro.evals.runner import Skip
from repro.evals.table import checkpoints, place_of, reasons, rows, show
from repro.results.record import Metric, Record
from repro.results.shares import shown
from repro.results.store import collect
from repro.results.tables.latex import latex_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from repro.model import Model


class Results(Sequence[Record]):
    """Records in the order of their evaluations, and what was `skipped`; an immutable sequence of records.

    `given`: digest of a checkpoint -> what the user called it, such as its folder; tables show this in place of a name
    that ends in digits of a hash.
    """

    def __init__(
        self,
        records: Iterable[Record],
        skipped: Iterable[Skip] = (),
        given: Mapping[str, str] | None = None,
    ) -> None:
        self.records, self.skipped, self.given = tuple(records), tuple(skipped), dict(given or {})

    @classmethod
    def read(cls, folder: str | Path) -> Results:
        """The records that are stored in a run folder, an `--out` folder or a folder of records; ValueError if there is
        no such folder, or if a line of its files is no valid record."""
        return cls(collect(Path(folder)))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Record | Results:
        if isinstance(index, slice):
            return Results(self.records[index], self.skipped, self.given)
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __add__(self, other: Results) -> Results:
        """The records of both results, so that checkpoints that were scored one after the other share one table."""
        if not isinstance(other, Results):
            return NotImplemented
        records, skipped = (*self.records, *other.records), (*self.skipped, *other.skipped)
        return Results(records, skipped, self.given | other.given)

    def __repr__(self) -> str:
        return (
            f"Results of {len(self.records)} evaluations, {len(self.skipped)} skipped; .table() prints them"
        )

    def _repr_html_(self) -> str:
        """HTML table for notebooks, which call this method."""
        return self.frame().to_html(index=False, na_rep="")

    def frame(self) -> DataFrame:
        """A data frame with one row per record and metric: checkpoint, task, preset, tokens_per_step, seed, metric,
        value, se (standard error), n, low and high (95 % interval), nfe (forwards a row) and tokens_per_nfe."""
        from pandas import DataFrame

        return DataFrame(rows(self.records, self.given))

    def table(self, width: int | None = None) -> str:
        """The tables that the command line prints, as text, and a line for each reason why something was skipped.
        `width`: characters of a line (default: those of the terminal, else 120)."""
        from rich.console import Console

        file = io.StringIO()
        room = width or terminal_width()
        show(Console(file=file, width=room), self.title(), self.records, self.given)
        lines = [line for each in reasons(self.skipped) for line in broken(each, room)]
        return file.getvalue() + "".join(f"{line}\n" for line in lines)

    def title(self) -> str:
        """Names of checkpoints and suites, as `mdlm@nano, suite nano`; a checkpoint that is named by its folder is
        followed by the name of its recipe, as `runs/mine: mdlm@nano.text+20445a`."""
        suites = dict.fromkeys(record.labels.suite for record in self.records)
        labels, names = checkpoints(self.records), checkpoints(self.records, self.given)
        said = [
            name
            if digest not in self.given or name == labels[digest]
            else f"{self.given[digest]}: {labels[digest]}"
            for digest, name in names.items()
        ]
        return f"{', '.join(dict.fromkeys(said)) or 'no records'}" + (
            f", suite {', '.join(suites)}" if suites else ""
        )

    def to_latex(self) -> str:
        """A `tabular` with booktabs' rules: one row per checkpoint, preset, tokens per step and seed, one column per
        task and metric with its 95 % interval. The columns checkpoint, tokens per step and seed are shown only where
        rows differ in them. For `\\input` or a notebook."""
        names = checkpoints(self.records, self.given)
        lines: dict[tuple[str, ...], list[dict[str, dict[str, Metric]]]] = {}
        for record in self.records:
            labels = record.labels
            place = (names[record.question.checkpoint.digest], labels.preset or "")
            rate = labels.tokens_per_step or ("" if labels.preset is None else "adaptive")
            several = lines.setdefault((*place, rate, str(record.question.seed)), [])
            metrics = {f"{labels.task} {name}": metric for name, metric in record.answer.metrics.items()}
            place_of(several, labels.task)[labels.task] = metrics
        whole = [
            (place, {column: metric for metrics in by_task.values() for column, metric in metrics.items()})
            for place, several in lines.items()
            for by_task in several
        ]
        columns = list(dict.fromkeys(column for _, found in whole for column in found))
        heads = ("checkpoint", "preset", "tokens per step", "seed")
        kept = [i for i in range(len(heads)) if i == 1 or len({place[i] for place in lines}) > 1]
        body = [
            [*(place[i] for i in kept), *(_cell(column, found) for column in columns)]
            for place, found in whole
        ]
        return latex_table([*(heads[i] for i in kept), *columns], [("", body)], len(kept))


def name_once(given: dict[str, str], model: Model, name: str) -> None:
    """Enter the digest of `model` and the `name` that the user gave it into `given`; ValueError if the same checkpoint
    has another name there already."""
    if model.digest in given:
        raise ValueError(f"{given[model.digest]} and {name} are one checkpoint; give one of them")
    given[model.digest] = name


def _cell(column: str, found: dict[str, Metric]) -> str:
    return shown(column.rpartition(" ")[2], found[column]) if column in found else ""
