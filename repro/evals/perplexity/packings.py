"""How the documents of a corpus become rows of L ids that are scored: the published ways, and one for any text.

    WrappedRows(batch=1000)         joined, EOS behind each document, cut in L - 2 between BOS and EOS
    WrappedPlainRows(batch=1000)    the same, nothing between documents (zero-shot sets)
    PaddedRows()                    one document a row: BOS, its first L - 2 ids, EOS, padding
    PieceRows()                     each document in pieces of L; the last reaches back and scores what is left

The cutting is `repro.data.rows`'s, that of training data. Symbols: n rows of a chunk, L ids a row.
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


class Ends(NamedTuple):
    """Ids that stand for no text: begin and end of a row, padding (None where there is none)."""

    begin: int | None
    end: int | None
    pad: int | None


class Packing(Part):
    """Kind: the law from documents to rows; candidates are the text, and the end of a document where it varies."""

    pads: ClassVar[bool] = False
    """Whether rows hold padding."""

    @abstractmethod
    def protocol(self) -> dict[str, str]:
        """`packing` and `eos`, in the words of published tables (evals/published.toml)."""

    def need(self, ends: Ends) -> str | None:
        """What these ids lack for it, or None."""
        if ends.begin is None or ends.end is None:
            return "the vocabulary has no BOS and EOS to stand around a row; --tasks pieces needs none"
        return None

    def room(self, length: int) -> int:
        """Ids of text a row."""
        return length - 2

    @abstractmethod
    def rows(self, stream: Stream, length: int, ends: Ends) -> Iterator[Rows]: ...

    def forced(self, found: Rows) -> np.ndarray:
        """[n, L] bool: positions that hold the same id in every row, which no candidate is."""
        forced = np.zeros(found.ids.shape, bool)
        forced[:, [0, -1]] = True
        return forced


def _check_batch(batch: int) -> None:
    if batch < 0:
        raise ValueError(f"batch={batch} is no number of documents; 0 joins all of them")


@part
class WrappedRows(Packing):
    """Documents joined `batch` at a time, EOS behind each; what a batch leaves over is dropped (0: all joined)."""

    batch: int

    def __post_init__(self) -> None:
        _check_batch(self.batch)

    def protocol(self) -> dict[str, str]:
        return {"packing": "wrapped", "eos": "between documents"}

    def rows(self, stream: Stream, length: int, ends: Ends) -> Iterator[Rows]:
        assert ends.begin is not None and ends.end is not None
        return rows.wrapped(stream, length, ends.begin, ends.end, (ends.end,), self.batch)


@part
class WrappedPlainRows(Packing):
    """As `WrappedRows`, with nothing between documents."""

    batch: int

    def __post_init__(self) -> None:
        _check_batch(self.batch)

    def protocol(self) -> dict[str, str]:
        return {"packing": "wrapped", "eos": "none between documents"}

    def rows(self, stream: Stream, length: int, ends: Ends) -> Iterator[Rows]:
        assert ends.begin is not None and ends.end is not None
        return rows.wrapped(stream, length, ends.begin, ends.end, (), self.batch)


@part
class PaddedRows(Packing):
    """One document a row, its end scored; padding is never scored, but attended and noised
    (docs/method.md#duo-hyperparameters)."""

    pads = True

    def protocol(self) -> dict[str, str]:
        return {"packing": "padded", "eos": "behind each document"}

    def need(self, ends: Ends) -> str | None:
        if ends.pad is None:
            return "the vocabulary has no padding; --tasks wrapped joins documents instead"
        if ends.pad == ends.end:
            return "padding and EOS are one id; --tasks wrapped joins documents instead"
        return super().need(ends)

    def rows(self, stream: Stream, length: int, ends: Ends) -> Iterator[Rows]:
        assert ends.begin is not None and ends.end is not None and ends.pad is not None
        return rows.padded(stream, length, ends.begin, ends.end, ends.pad)

    def forced(self, found: Rows) -> np.ndarray:
        forced = np.zeros(found.ids.shape, bool)
        forced[:, 0] = True
        return forced


@part
class PieceRows(Packing):
    """Pieces of L of each document, no end marked. Where a remainder is left, the last L ids are a row whose earlier
    ids are given and whose candidates are those that no piece has scored: nothing of a document of L ids or more is
    lost, nor scored twice. Shorter documents give no row."""

    def protocol(self) -> dict[str, str]:
        return {"packing": "pieces", "eos": "none"}

    def need(self, ends: Ends) -> str | None:
        return None

    def room(self, length: int) -> int:
        return length

    def rows(self, stream: Stream, length: int, ends: Ends) -> Iterator[Rows]:
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

    def forced(self, found: Rows) -> np.ndarray:
        return np.zeros(found.ids.shape, bool)
