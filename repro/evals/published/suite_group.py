"""Suite groups such as `flagship`: rows of several evaluation requests, run one after another; also the command
`cells`, which runs the evaluations that reproduce published numbers (cells).

    python -m repro.evals plan --suite flagship                # rows, evaluations, hours; nothing is loaded
    python -m repro.evals cells duo.t5.mdlm,duo.t5.duo         # every evaluation that reproduces these cells
    python -m repro.evals --suite silver --max-hours 6         # stops in time; the same command continues

A row of the group in evals/suites/NAME.toml lists published cells (repro.evals.published.price finds the evaluation
that reproduces each) or tasks of a suite. A cell that no evaluation reproduces is skipped, and the reason is printed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from repro.core.errors import nearest as suggestion
from repro.core.reading import read_toml
from repro.evals import suites
from repro.evals.planning.plan import Plan, plan, released, subject
from repro.evals.published.cells import PublishedCell, read, under
from repro.evals.published.price import PRECISION, answering, price
from repro.evals.request import Prepared, Request, prepare
from repro.evals.runner import Cell, Skip
from repro.evals.suites import read_suite
from repro.hub.catalogue import known
from repro.model import Model, Precision
from repro.samplers.plan import Plan as Decoding
from repro.samplers.sampler import Sampler

Key = tuple[str, Sampler | None, Decoding | None]
"""Key of an evaluation within a suite: name of its task, sampler, decoding plan."""


class RowRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a row of a suite group asks to be evaluated (a file evals/suites/NAME.toml whose rows are
    run one after another): either the published numbers `cells` (names in evals/published.toml, of single numbers,
    rows or tables), or the `tasks` of a `suite` (none: all) for the checkpoint `ckpt`. `limit`, `samples`: largest
    number of items per task and of sampled texts (0: as the suite says)."""

    cells: list[str] = []
    ckpt: str = ""
    suite: str = ""
    tasks: list[str] = []
    limit: int = 0
    samples: int = 0


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of a suite group (requests for several checkpoints): its name and title, its evaluation requests `asks`,
    and `verdict`, a sentence that says when its result counts as a reproduction."""

    name: str
    title: str
    verdict: str
    asks: list[RowRequest]


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Part:
    """An evaluation request for the checkpoint `ckpt` (name or folder), limited to the evaluations whose (task name,
    sampler, decoding plan) are in `keys` (None: all evaluations of the request's suite)."""

    ckpt: str
    request: Request
    keys: frozenset[Key] | None

    def plan(self, device: str, asked: Precision | None) -> Plan:
        """Estimated cost of the evaluations on the device of this name; `asked`: precision of the weights (None:
        bfloat16 for a released checkpoint, else float32)."""
        found = plan(self.ckpt, self.request, device, precision(self.ckpt, asked))
        chosen = [i for i, cell in enumerate(found.cells) if self._includes(cell)]
        return dataclasses.replace(
            found,
            cells=[found.cells[i] for i in chosen],
            lines=[found.lines[i] for i in chosen],
            skipped=self._relevant(found.skipped),
        )

    def prepare(self, model: Model, out: Path | None, batch: int | None) -> Prepared:
        """The evaluations of this request with the loaded `model`, ready to run. Records are written to `out`/raw
        (None: to the default folder of the model's records); a forward pass has at most `batch` rows (None: chosen
        automatically)."""
        found = prepare(model, dataclasses.replace(self.request, out=out, batch=batch))
        cells = [cell for cell in found.cells if self._includes(cell)]
        return dataclasses.replace(found, cells=cells, skipped=self._relevant(found.skipped))

    def _relevant(self, skipped: list[Skip]) -> list[Skip]:
        """Those of the `skipped` tasks of the suite (each with the reason) that this request asks for: all of them, or
        those named in `keys`."""
        if self.keys is None:
            return skipped
        names = {f"task {name}" for name, _, _ in self.keys}
        return [skip for skip in skipped if skip.what in names]

    def _includes(self, cell: Cell) -> bool:
        return self.keys is None or _key(cell) in self.keys


@dataclass(frozen=True, kw_only=True)
class Step:
    """A row of a suite group, ready to run: its requests `parts`, one per checkpoint and suite; the published numbers
    that it lists (`cells`); and those numbers, with the reason, that are `skipped` because no evaluation reproduces
    them. Name, title and `verdict` are those of the `Row`."""

    name: str
    title: str
    verdict: str
    parts: list[Part]
    cells: list[PublishedCell]
    skipped: list[Skip]


def precision(ckpt: str, asked: Precision | None) -> Precision:
    """Precision of the weights of a checkpoint in a suite group: `asked`, or for None bfloat16 for a released
    checkpoint and float32 for one that was trained with this package."""
    if asked is not None:
        return asked
    return PRECISION if released(ckpt) else "float32"


def is_suite_group(name: str) -> bool:
    """Whether evals/suites/NAME.toml holds rows of requests instead of tasks."""
    path = suites.SUITES / f"{name}.toml"
    return path.is_file() and "rows" in read_toml(path, dict)


def read_suite_group(name: str) -> list[Row]:
    """Rows of the suite group in evals/suites/NAME.toml; ValueError names a wrong field, or a published cell, task,
    checkpoint or suite that does not exist."""
    path = suites.SUITES / f"{name}.toml"
    rows = read_toml(path, _File).rows
    try:
        for row in rows:
            for asks in row.asks:
                _check(asks)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return rows


def _check(asks: RowRequest) -> None:
    if bool(asks.cells) == bool(asks.suite):
        which = "both" if asks.suite else "neither"
        raise ValueError(f"an entry of `asks` has {which} of 'cells' and 'suite'; give exactly one of them")
    if bool(asks.suite) != bool(asks.ckpt) or (asks.tasks and not asks.suite):
        raise ValueError(
            f"an entry of `asks` has ckpt={asks.ckpt!r}, suite={asks.suite!r} and tasks={list(asks.tasks)};"
            " give both 'ckpt' and 'suite'"
        )
    for name in asks.cells:
        under(_cells(), name)
    if asks.suite:
        names = [task.name for task in read_suite(asks.suite).tasks]
        for task in asks.tasks:
            if task not in names:
                raise ValueError(f"no task {task!r} in suite {asks.suite!r}; {suggestion(task, names)}")
        subject(asks.ckpt)


@lru_cache
def _cells() -> list[PublishedCell]:
    return read()


def steps(rows: Sequence[Row], base: Request) -> list[Step]:
    """The rows of a suite group, ready to run with the seeds of `base`, the request of the command line. Where a row
    and `base` both have a `limit` or a number of `samples`, the smaller one applies."""
    return [_step(row, base) for row in rows]


def of_cells(names: Sequence[str], base: Request, ckpt: str | None) -> list[Step]:
    """The evaluations that reproduce the published numbers `names`, as a list of one `Step` (one row of a suite group).

    `base`: request of the command line, whose seeds, `limit` and `samples` are used; `ckpt`: folder with a copy of the
    numbers' checkpoint, with the same name (None: the released checkpoint). Raises ValueError, with the reason, if no
    evaluation reproduces the numbers, or if the folder has the name of another checkpoint.
    """
    row = Row(name=",".join(names), title="published cells", verdict="", asks=[RowRequest(cells=list(names))])
    step = _step(row, base)
    if not step.parts:
        raise ValueError(
            f"no evaluation reproduces {step.skipped[0].what}: {step.skipped[0].reason}; name other published numbers"
        )
    if ckpt is None:
        return [step]
    copy, asked = known(Path(ckpt).name), list(dict.fromkeys(part.ckpt for part in step.parts))
    if copy is None or asked != [copy.name]:
        raise ValueError(
            f"these published numbers are of {' and '.join(asked)}; name numbers of one checkpoint, and give --ckpt a"
            f" folder called like this checkpoint, not {ckpt!r}"
        )
    return [dataclasses.replace(step, parts=[dataclasses.replace(part, ckpt=ckpt) for part in step.parts])]


def _step(row: Row, base: Request) -> Step:
    parts: list[Part] = []
    cells: list[PublishedCell] = []
    skipped: list[Skip] = []
    for asks in row.asks:
        limit, samples = _least(asks.limit, base.limit), _least(asks.samples, base.samples)
        request = dataclasses.replace(base, limit=limit, samples=None, most_samples=samples)
        if asks.suite:
            tasks = asks.tasks or None
            each = dataclasses.replace(request, suite=asks.suite, tasks=tasks)
            parts.append(Part(ckpt=asks.ckpt, request=each, keys=None))
            continue
        wanted = [cell for name in asks.cells for cell in under(_cells(), name)]
        cells += wanted
        found: dict[tuple[str, str], set[Key]] = {}
        for cell in wanted:
            asked = answering(cell)
            if asked is None:
                skipped.append(Skip(cell.name, price(cell).missing or f"it must be trained: {cell.needs}"))
            else:
                found.setdefault((asked.ckpt, asked.suite), set()).add(_key(asked.cell))
        for (ckpt, suite), keys in found.items():
            each = dataclasses.replace(request, suite=suite)
            parts.append(Part(ckpt=ckpt, request=each, keys=frozenset(keys)))
    return Step(
        name=row.name, title=row.title, verdict=row.verdict, parts=parts, cells=cells, skipped=skipped
    )


def _least(row: int, base: int | None) -> int | None:
    """The smaller of two limits: that of a row (0: no limit) and that of the command line (None: no limit); None if
    there is neither."""
    return min((each for each in (row, base) if each), default=None)


def _key(cell: Cell) -> Key:
    return cell.task.name, cell.ask.sampler, cell.ask.plan


def commands(row: Row) -> list[str]:
    """Command lines that run one row of a suite group, one per request. Names of published numbers that the evaluations
    of earlier names also reproduce are left out."""
    found = []
    for asks in row.asks:
        if asks.suite:
            words = ["--ckpt", asks.ckpt, "--suite", asks.suite]
            words += ["--tasks", ",".join(asks.tasks)] if asks.tasks else []
            words += ["--precision", PRECISION] if released(asks.ckpt) else []
        else:
            words = ["cells", ",".join(_needed(asks.cells))]
        words += ["--limit", str(asks.limit)] if asks.limit else []
        words += ["--samples", str(asks.samples)] if asks.samples else []
        found.append(" ".join(["python -m repro.evals", *words]))
    return found


def _needed(names: Sequence[str]) -> list[str]:
    """Those of `names` (of cells, rows or tables of evals/published.toml) with which the command `cells` runs all their
    evaluations: a name is left out if earlier names already have its evaluations. All names if no evaluation reproduces
    any of the numbers."""
    asked: set[tuple[str, str, Key]] = set()
    needed = []
    for name in names:
        found = [each for cell in under(_cells(), name) if (each := answering(cell)) is not None]
        new = {(each.ckpt, each.suite, _key(each.cell)) for each in found} - asked
        if new:
            asked |= new
            needed.append(name)
    return needed or list(names)


def by_checkpoint(found: Sequence[Step]) -> Iterator[tuple[str, list[Part]]]:
    """Yield (checkpoint, its requests in all the rows of suite groups, `found`), so that each checkpoint is loaded
    once."""
    every = [part for step in found for part in step.parts]
    for ckpt in dict.fromkeys(part.ckpt for part in every):
        yield ckpt, [part for part in every if part.ckpt == ckpt]
