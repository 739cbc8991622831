"""How the documents of a corpus become rows of L scored ids: the published packings, and one for any text
(docs/method.md#packing, docs/method.md#published-protocols).

    WrappedRows(batch=1000)         joined with an EOS after each document, cut into L - 2 ids between BOS and EOS
    WrappedPlainRows(batch=1000)    the same with nothing between documents (zero-shot sets)
    PaddedRows()                    one document per row: BOS, its first L - 2 ids, EOS, padding
    PieceRows()                     each document in pieces of L; the last one overlaps and scores only the remainder

Rows are cut by `repro.data.rows`, as for training data. Symbols: n rows of a chunk, L ids a row.
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
    """Ids that represent no text: begin and end of a row, and padding; None where the vocabulary has no such id."""

    begin: int | None
    end: int | None
    pad: int | None


class Packing(Part):
    """Kind: how documents become rows. Candidates are the positions of text, and the document's end where its position
    varies."""

    has_padding: ClassVar[bool] = False

    @abstractmethod
    def protocol(self) -> dict[str, str]:
        """`packing` and `eos`, in the terms of published tables (evals/published.toml)."""

    def missing(self, special: SpecialIds) -> str | None:
        """The reason why the packing cannot be used with these special ids, or None."""
        if special.begin is None or special.end is None:
            return "the vocabulary has no BOS and EOS to begin and end a row; --tasks pieces needs none"
        return None

    def text_ids(self, length: int) -> int:
        """Ids of text that a row of `length` ids has space for."""
        return length - 2

    @abstractmethod
    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        """Chunks of rows [n, L] from a stream of (document number, ids)."""

    def constant(self, chunk: Rows) -> np.ndarray:
        """[n, L] bool: positions that hold the same id in every row, which are never candidates."""
        constant = np.zeros(chunk.ids.shape, bool)
        constant[:, [0, -1]] = True
        return constant


@part
class _Wrapped(Packing):
    """Kind: joined documents, `batch` at a time; the incomplete last row of each batch is dropped (0: all joined)."""

    batch: int
    ends_documents: ClassVar[bool]
    """Whether an EOS follows each document."""

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise ValueError(f"batch={self.batch} is no number of documents; 0 joins all of them")

    def protocol(self) -> dict[str, str]:
        return {"packing": "wrapped", "eos": f"{'' if self.ends_documents else 'none '}between documents"}

    def rows(self, stream: Stream, length: int, special: SpecialIds) -> Iterator[Rows]:
        assert special.begin is not None and special.end is not None
        mark = (special.end,) if self.ends_documents else ()
        return rows.wrapped(stream, length, special.begin, special.end, mark, self.batch)


@part
class WrappedRows(_Wrapped):
    """Documents joined with an EOS after each."""

    ends_documents = True


@part
class WrappedPlainRows(_Wrapped):
    """As `WrappedRows`, with nothing between documents."""

    ends_documents = False


@part
class PaddedRows(Packing):
    """One document per row, its end scored; padding is never scored, but attended and noised
    (docs/method.md#duo-hyperparameters)."""

    has_padding = True

    def protocol(self) -> dict[str, str]:
        return {"packing": "padded", "eos": "behind each document"}

    def missing(self, special: SpecialIds) -> str | None:
        if special.pad is None:
            return "the vocabulary has no padding; --tasks wrapped joins documents instead"
        if special.pad == special.end:
            return "padding and EOS are one id; --tasks wrapped joins documents instead"
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
    """Pieces of L ids of each document, with no end marked. A remainder is scored in a last row of the document's last
    L ids, where only the ids that no other piece scores are candidates. So every id of a document of L ids or more is
    scored exactly once; shorter documents give no row."""

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
