"""Files of records: reading, appending, publishing, and conversion to data frames. `repro.results.record` gives the
schema and the terms *question* (the evaluation), *answer* (the result), *cell* (an evaluation under all its seeds) and
numerics class; the command line is in `repro.results.__main__`.

There is one file per checkpoint, train seed and suite, with one record per line. Lines are appended under a lock and
synced: a killed run leaves at most an incomplete last line, which the next append removes. Runs write to folders of
their own; only `publish` writes to results/raw.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, NamedTuple

from repro.core.files import RESULTS, locked
from repro.core.reading import parse_json, read_bytes
from repro.results.difference import difference
from repro.results.record import Json, Question, Record, agree, make_record, read_record, text
from repro.results.versions import older

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Question",
    "Record",
    "Store",
    "collect",
    "frame",
    "make_record",
    "one_protocol",
    "publish",
    "read",
]

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
            records.append(read_record(data))
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
    return [record for path in record_files(folder) for record in read(path)]


# --- writing ------------------------------------------------------------------------------------------------
class Store:
    """Records in the files of one folder, one file per (checkpoint, train seed, suite); several processes may append at
    once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[tuple[int, int], list[Record]]] = {}

    def path(self, record: Record) -> Path:
        """Path of the file to which a record belongs."""
        seed = record.question.checkpoint.seed
        name = f"{record.labels.checkpoint}-s{seed}.{record.labels.suite}.jsonl"
        return self.folder / re.sub(r"[^\w@.+-]", "_", name, flags=re.ASCII)

    def records(self) -> list[Record]:
        """All records of the folder; an incomplete last line of a file, whose writer was killed, is ignored."""
        return [record for path in sorted(self.folder.glob("*.jsonl")) for record in self._records_of(path)]

    def _records_of(self, path: Path) -> list[Record]:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if path not in self._read or self._read[path][0] != stamp:
            self._read[path] = stamp, _parse(path, read_bytes(path))
        return self._read[path][1]

    def find(self, question_id: str, numerics: Json, timed_on: str | None = None) -> Record | None:
        """Record of the evaluation with SHA-256 `question_id` in a numerics class; None if there is none. `timed_on`:
        only a record whose decoding speed was measured on this device (None: any record)."""
        for record in self.records():
            speed = record.measurements.speed
            here = record.id == question_id and record.measurements.numerics.data() == numerics
            if here and (timed_on is None or (speed and speed.device == timed_on)):
                return record
        return None

    def append(self, record: Record) -> bool:
        """Append a record to its file and sync it. Returns False, and appends nothing, if a record of the same
        evaluation and numerics class, timed on the same device, is already stored.

        Raises ValueError if a stored record of the same evaluation and numerics class has a different result.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            same = [known for known in self.records() if _identity(known) == _identity(record)]
            for known in same:
                agree(known, record, self.folder)
            if any(_timed_on(known) == _timed_on(record) for known in same):
                return False
            _append(self.path(record), text(record))
            return True


def _append(path: Path, line: str) -> None:
    """Append a line to a file and sync it.

    The incomplete last line of a killed writer is removed first; if the line cannot be written as a whole (a full disk:
    OSError), the file stays as it was.
    """
    with open(path, "ab+", buffering=0) as file:
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        rest = line.encode() + b"\n"
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


class Published(NamedTuple):
    """Number of records that `publish` `added`, and of those that were `already` published."""

    added: int
    already: int


def publish(source: Path, target: Path = RAW) -> Published:
    """Copy the records of a run (folder `source`) to the published ones (folder `target`); returns their numbers.

    Raises ValueError, and writes nothing, if a line of source or target is invalid, a task was evaluated with a limit,
    a recipe has changed settings (`duo+3fa9c1`: tables of the paper never contain such results), or two results of one
    evaluation and numerics class differ.
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
    added = sum(store.append(record) for record in fit)
    return Published(added, len(fit) - added)


def _identity(record: Record) -> tuple[str, str]:
    return record.id, text(record.measurements.numerics)


def _timed_on(record: Record) -> tuple[str, str, str] | None:
    """Engine, device and clock of the measured speed of a record, None without one. The same result, timed on two
    devices, gives two records."""
    speed = record.measurements.speed
    return (speed.engine, speed.device, speed.clock) if speed else None


