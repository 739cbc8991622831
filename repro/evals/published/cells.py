"""Published numbers as data: evals/published.toml, read into *cells*, one cell per published number. An unknown field
of the file is an error.

    cells = read()                              # every cell: the number, and the settings that it was measured under
    find(cells, "duo.t5.mdlm.1024")             # one cell

A table of the file is a grid as printed: rows (methods), columns (numbers of steps, corpora, tasks), one value each; a
cell is called TABLE.ROW.COLUMN. `asked` maps settings to the values that an evaluation must have to be comparable; a
cell has those of its table, row and column together. A setting is a dotted path in the `question` of a stored record,
the description of what was evaluated (`plan.steps`, `protocol.judge`), or `preset`, the name of the sampler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import read_toml

FILE = ROOT / "evals" / "published.toml"
Asked = Mapping[str, str | int | float | bool]


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Publication that printed numbers: its citation, and its date (YYYY-MM, or YYYY)."""

    cite: str
    date: str


class Column(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Column of a published table. `asked`: settings that an evaluation must have to be comparable with its numbers
    (dotted path -> value); `items`: number of independent items of which a number is a share (an accuracy), 0 if it is
    unknown or the number is no share; `task`, `metric`: take the place of the table's `task` and `metric` unless
    empty."""

    name: str
    asked: dict[str, str | int | float | bool] = {}
    items: int = 0
    task: str = ""
    metric: str = ""


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Row of a published table: the `values` of one method by column. `of`: names of the checkpoints or recipes that
    the numbers are about; `needs`: what a run requires, as text; `asked`: settings that an evaluation must have to be
    comparable (dotted path -> value); `like`: a released checkpoint of the same size and cost, for estimates where none
    of `of` is available; `called`: a name shared by numbers of several sources that should be equal; `unstated`:
    settings that the source does not state."""

    name: str
    of: list[str]
    values: dict[str, float]
    needs: str
    asked: dict[str, str | int | float | bool] = {}
    like: str = ""
    called: str = ""
    unstated: list[str] = []


class Grid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published table. `source`: name of the publication in `sources` of evals/published.toml; `where`: the table's
    place in it. A table has one margin, the largest difference from its numbers that counts as agreement: `relative`, a
    share of the number, or `absolute`, in the unit of a record. `scale` converts a printed value to the unit of a
    record (0.01 for per cent). `task`, `metric`: names in the records to compare; `asked`: settings that an evaluation
    must have to be comparable (dotted path -> value)."""

    name: str
    title: str
    source: str
    where: str
    task: str
    metric: str
    columns: list[Column]
    rows: list[Row]
    relative: float | None = None
    absolute: float | None = None
    scale: float = 1.0
    asked: dict[str, str | int | float | bool] = {}


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sources: dict[str, Source]
    table: list[Grid]


@dataclass(frozen=True, kw_only=True)
class PublishedCell:
    """One published number (`name`: TABLE.ROW.COLUMN) with the settings `asked` that a comparable evaluation must have.
    `printed` is the number as in its source, `value` and `margin` (the largest difference that counts as agreement) are
    in the unit of a record; `source`: citation and place, `date`: of the publication. All other fields are those of its
    table, row and column (`Grid`, `Row`, `Column`)."""

    name: str
    table: str
    title: str
    source: str
    date: str
    task: str
    metric: str
    of: tuple[str, ...]
    printed: float
    value: float
    margin: float
    items: int
    asked: Asked
    unstated: tuple[str, ...]
    called: str
    like: str
    needs: str

    @property
    def row(self) -> str:
        """Name of the table and row, TABLE.ROW, which selects all cells of the row."""
        return self.name.rpartition(".")[0]


def read(path: Path = FILE) -> list[PublishedCell]:
    """All published numbers (cells) of the file `path`, in its order; ValueError names the invalid field, table or
    cell."""
    data = read_toml(path, _File)
    found = [cell for grid in data.table for row in grid.rows for cell in _row(path, data, grid, row)]
    twice = [name for name, count in Counter(cell.name for cell in found).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: two cells are called {twice[0]!r}; rename a table, row or column")
    return found


def _row(path: Path, data: _File, grid: Grid, row: Row) -> list[PublishedCell]:
    where = f"{path}: table {grid.name!r}, row {row.name!r}"
    columns = {column.name: column for column in grid.columns}
    if grid.source not in data.sources:
        raise ValueError(f"{where}: no source {grid.source!r}; {nearest(grid.source, data.sources)}")
    if (grid.relative is None) == (grid.absolute is None):
        which = "neither" if grid.relative is None else "both"
        raise ValueError(f"{where}: the table has {which} of the margins 'relative' and 'absolute'; give one")
    for name in row.values:
        if name not in columns:
            raise ValueError(f"{where}: no column {name!r}; {nearest(name, columns)}")
    source = data.sources[grid.source]
    made = []
    for name, printed in row.values.items():
        column, value = columns[name], printed * grid.scale
        margin = grid.absolute if grid.relative is None else grid.relative * abs(value)
        if margin is None or not margin > 0:
            raise ValueError(f"{where}: column {name!r} has margin {margin}; give a margin above 0")
        made.append(
            PublishedCell(
                name=f"{grid.name}.{row.name}.{name}",
                table=grid.name,
                title=grid.title,
                source=f"{source.cite}, {grid.where}",
                date=source.date,
                task=column.task or grid.task,
                metric=column.metric or grid.metric,
                of=tuple(row.of),
                printed=printed,
                value=value,
                margin=margin,
                items=column.items,
                asked={**grid.asked, **row.asked, **column.asked},
                unstated=tuple(row.unstated),
                called=row.called.replace("{column}", name),
                like=row.like,
                needs=row.needs,
            )
        )
    return made


def under(cells: Sequence[PublishedCell], name: str) -> list[PublishedCell]:
    """The published numbers (cells) that a name selects: TABLE.ROW.COLUMN one, TABLE.ROW a row, TABLE a whole table.
    For an unknown name, ValueError suggests the one of most similar spelling."""
    found = [cell for cell in cells if name in (cell.name, cell.row, cell.table)]
    if not found:
        names = {each for cell in cells for each in (cell.name, cell.row, cell.table)}
        raise ValueError(f"no published cell, row or table {name!r}; {nearest(name, names)}")
    return found


def find(cells: Sequence[PublishedCell], name: str) -> PublishedCell:
    """The published number (cell) called `name`, TABLE.ROW.COLUMN. For an unknown name, ValueError suggests the one of
    most similar spelling."""
    for cell in cells:
        if cell.name == name:
            return cell
    raise ValueError(f"no published number (cell) {name!r}; {nearest(name, [cell.name for cell in cells])}")


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Published numbers that share a name (`called`) and should be equal, but differ by more than their margins.
    `cells`: in descending order of value; `fields`: the settings in which they differ."""

    called: str
    cells: tuple[PublishedCell, ...]
    fields: tuple[str, ...]

    @property
    def ratio(self) -> float:
        return self.cells[0].value / self.cells[-1].value


def disagreements(cells: Sequence[PublishedCell]) -> list[Disagreement]:
    """The disagreements among published numbers that share a name and should be equal, in descending order of the ratio
    of largest to smallest."""
    groups: dict[str, list[PublishedCell]] = {}
    for cell in cells:
        if cell.called:
            groups.setdefault(cell.called, []).append(cell)
    found = []
    for called, group in groups.items():
        group.sort(key=lambda cell: (-cell.value, cell.name))
        if group[0].value - group[-1].value > max(cell.margin for cell in group):
            places = sorted({place for cell in group for place in (*cell.asked, *cell.unstated)})
            fields = [place for place in places if len({stated(cell, place) for cell in group}) > 1]
            found.append(Disagreement(called=called, cells=tuple(group), fields=tuple(fields)))
    return sorted(found, key=lambda each: (-each.ratio, each.called))


def stated(cell: PublishedCell, place: str) -> str:
    """The value of a published number's setting (`place`, a dotted path) as text: `not stated` if the source does not
    state it, `not given` if evals/published.toml does not require a value."""
    if place in cell.unstated:
        return "not stated"
    if place not in cell.asked:
        return "not given"
    return str(cell.asked[place])
