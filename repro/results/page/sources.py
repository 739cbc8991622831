"""Where each number of the page comes from: records, with their file, line and exact text.

    sources = Sources(folder)
    sources.number(0.996, "mean over networks", "answer.metrics.accuracy.value", records)

gives the JSON of a number: its value `v`, how it is computed, the field of each record that it is computed from, and
the SHA-256 of these records. `Sources.cited` holds the text of every record that was named, as it stands in its file,
so that a browser can compute its SHA-256 again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.core.files import RESULTS
from repro.core.reading import read_bytes
from repro.results.record import Record
from repro.results.store import RAW, read, record_files

Json = dict[str, Any]


class Sources:
    """Records of `folder` (ValueError if there is no such folder) and of those of the folders `others` that exist.
    `cited`: SHA-256 of each record that the page names -> its file, line and text."""

    def __init__(self, folder: Path, *others: Path) -> None:
        self.own = folder.resolve() != RAW.resolve()
        """Whether the records of `folder` are a user's, not the committed ones."""
        self.records: dict[Path, list[Record]] = {}
        self._places: dict[str, tuple[Path, int, str]] = {}
        self.cited: dict[str, Json] = {}
        for each in (folder, *others):
            self.records[each] = []
            for path in record_files(each) if each == folder or each.is_dir() else []:
                found = read(path)
                self.records[each] += found
                lines = read_bytes(path).decode("utf-8").splitlines()
                for number, (record, line) in enumerate(zip(found, lines, strict=True), start=1):
                    self._places.setdefault(record.sha256, (path, number, line))

    def number(self, value: float, how: str, field: str, records: Sequence[Record]) -> Json:
        """JSON of the number `value`, which is computed from `field` (a dotted path) of `records`; `how` says in words
        how it is computed, such as `mean over 2 trained networks of`."""
        return {"v": value, "how": how, "field": field, "from": self.cite(records)}

    def cite(self, records: Sequence[Record]) -> list[str]:
        """Add these records to `cited`, so that the page holds their text; returns the SHA-256 of each."""
        for record in records:
            path, line, text = self._places[record.sha256]
            self.cited.setdefault(record.sha256, {"file": shown(path), "line": line, "text": text})
        return [record.sha256 for record in records]


def shown(path: Path) -> str:
    """A path as the page prints it: `results/raw/NAME` for a file of the checkout's results/, only the file name for
    any other."""
    return (
        (Path("results") / path.relative_to(RESULTS)).as_posix()
        if path.is_relative_to(RESULTS)
        else path.name
    )
