"""Four ways to form rows from a stream of documents, chunk by chunk, so that a corpus need not fit into memory.

    consecutive   every L ids of each document
    joined        documents joined and cut
    wrapped       documents joined and cut, each cut between BOS and EOS
    padded        one document per row: BOS, its first L - 2 ids, EOS, padding

`wrapped` and `padded` follow s-sahoo/duo and kuleshov-group/mdlm (dataloader.py). A stream yields pairs (document
number, token ids). The name of a row (`Rows.example`) that begins in document `number` is `number << 32 | k`: it keeps
the document, since rows of one document are statistically dependent. Symbols: L ids per row, n rows of a chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from repro.data.corpus import Rows

Stream = Iterator[tuple[int, np.ndarray]]
CHUNK = 256
"""Number of documents whose rows form one chunk; the rows do not depend on it."""


def consecutive(stream: Stream, length: int) -> Iterator[Rows]:
    """Rows of `length` consecutive ids of one document each; ids left over at a document's end are dropped. Every
    position is a candidate (corrupted and scored). `stream`: (number, token ids) of each document; each `Rows` that is
    yielded holds the rows of up to `CHUNK` documents."""
    while documents := list(itertools.islice(stream, CHUNK)):
        cut = [ids[: len(ids) // length * length].reshape(-1, length) for _, ids in documents]
        names = [
            (number << 32) + np.arange(len(ids)) for (number, _), ids in zip(documents, cut, strict=True)
        ]
        ids = np.concatenate(cut)
        yield Rows(ids, np.ones(ids.shape, bool), np.concatenate(names))


def joined(stream: Stream, length: int, mark: tuple[int, ...], batch: int) -> Iterator[Rows]:
    """Rows of documents joined, with the ids `mark` after each, and cut every `length` ids; every position is a
    candidate (corrupted and scored). Each `Rows` that is yielded holds the rows of some documents.

    `stream`: (number, token ids) of each document; `batch`: number of documents that are joined at a time, of which
    the ids left over at the end are dropped (0: all documents are joined).
    """
    row = 0
    after = np.array(mark, np.int64)
    tokens, owner = np.empty(0, np.int64), np.empty(0, np.int64)
    while documents := list(itertools.islice(stream, batch or CHUNK)):
        marked = [np.concatenate([ids, after]) for _, ids in documents]
        numbers = np.repeat([number for number, _ in documents], [len(ids) for ids in marked])
        tokens, owner = np.concatenate([tokens, *marked]), np.concatenate([owner, numbers])
        count = len(tokens) // length
        cut = tokens[: count * length].reshape(count, length)
        names = (owner[: count * length : length] << 32) + np.arange(row, row + count)
        yield Rows(cut, np.ones(cut.shape, bool), names)
        row += count
        rest = slice(len(tokens), None) if batch else slice(count * length, None)
        tokens, owner = tokens[rest], owner[rest]


def wrapped(
    stream: Stream, length: int, begin: int, end: int, mark: tuple[int, ...], batch: int
) -> Iterator[Rows]:
    """Rows of L = `length` ids: L - 2 ids cut from joined documents, between the ids `begin` and `end`, which are
    neither corrupted nor scored. `stream`, `mark` and `batch` are those of `joined`, which cuts the documents; each
    `Rows` that is yielded holds the rows of some documents."""
    for cut in joined(stream, length - 2, mark, batch):
        ids = np.pad(cut.ids, ((0, 0), (1, 1)), constant_values=((0, 0), (begin, end)))
        candidates = np.pad(cut.candidates, ((0, 0), (1, 1)))
        yield Rows(ids, candidates, cut.example)


def padded(stream: Stream, length: int, begin: int, end: int, pad: int) -> Iterator[Rows]:
    """Rows of one document each: BOS `begin`, the first `length` - 2 ids, EOS `end`, padding `pad`. Candidates
    (corrupted and scored) are the ids and EOS, but neither BOS nor padding. `stream`: (number, token ids) of each
    document; each `Rows` that is yielded holds up to `CHUNK` documents."""
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
