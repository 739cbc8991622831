"""Files of records: reading, appending, publishing, and conversion to data frames. `repro.results.record` gives the
schema and the terms *question* (the evaluation), *answer* (the result), *cell* (an evaluation under all its seeds) and
numerics class; the command line is in `repro.results.__main__`.

There is one file per checkpoint, train seed and suite, with one record per line. Lines are appended under a lock and
synced: a killed run leaves at most an incomplete last line, which the next append removes. Runs write to folders of
their own; only `publish` writes to results/raw.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from repro.core.files import RESULTS, locked, write_text
from repro.core.parts import sha256
from repro.core.reading import finite, parse_json, read_bytes
from repro.results.difference import difference
from repro.results.record import (
    Json,
    Labels,
    Question,
    Record,
    agree,
    read_record,
    text,
    unmarked,
)
from repro.results.versions import older

if TYPE_CHECKING:
    from pandas import DataFrame

REMEDY = "remove this line and run its command again"
RAW = RESULTS / "raw"


# --- reading ------------------------------------------------------------------------------------------------
def read(path: Path) -> list[Record]:
    """Every record of a file, in order; ValueError, with file, line, fault and remedy, at an invalid or incomplete
    line."""
    data = read_bytes(path)
    records = _parse(path, data)
    if not data.endswith(b"\n") and data:
        raise ValueError(
            f"{path}:{len(records) + 1}: incomplete last line, its writer was killed; run the same command again, "
            "which removes the line and repeats the evaluation"
        )
    return records


def _parse(path: Path, data: bytes) -> list[Record]:
    """Records of all lines of `data` that end in a newline; an incomplete last line is ignored. `path`: for
    messages."""
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        where = f"{path}:{number}"
        data = parse_json(line, dict, where, REMEDY)
        try:
            records.append(read_record(data, line))
        except ValueError as error:
            raise ValueError(f"{where}: {error}; {REMEDY}") from None
    return records


def record_files(folder: Path) -> list[Path]:
    """Paths of the record files (*.jsonl) of a folder: those in the folders named `raw` below it if there are any, else
    those in the folder itself. ValueError if the folder does not exist."""
    if not folder.is_dir():
        raise ValueError(
            f"no folder {folder}; give one that holds records (*.jsonl), for example results/raw"
        )
    folders = sorted(path for path in folder.rglob("raw") if path.is_dir()) or [folder]
    return [path for each in folders for path in sorted(each.glob("*.jsonl"))]


def collect(folder: Path) -> list[Record]:
    """All records in the files of a folder (see `record_files`); ValueError at an invalid line."""
    known: dict[str, Question] = {}
    return [_share(record, known) for path in record_files(folder) for record in read(path)]


def _share(record: Record, known: dict[str, Question]) -> Record:
    """The record, with the settings of its question replaced by the equal ones of the first record of its cell (in
    `known`, by cell): tens of thousands of records then need a fifth of the memory."""
    first = known.setdefault(record.cell, record.question)
    settings = {name: getattr(first, name) for name in ("task", "sampler", "plan", "protocol")}
    return replace(record, question=replace(record.question, **settings))


def write_items(raw: Path, record: Record, items: Iterable[Mapping[str, Any]]) -> None:
    """Write `items`, the per-item results of a record that is stored in the folder `raw`, to the record's file of items
    (`items_file`), one JSON object per line; infinity and NaN, which JSON lacks, become null."""
    lines = [json.dumps(finite(item), ensure_ascii=False, sort_keys=True) for item in items]
    write_text(items_file(raw, record), "\n".join([*lines, ""]))


def items_file(raw: Path, record: Record) -> Path:
    """Path of the per-item results of a record that is stored in the folder `raw`: items/NAME.jsonl beside that
    folder, with one JSON object per line. NAME begins with the record's id and ends in digits of its numerics class
    (device, dtype, ...), of which one folder may hold several."""
    numerics = sha256(text(record.measurements.numerics))
    return raw.parent / "items" / f"{record.id[:16]}-{numerics[:6]}.jsonl"


# --- writing ------------------------------------------------------------------------------------------------
class Store:
    """Records in the files of one folder, one file per (checkpoint, train seed, suite); several processes may append at
    once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[tuple[int, int], dict[str, list[Record]]]] = {}

    def path(self, record: Record) -> Path:
        """Path of the file to which a record belongs."""
        seed = record.question.checkpoint.seed
        name = f"{record.labels.checkpoint}-s{seed}.{record.labels.suite}.jsonl"
        return self.folder / re.sub(r"[^\w@.+-]", "_", name, flags=re.ASCII)

    def records(self) -> list[Record]:
        """All records of the folder; an incomplete last line of a file, whose writer was killed, is ignored."""
        return [record for by_id in self._files() for records in by_id.values() for record in records]

    def _files(self) -> list[dict[str, list[Record]]]:
        """For each file of the folder a dictionary `id` of an evaluation -> its records; a file is read again only if
        it has changed."""
        return [self._records_of(path) for path in sorted(self.folder.glob("*.jsonl"))]

    def _records_of(self, path: Path) -> dict[str, list[Record]]:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if path not in self._read or self._read[path][0] != stamp:
            by_id: dict[str, list[Record]] = {}
            for record in _parse(path, read_bytes(path)):
                by_id.setdefault(record.id, []).append(record)
            self._read[path] = stamp, by_id
        return self._read[path][1]

    def find(self, question_id: str, numerics: Json, timed_on: str | None = None) -> Record | None:
        """Record of the evaluation with SHA-256 `question_id` in the numerics class `numerics` (device, dtype, torch,
        attention kernel, threads); None if there is none. `timed_on`: only a record whose decoding speed was measured
        on this device (None: any record)."""
        for record in (record for by_id in self._files() for record in by_id.get(question_id, ())):
            speed = record.measurements.speed
            here = record.measurements.numerics.data() == numerics
            if here and (timed_on is None or (speed and speed.device == timed_on)):
                return record
        return None

    def append(self, *records: Record) -> int:
        """Append records to their files and sync these; returns how many were new. A record is not new if the store has
        one of the same evaluation and numerics class (device, dtype, ...), and either decoding speed was measured in
        both, by the same engine, device and clock, or in neither.

        Raises ValueError, and appends nothing, if the store has another result of the same evaluation and numerics
        class.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            files, fresh = self._files(), defaultdict(list)
            for record in records:
                stored = [known for by_id in files for known in by_id.get(record.id, ())]
                same = [each for each in (*stored, *fresh[record.id]) if _identity(each) == _identity(record)]
                for known in same:
                    agree(known, record, self.folder)
                if not any(_timed_on(known) == _timed_on(record) for known in same):
                    fresh[record.id].append(record)
            lines = defaultdict(list)
            for record in (each for some in fresh.values() for each in some):
                lines[self.path(record)].append(text(record))
            for path, texts in lines.items():
                _append(path, texts)
            return sum(map(len, lines.values()))


def _append(path: Path, lines: Sequence[str]) -> None:
    """Append lines to a file and sync it.

    The incomplete last line of a killed writer is removed first; if the lines cannot be written as a whole (a full
    disk: OSError), the file stays as it was.
    """
    with open(path, "ab+", buffering=0) as file:
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        rest = "".join(f"{line}\n" for line in lines).encode()
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


class Published(NamedTuple):
    """Result of `publish`: numbers of records that it `added`, and of records that were `already` published."""

    added: int
    already: int


def publish(source: Path, target: Path = RAW) -> Published:
    """Copy the records of a run (folder `source`) to the published ones (folder `target`); returns how many records
    were added, and how many were published already.

    Raises ValueError, and writes nothing, if a line of source or target is invalid, a task was evaluated with a limit,
    a recipe has settings changed by `--set` (its name is like `duo+3fa9c1`; no table of the paper has such results), or
    two results of one evaluation and numerics class (device, dtype, ...) differ.
    """
    store = Store(target)
    answers = {_identity(record): record for record in (collect(target) if target.is_dir() else [])}
    fit: list[Record] = []
    for path in record_files(source):
        for number, record in enumerate(read(path), start=1):
            if record.question.limit is not None:
                raise ValueError(
                    f"{path}:{number}: evaluated with limit {record.question.limit}, which no paper table may contain; "
                    "publish whole tasks"
                )
            for name in (record.labels.recipe, record.labels.checkpoint):
                if "+" in name:
                    raise ValueError(
                        f"{path}:{number}: {name!r} has an override of its recipe's settings, which no paper "
                        "table may contain; publish runs of recipes as they are registered"
                    )
            agree(answers.setdefault(_identity(record), record), record, path)
            fit.append(record)
    if not fit:
        raise ValueError(
            f"no records in {source}; give the folder of a finished run, for example runs/reproduce"
        )
    added = store.append(*fit)
    return Published(added, len(fit) - added)


def _identity(record: Record) -> tuple[str, str]:
    return record.id, text(record.measurements.numerics)


def _timed_on(record: Record) -> tuple[str, str, str] | None:
    """Engine, device and clock of the measured speed of a record; None if its speed was not measured. The same result,
    timed on two devices, gives two records."""
    speed = record.measurements.speed
    return (speed.engine, speed.device, speed.clock) if speed else None


# --- tables -------------------------------------------------------------------------------------------------
LABELS = ("recipe", "checkpoint", "suite", "task", "preset", "tokens_per_step", "note")
COLUMNS = (
    *LABELS,
    *("metric", "value", "se", "n", "nfe", "tokens_per_nfe"),
    *("seed", "train_seed", "step", "weights", "cell", "key", "id", "numerics", "protocol", "subject"),
)
NUMBERS = ("value", "se", "sd_seeds", "n", "nfe", "tokens_per_nfe", "seeds")
TYPES = dict.fromkeys(("value", "se", "nfe", "tokens_per_nfe"), "float64")
TYPES |= dict.fromkeys(("n", "seed", "train_seed", "step"), "int64")
TYPES |= dict.fromkeys((*LABELS, "metric", "weights"), "str")


def frame(folder: Path) -> DataFrame:
    """Frame of the records in a folder, one row per (record, metric); columns `COLUMNS` (see `to_frame`)."""
    return to_frame(collect(folder))


def to_frame(records: Iterable[Record]) -> DataFrame:
    """Frame of records, one row per (record, metric), columns `COLUMNS`. A null label is an empty string, recipe and
    checkpoint have the marks of their network (`Labels.marked`), an unknown number is NaN.

    `numerics`, `protocol` and `subject` (the evaluation without the checkpoint's digest and the seeds) are canonical
    JSON.
    """
    from pandas import DataFrame

    rows, subjects = [], {}
    for record in records:
        question, answer = record.question, record.answer
        if record.cell not in subjects:  # one for all seeds
            subjects[record.cell] = text(question.protocol), text(question.subject)
        protocol, subject = subjects[record.cell]
        labels = [_printed(record.labels, name) for name in LABELS]
        network, numerics = question.checkpoint, intern(text(record.measurements.numerics))
        shared = (
            *(answer.nfe, answer.tokens_per_nfe, question.seed, network.seed, network.step, network.weights),
            *(record.cell, record.key, record.id, numerics, protocol, subject),
        )
        rows += [(*labels, name, m.value, m.se, m.n, *shared) for name, m in answer.metrics.items()]
    # pandas' own strings are a copy of the text in every row, 1.5 KB of it; objects are references to one text
    made = DataFrame(rows, columns=list(COLUMNS), dtype=object)
    return made.astype(TYPES)


def _printed(labels: Labels, name: str) -> str:
    """The field `name` of the labels of a record, as tables print it; "" if it is null."""
    found = getattr(labels, name) or ""
    return labels.marked(found) if name in ("recipe", "checkpoint") else found


def one_protocol(rows: DataFrame) -> None:
    """Raise ValueError, naming the first difference, unless all rows of a frame of records have the same protocol
    (`Question.protocol`: precision, tokenizer, what is counted), without which numbers are not comparable."""
    one_of(rows, "protocol", "two protocols would share a column")


def one_of(rows: DataFrame, column: str, complaint: str) -> None:
    """Raise ValueError, with `complaint` and the first difference, unless all values (canonical JSON) in `column` of a
    frame of records are equal."""
    first = rows.drop_duplicates(column)
    if len(first) > 1:
        one, other = first.iloc[0], first.iloc[1]
        found = difference(json.loads(one[column]), json.loads(other[column])) or "rounding differs"
        raise ValueError(
            f"{complaint}: {found} ({one.checkpoint} and {other.checkpoint}, task {one.task}); "
            "keep the records of one of them only"
        )


def means(rows: DataFrame) -> DataFrame:
    """Frame with one row per cell (an evaluation under all its seeds) and metric of a frame of records, sorted by both:
    the labels; `value` (mean) and `sd_seeds` (standard deviation; NaN for a single seed) over `seeds` train seeds;
    `se`, standard error of the evaluation of one network (root mean square over seeds); `n` rows evaluated; `nfe`
    forward passes per row and `tokens_per_nfe`, tokens per forward pass (a ratio of sums).

    A train seed with several records (other numerics classes or sampling seeds) counts once, with their mean.
    """
    by = ["cell", "metric"]
    # the last bit of a mean depends on the order
    ordered = rows.sort_values(["id", "numerics"], kind="stable")
    ordered = ordered.assign(
        variance=ordered.se**2, tokens=ordered.nfe * ordered.tokens_per_nfe
    )  # tokens a row
    seeds = ordered.groupby([*by, "train_seed"], sort=True)[["value", "variance", "nfe", "tokens"]].mean()
    over = seeds.groupby(by, sort=True)
    mean, size, sd = over.mean(), over.size(), over.value.std(ddof=1)
    rounding = 1e-9 * seeds.value.abs().groupby(by, sort=True).max()
    variance = mean.variance.where(over.variance.count() == size)  # unknown if it is for one seed
    cells = ordered.groupby(by, sort=True)
    made = cells[[*LABELS, "weights", "step", "subject"]].first()
    made = made.assign(
        value=mean.value,
        se=variance**0.5,
        sd_seeds=sd.where(~(sd <= rounding), 0.0),
        n=cells.n.min(),
        nfe=mean.nfe,
        tokens_per_nfe=mean.tokens / mean.nfe,
        seeds=size,
    )
    return made.reset_index()[[*LABELS, "weights", "step", "subject", *by, *NUMBERS]]


def summarise(rows: DataFrame) -> DataFrame:
    """The frame that `means` makes of a frame of records, with a mark in the `note` of each cell that has an older
    version of a component, for example of the sampler (`repro.results.versions`).

    Raises ValueError if two cells would have the same labels, naming the setting in which their evaluations differ.
    """
    table = means(rows)
    mark = table.subject.map(older(table.subject))
    table["note"] = [", ".join(filter(None, each)) for each in zip(table.note, mark, strict=True)]
    printed = ["suite", "checkpoint", "task", "preset", "tokens_per_step", "metric", "note"]
    shared = table[table.groupby(printed).subject.transform("nunique") > 1]
    for _, group in shared.groupby(printed, sort=True):
        one_of(group, "subject", "two evaluations would share a row")
    return table


def by_cell(table: DataFrame) -> list[tuple[Any, dict[str, Any]]]:
    """For every cell (an evaluation under all its seeds) of a frame made by `summarise`, in its order: its first row,
    and a dictionary of its rows by metric; rows are named tuples."""
    cells: dict[str, dict[str, Any]] = {}
    rows = table.itertuples(index=False)
    for cell, metric, row in zip(table.cell, table.metric, rows, strict=True):
        cells.setdefault(cell, {})[metric] = row
    return [(next(iter(metrics.values())), metrics) for metrics in cells.values()]


def scale_of(recipe: str) -> str:
    """Scale of a recipe by its name: `mdlm@nano.text` -> `nano.text`; "" at full scale."""
    return unmarked(recipe).partition("@")[2]


def tokens_order(tokens_per_step: str) -> tuple[int, float]:
    """Sort key of tokens per step: numbers first, then `all`, then "" (adaptive samplers)."""
    return {"all": (1, 0.0), "": (2, 0.0)}.get(tokens_per_step) or (0, float(tokens_per_step))


def checkpoint_order(checkpoint: str) -> tuple[bool, str]:
    """Sort key of checkpoints: exact denoisers (`oracle:RECIPE`) first, then by name."""
    return not checkpoint.startswith("oracle:"), checkpoint
