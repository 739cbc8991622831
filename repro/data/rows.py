"""Streams of documents cut into rows, chunk by chunk, so that no corpus has to fit into memory.

    pieces    consecutive pieces of L ids of each document
    wrapped   documents joined, cut, each cut between BOS and EOS (s-sahoo/duo and kuleshov-group/mdlm dataloader.py)
    padded    one document a row: BOS, its first L - 2 ids, EOS, padding (the same)

A stream is (number, ids) pairs. The row named `number << 32 | k` begins in document `number`: errors of data cluster
by document. Symbols: L ids a row, n rows of a chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from repro.data.corpus import Rows

Stream = Iterator[tuple[int, np.ndarray]]
CHUNK = 256
"""Documents of a chunk of rows; no row depends on it."""


def pieces(stream: Stream, length: int) -> Iterator[Rows]:
    """Every piece of a document, its remainder dropped; every position is a candidate."""
    while documents := list(itertools.islice(stream, CHUNK)):
        cut = [ids[: len(ids) // length * length].reshape(-1, length) for _, ids in documents]
        names = [
            (number << 32) + np.arange(len(ids)) for (number, _), ids in zip(documents, cut, strict=True)
        ]
        ids = np.concatenate(cut)
        yield Rows(ids, np.ones(ids.shape, bool), np.concatenate(names))


def wrapped(
    stream: Stream, length: int, begin: int, end: int, mark: tuple[int, ...], batch: int
) -> Iterator[Rows]:
    """Joined documents, `mark` behind each, in cuts of L - 2 between `begin` and `end`, which are no candidates.

    `batch` documents are joined at a time and leave a remainder that is dropped (0: all of them).
    """
    inner, row = length - 2, 0
    behind = np.array(mark, np.int64)
    tokens, owner = np.empty(0, np.int64), np.empty(0, np.int64)
    while documents := list(itertools.islice(stream, batch or CHUNK)):
        marked = [np.concatenate([ids, behind]) for _, ids in documents]
        numbers = np.repeat([number for number, _ in documents], [len(ids) for ids in marked])
        tokens, owner = np.concatenate([tokens, *marked]), np.concatenate([owner, numbers])
        count = len(tokens) // inner
        cut = tokens[: count * inner].reshape(count, inner)
        names = (owner[: count * inner : inner] << 32) + np.arange(row, row + count)
        ids = np.pad(cut, ((0, 0), (1, 1)), constant_values=((0, 0), (begin, end)))
        candidates = np.ones(ids.shape, bool)
        candidates[:, [0, -1]] = False
        yield Rows(ids, candidates, names)
        row += count
        kept = slice(len(tokens), None) if batch else slice(count * inner, None)
        tokens, owner = tokens[kept], owner[kept]


def padded(stream: Stream, length: int, begin: int, end: int, pad: int) -> Iterator[Rows]:
    """One document a row; candidates are its ids and its EOS, neither BOS nor padding."""
    while documents := list(itertools.islice(stream, CHUNK)):
        ids = np.full((len(documents), length), pad, np.int64)
        ids[:, 0] = begin
        last = np.array([min(len(text), length - 2) + 1 for _, text in documents])
        for row, (_, text) in enumerate(documents):
            ids[row, 1 : last[row]] = text[: length - 2]
        ids[np.arange(len(ids)), last] = end
        column = np.arange(length)
        candidates = (column > 0) & (column <= last[:, None])
        yield Rows(ids, candidates, np.array([number for number, _ in documents], np.int64) << 32)
