"""Packings, which cut the documents of a corpus into rows of L ids: the published ones, and one for any text
(docs/method.md#packing, docs/method.md#published-protocols).

    WrappedRows(batch=1000)         documents joined, an EOS after each; every L - 2 ids are a row between BOS and EOS
    WrappedPlainRows(batch=1000)    the same, but nothing between the documents (zero-shot sets)
    PaddedRows()                    one document per row: BOS, its first L - 2 ids, EOS, padding
    PieceRows()                     each document in pieces of L ids; the last overlaps and scores only the remainder

`batch`: number of documents that are joined at a time. Rows are cut by `repro.data.rows`, as for training data. A
position to be scored is called a candidate. Symbols: n rows of a chunk, L ids per row.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from repro.core.parts import Part, part
from repro.data import rows
from repro.data.corpus import Rows
from repro.data.rows import CHUNK, Stream


class SpecialIds(NamedTuple):
    """Ids that represent no text: those at the begin and end of a row (BOS, EOS), and padding; None where the
    vocabulary has no such id."""

    begin: int | None
    end: int | None
    pad: int | None


class Packing(Part):
    """Base class of packings. A subclass cuts documents into rows of ids (`rows`) and describes how (`protocol`).

    Candidates, the positions to be scored, are those of text, and the EOS after a document where its position in the
    row varies. `has_padding`: whether rows may contain padding.
    """

    has_padding: ClassVar[bool] = False

    @abstractmethod
    def protocol(self) -> dict[str, str]:
        """The entries `packing` and `eos` (where EOS ids stand) of a result's protocol, in the same words as the
        protocols of published numbers in evals/published.toml."""

    def missing(self, special: SpecialIds) -> str | None:
        """Reason why the packing cannot be used with a tokenizer that has the ids `special`; None if it can."""
        if special.begin is None or special.end is None:
            return "the vocabulary has no BOS and EOS to begin and end a row; the packing of --tasks pieces needs none"
        return None

    def text_ids(self, length: int) -> int:
        """Largest number of ids of text in a row of `length` ids."""
        return length - 2

    @abstractmethod
    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        """Yield the rows of L = `length` ids in chunks [n, L], from `stream`, which yields (number, token ids) for each
        document; `special`: the ids that begin, end and pad the rows."""

    def constant(self, chunk: Rows) -> np.ndarray:
        """Bool [n, L] for the n rows of `chunk`: True at positions that hold the same special id in every row, such as
        BOS at the first; they are never candidates (positions to be scored)."""
        constant = np.zeros(chunk.ids.shape, bool)
        constant[:, [0, -1]] = True
        return constant


@part
class _Wrapped(Packing):
    """Base class of packings that join documents, `batch` of them at a time (0: all), and cut the joined ids into full
    rows. The incomplete last row of each batch is dropped. ValueError for a negative `batch`."""

    batch: int
    ends_documents: ClassVar[bool]
    """Whether an EOS follows each document."""

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise ValueError(
                f"batch={self.batch} is no number of documents to join; give 1 or more, or 0 for all of them"
            )

    def protocol(self) -> dict[str, str]:
        return {"packing": "wrapped", "eos": f"{'' if self.ends_documents else 'none '}between documents"}

    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        assert special.begin is not None and special.end is not None
        mark = (special.end,) if self.ends_documents else ()
        return rows.wrapped(stream, length, special.begin, special.end, mark, self.batch)


@part
class WrappedRows(_Wrapped):
    """Rows cut from documents that are joined with an EOS after each, `batch` documents at a time (0: all); every row
    begins with BOS and ends with EOS."""

    ends_documents = True


@part
class WrappedPlainRows(_Wrapped):
    """Rows cut from documents that are joined with nothing between them, `batch` documents at a time (0: all); every
    row begins with BOS and ends with EOS."""

    ends_documents = False


@part
class PaddedRows(Packing):
    """One document per row: BOS, its first L - 2 ids, EOS, and padding to L ids. The EOS is scored; padding is not, but
    it is attended to and noised (docs/method.md#duo-hyperparameters)."""

    has_padding = True

    def protocol(self) -> dict[str, str]:
        return {"packing": "padded", "eos": "behind each document"}

    def missing(self, special: SpecialIds) -> str | None:
        if special.pad is None:
            return "the vocabulary has no padding id; the packing `wrapped` (--tasks wrapped) needs none"
        if special.pad == special.end:
            return "padding and EOS are one id; the packing `wrapped` (--tasks wrapped) needs no padding"
        return super().missing(special)

    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        assert special.begin is not None and special.end is not None and special.pad is not None
        return rows.padded(stream, length, special.begin, special.end, special.pad)

    def constant(self, chunk: Rows) -> np.ndarray:
        constant = np.zeros(chunk.ids.shape, bool)
        constant[:, 0] = True
        return constant


@part
class PieceRows(Packing):
    """Each document by itself cut into rows of L of its ids, without BOS, EOS or padding.

    Ids that are left over at the end of a document are scored in one more row, the document's last L ids, in which only
    they are scored. So every id of a document of L ids or more is scored exactly once; shorter documents give no row.
    """

    def protocol(self) -> dict[str, str]:
        return {"packing": "pieces", "eos": "none"}

    def missing(self, special: SpecialIds) -> str | None:
        return None

    def text_ids(self, length: int) -> int:
        return length

    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        while documents := list(itertools.islice(stream, CHUNK)):
            ids, candidates, names = [np.empty((0, length), np.int64)], [np.empty((0, length), bool)], []
            for number, text in documents:
                whole, left = divmod(len(text), length)
                if not whole:
                    continue
                starts = [*range(0, whole * length, length), *([len(text) - length] if left else [])]
                ids.append(np.stack([text[start : start + length] for start in starts]))
                scored = np.ones((len(starts), length), bool)
                scored[-1, : length - left if left else 0] = False
                candidates.append(scored)
                names += [(number << 32) + piece for piece in range(len(starts))]
            yield Rows(np.concatenate(ids), np.concatenate(candidates), np.array(names, np.int64))

    def constant(self, chunk: Rows) -> np.ndarray:
        return np.zeros(chunk.ids.shape, bool)