# --- tables -------------------------------------------------------------------------------------------------
LABELS = ("recipe", "checkpoint", "suite", "task", "preset", "tokens_per_step", "note")
COLUMNS = (
    *LABELS,
    *("metric", "value", "se", "n", "nfe", "tokens_per_nfe"),
    *("seed", "train_seed", "step", "weights", "cell", "key", "id", "numerics", "protocol", "subject"),
)


def frame(folder: Path) -> DataFrame:
    """Frame of the records in a folder, one row per (record, metric); columns `COLUMNS` (see `to_frame`)."""
    return to_frame(collect(folder))


def to_frame(records: Iterable[Record]) -> DataFrame:
    """Frame of records, one row per (record, metric), columns `COLUMNS`. A null label is an empty string; an unknown
    number is NaN.

    `numerics`, `protocol` and `subject` (the evaluation without the checkpoint's digest and the seeds) are canonical
    JSON.
    """
    from pandas import DataFrame

    rows = []
    for record in records:
        question, answer = record.question, record.answer
        shared = {
            **{name: getattr(record.labels, name) or "" for name in LABELS},
            **{name: getattr(answer, name) for name in ("nfe", "tokens_per_nfe")},
            **{name: getattr(question.checkpoint, name) for name in ("step", "weights")},
            **{name: getattr(record, name) for name in ("cell", "key", "id")},
            "seed": question.seed,
            "train_seed": question.checkpoint.seed,
            "numerics": text(record.measurements.numerics),
            "protocol": text(question.protocol),
            "subject": text(question.subject),
        }
        rows += [{"metric": name, **metric.data(), **shared} for name, metric in answer.metrics.items()]
    made = DataFrame(rows, columns=list(COLUMNS))
    return made.astype({name: float for name in ("value", "se", "nfe", "tokens_per_nfe")})


def one_protocol(rows: DataFrame) -> None:
    """Raise ValueError, naming the first difference, unless all rows of a frame of records have the same protocol."""
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
            "use the records of one of them"
        )


def _spread(values: Sequence[float]) -> float:
    """Sample standard deviation of `values`: NaN for a single one, 0 if they are equal up to rounding."""
    if len(values) < 2:
        return math.nan
    spread = stdev(values)
    return spread if spread > 1e-9 * max(map(abs, values)) else 0.0


def summarise(rows: DataFrame) -> DataFrame:
    """Frame with one row per (cell, metric) of a frame of records: the labels; `value` (mean) and `sd_seeds` (standard
    deviation) over `seeds` train seeds; `se`, standard error of the evaluation of one network (root mean square over
    seeds); `n` rows evaluated; `nfe` forward passes per row and `tokens_per_nfe`, tokens per forward pass.

    A train seed with several records (other numerics classes or sampling seeds) counts once, with their mean. The
    `note` marks a cell with an older version of a component, for example of the sampler (`repro.results.versions`).
    Raises ValueError if two cells would have the same labels, naming the setting in which their evaluations differ.
    """
    from pandas import DataFrame

    same = (*LABELS, "weights", "step", "subject", "cell", "metric")
    made = []
    ordered = rows.sort_values(
        ["id", "numerics"], kind="stable"
    )  # the last bit of a mean depends on the order
    for _, group in ordered.groupby(["cell", "metric"], sort=True):
        each = group.assign(variance=group.se**2, tokens=group.nfe * group.tokens_per_nfe)  # tokens a row
        by_seed = each.groupby("train_seed", sort=True)
        seeds = by_seed[["value", "variance", "nfe", "tokens"]].mean()
        made.append(
            {
                **{name: group[name].iloc[0] for name in same},
                "value": seeds.value.mean(),
                "se": math.sqrt(seeds.variance.mean(skipna=False)),
                "sd_seeds": _spread(seeds.value.tolist()),
                "n": group.n.min(),
                "nfe": seeds.nfe.mean(),
                "tokens_per_nfe": seeds.tokens.mean()
                / seeds.nfe.mean(),  # a ratio of sums, not a mean of ratios
                "seeds": len(seeds),
            }
        )
    numbers = ("value", "se", "sd_seeds", "n", "nfe", "tokens_per_nfe", "seeds")
    table = DataFrame(made, columns=[*same, *numbers])
    mark = table.subject.map(older(table.subject))
    table["note"] = [", ".join(filter(None, each)) for each in zip(table.note, mark, strict=True)]
    printed = ["suite", "checkpoint", "task", "preset", "tokens_per_step", "metric", mark]
    for _, group in table.groupby(printed, sort=True):
        one_of(group, "subject", "two evaluations would share a row")
    return table
