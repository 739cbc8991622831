"""The interface of a data source (`Data`), and prepared corpora: memory-mapped files of token ids with a digest.

    corpus = prepared(data)              # built once, in a folder under runs/data; opened afterwards
    corpus.train.ids[rows]               # [B, L] integer ids
    corpus.train.candidates[rows]        # [B, L] bool: positions that are corrupted and scored

A corpus holds uncorrupted rows in a fixed order: `repro.training.loop` shuffles them, objectives corrupt them.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from repro.core import parts
from repro.core.files import atomically, locked, runs
from repro.core.parts import Part, part
from repro.core.reading import foreign, read_json, regular

UNRESOLVED = "UNRESOLVED"
"""Placeholder of a revision, digest or count that only the Hub or a file knows; the first run finds the value and
stores it in its checkpoint."""


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary of a data source: ids 0..size-1 are tokens of the language, size..total-1 further special ids. `mask`,
    `bos`, `eos` and `pad` are the special ids, None where the data source has none."""

    size: int
    total: int
    mask: int | None
    bos: int | None
    eos: int | None
    pad: int | None
    bos_rule: Literal["row", "text", "empty"] = "row"
    """When a left-to-right network reads BOS: before every row (this suite's own recipes), before every text (the
    tokenizer of released weights adds it), or only before an empty text (it adds none)."""
    filler: int | None = None
    """Id of padding that is attended to and corrupted like a token, but never scored (padded rows of the papers,
    docs/method.md#duo-hyperparameters)."""

    @property
    def first(self) -> int:
        """The id that a left-to-right network reads before an empty text: BOS, else EOS; ValueError without either."""
        found = self.eos if self.bos is None else self.bos
        if found is None:
            raise ValueError(
                "a left-to-right model needs a BOS or EOS id, and this data source has neither; use another tokenizer"
            )
        return found


@dataclass(frozen=True)
class Rows:
    """n rows of one split, L ids each: `ids` [n, L] unsigned, `candidates` [n, L] bool (positions that are corrupted
    and scored), and a number that names each row, `example` [n] int64."""

    ids: np.ndarray
    candidates: np.ndarray
    example: np.ndarray

    def __post_init__(self) -> None:
        if self.ids.shape != self.candidates.shape or len(self.example) != len(self.ids):
            raise ValueError(
                f"rows with ids {self.ids.shape}, candidates {self.candidates.shape} and {len(self.example)} example"
                " numbers; give ids and candidates one shape [n, L], and n numbers"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, chunks: Iterable[Rows], length: int) -> Rows:
        """One `Rows` with the rows of all `chunks`, in order; each chunk is a `Rows` whose rows have `length` ids."""
        found = list(chunks)
        ids = np.concatenate([np.empty((0, length), np.int64), *[rows.ids for rows in found]])
        candidates = np.concatenate([np.empty((0, length), bool), *[rows.candidates for rows in found]])
        example = np.concatenate([np.empty(0, np.int64), *[rows.example for rows in found]])
        return cls(ids, candidates, example)


def check_heldout(fraction: float) -> None:
    """Raise ValueError unless `fraction`, the setting `heldout_fraction` of a data source, leaves both splits some
    rows: it must lie between 0 and 1."""
    if not 0 < fraction < 1:
        raise ValueError(f"heldout_fraction={fraction} is not between 0 and 1; give a share such as 0.05")


class Data(Part):
    """Base class of data sources, which give training rows and held-out rows. Methods have no side effects; `build` may
    read files or the Hub."""

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Vocabulary size and special ids, known without reading the data."""

    @abstractmethod
    def row_length(self) -> int:
        """L, the number of ids per row."""

    def expected_rows(self) -> int:
        """Number of training rows, or an estimate where only the Hub knows the number; used in cost plans. Unless a
        subclass overrides this, it raises ValueError: the data source has no training rows."""
        raise ValueError(f"{type(self).__name__} has no training rows; choose another data source")

    def resolve(self) -> dict[str, str | int]:
        """Values of those settings of this data source that are UNRESOLVED (a placeholder for what only the Hub or the
        files know), looked up now: dotted path -> value; empty for most sources."""
        return {}

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        """Rows of both splits. Raises ConnectionError where the source cannot be reached, ValueError where it has no
        rows."""
        raise ValueError(f"{type(self).__name__} has no training rows; choose another data source")

    def splits(self) -> Iterator[tuple[Literal["train", "heldout"], Iterable[Rows]]]:
        """(name of the split, iterable of `Rows` with some of its rows each, in order) for both splits, so that a large
        corpus need not fit into memory."""
        for split, rows in self.build().items():
            yield split, [rows]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special ids; ValueError names a symbol outside the vocabulary."""
        raise ValueError(f"{type(self).__name__} has no tokenizer; give token ids in place of text")

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Token ids [length] of each of the texts, equal to those of `encode`."""
        return (np.array(self.encode(text), np.int64) for text in texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special ids are shown by a name such as [MASK]."""
        raise ValueError(f"{type(self).__name__} has no tokenizer to decode ids; use the token ids")

    def text(self, ids: Sequence[int]) -> str:
        """Text of generated token ids for a reader. By default that of `decode`; some data sources leave special tokens
        out, or end at the first end-of-text id."""
        return self.decode(ids)

    def clusters(self, example: np.ndarray) -> np.ndarray:
        """A number for each row, [n], equal for rows of the same document, from the row names `example` [n]
        (`Rows.example`): standard errors must not treat rows of one document as independent. By default each row is its
        own document."""
        return example

    def prompt(self, text: str) -> list[int]:
        """Token ids of a prompt text, with the chat template applied where the source has one."""
        return self.encode(text)


@part
class DelegatedData(Data):
    """Base class of data sources that wrap another data source, `data`, and override some methods; all other methods
    call the same method of `data`."""

    data: Data

    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary()

    def row_length(self) -> int:
        return self.data.row_length()

    def expected_rows(self) -> int:
        return self.data.expected_rows()

    def resolve(self) -> dict[str, str | int]:
        return {f"data.{pin}": value for pin, value in self.data.resolve().items()}

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return self.data.build()

    def splits(self) -> Iterator[tuple[Literal["train", "heldout"], Iterable[Rows]]]:
        return self.data.splits()

    def encode(self, text: str) -> list[int]:
        return self.data.encode(text)

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        return self.data.encode_each(texts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.data.decode(ids)

    def text(self, ids: Sequence[int]) -> str:
        return self.data.text(ids)

    def clusters(self, example: np.ndarray) -> np.ndarray:
        return self.data.clusters(example)

    def prompt(self, text: str) -> list[int]:
        return self.data.prompt(text)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: the rows `train` and `heldout`, memory-mapped from `folder`, and the SHA-256 of their contents
    (`digest`)."""

    train: Rows
    heldout: Rows
    digest: str
    folder: Path


def prepared(data: Data) -> Corpus:
    """The prepared corpus of a data source. On first use it is built under runs/data, by one process at a time.

    Raises ConnectionError where the source cannot be reached, and ValueError where it has no rows or the prepared files
    are broken: their types or shapes do not fit `data`, or (checked up to 64 MiB) their contents have changed.
    """
    name = parts.digest(data)
    folder = runs() / "data" / name[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{name[:16]}.lock"):
            if not folder.is_dir():
                _write(data, folder)
    return _open(data, folder, name)


BLOCK = 1 << 22
"""Number of bytes read at a time for hashing."""
HASHED = 1 << 26
"""Most bytes of a prepared corpus whose contents are compared with their digest whenever it is opened (about 0.1 s)."""


def _layout(data: Data) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Name of each array in which a split of `data` is stored (a field of `Rows`) -> its dtype, and its shape without
    the first axis (rows)."""
    total, row = data.vocabulary().total, (data.row_length(),)
    kind = np.uint8 if total <= 1 << 8 else np.uint16 if total <= 1 << 16 else np.uint32
    return {
        "ids": (np.dtype(kind), row),
        "candidates": (np.dtype(np.bool_), row),
        "example": (np.dtype(np.int64), ()),
    }


def _title(split: str, field: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Bytes that are hashed before the contents of an array for the digest of a corpus: its split, name, dtype and
    shape."""
    return f"{split}.{field}.{dtype}.{shape}".encode()


class _Growing:
    """Writer of the .npy file `path`, to which rows of the shape `row` are appended. The file has the bytes that
    `numpy.save` would write: numpy pads the header, so that `close` can write the final number of rows into it."""

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row, self.count = path, dtype, row, 0
        self.file = open(path, "wb")  # noqa: SIM115 (closed by `close`)
        self._header()
        self.start = self.file.tell()

    def _header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self.dtype)
        shape = (self.count, *self.row)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, array: np.ndarray) -> None:
        assert array.shape[1:] == self.row
        self.file.write(np.ascontiguousarray(array, self.dtype).data)
        self.count += len(array)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self.start
        self.file.close()

    def hash_into(self, content: hashlib._Hash, split: str, field: str) -> None:
        content.update(_title(split, field, self.dtype, (self.count, *self.row)))
        with open(self.path, "rb") as file:
            file.seek(self.start)
            while block := file.read(BLOCK):
                content.update(block)


def _write(data: Data, folder: Path) -> None:
    content = hashlib.sha256()
    counts: dict[str, int] = {}
    with atomically(folder) as temporary:
        temporary.mkdir()
        for split, chunks in data.splits():
            files = {
                field: _Growing(temporary / f"{split}.{field}.npy", dtype, row)
                for field, (dtype, row) in _layout(data).items()
            }
            try:
                for rows in chunks:
                    for field, file in files.items():
                        file.append(getattr(rows, field))
            finally:
                for file in files.values():
                    file.close()
            counts[split] = files["ids"].count
            if counts[split] == 0:
                raise ValueError(
                    f"{parts.part_name(type(data))} data: split {split!r} has no rows of {data.row_length()} ids;"
                    " give longer text or shorter rows"
                )
            for field, file in files.items():
                file.hash_into(content, split, field)
        meta = {
            "data": parts.canonical(data),
            "digest": content.hexdigest(),
            "rows": counts,
            "vocabulary": asdict(data.vocabulary()),
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", "utf-8")


class _Meta(Struct):
    data: dict[str, Any]
    digest: str
    rows: dict[Literal["train", "heldout"], int]


def _open(data: Data, folder: Path, name: str) -> Corpus:
    """The prepared corpus in `folder`. `name`: digest of the data source `data`. ValueError, which says to remove the
    folder, if a file in it is broken or belongs to another data source."""
    try:
        meta = read_json(folder / "meta.json", _Meta)
        if parts.sha256(parts.to_json(meta.data)) != name:
            raise ValueError("meta.json, beside the arrays, describes another data source")
        if set(meta.rows) != set(SPLITS):
            raise ValueError(
                f"`rows` in meta.json has the splits {', '.join(meta.rows) or '(none)'}, not {' and '.join(SPLITS)}"
            )
        arrays = {split: _arrays(data, folder, split, count) for split, count in meta.rows.items()}
        _check_contents(arrays, meta.digest)
    except ValueError as error:
        raise ValueError(
            f"prepared data in {folder} is broken ({error}); remove that folder and run again"
        ) from None
    train, heldout = (Rows(**arrays[split]) for split in SPLITS)
    return Corpus(train, heldout, meta.digest, folder)


SPLITS: tuple[Literal["train", "heldout"], ...] = ("train", "heldout")


def _arrays(data: Data, folder: Path, split: str, count: int) -> dict[str, np.ndarray]:
    """Field of `Rows` -> memory-mapped array of one split with `count` rows; ValueError if a file has another dtype or
    shape than rows of `data`."""
    found = {}
    for field, (dtype, row) in _layout(data).items():
        path = regular(folder / f"{split}.{field}.npy")
        with foreign(path, "file of an array"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype or array.shape != (count, *row):
            raise ValueError(
                f"{path.name} has an array of {array.dtype} with shape {list(array.shape)}, expected"
                f" {dtype} with shape {[count, *row]}"
            )
        found[field] = array
    return found


def _check_contents(arrays: dict[Literal["train", "heldout"], dict[str, np.ndarray]], digest: str) -> None:
    """Raise ValueError if the arrays have at most 64 MiB (`HASHED`) and the SHA-256 of their contents is not
    `digest`. `arrays`: split -> field of `Rows` -> array."""
    if sum(array.nbytes for each in arrays.values() for array in each.values()) > HASHED:
        return
    content = hashlib.sha256()
    for split, each in arrays.items():
        for field, array in each.items():
            content.update(_title(split, field, array.dtype, array.shape))
            content.update(np.ascontiguousarray(array).data)
    if content.hexdigest() != digest:
        raise ValueError(
            f"the arrays have the digest {content.hexdigest()[:16]}, not {digest[:16]} as when they were written"
        )
