"""Documents joined into one stream and cut into rows without padding (the papers' "wrapped" OpenWebText).

    Packed(documents=Hub(...), units=Gpt2(), length=1024, batch=1000)

Each document ends in the boundary id E; the stream is cut into chunks of L - 2, and each chunk stands between
two more E (s-sahoo/duo dataloader.py:462-485). E is the units' own end of text where they have one (GPT-2),
else the id V: it stands between documents within a row, so it is a token of the language. The two that a row
is forced to carry are trivial, hence neither corrupted nor scored (at L = 128 they would dilute a score by
2/128; spec F). Symbols: V units, L ids a row.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from repro.data.corpus import Rows, Vocabulary
from repro.data.documents import Split
from repro.data.text import Written
from repro.parts import part


@part
class Packed(Written):
    """Wrapped rows; `batch` documents are joined at a time and leave a remainder that is dropped (0: all)."""

    batch: int

    def __post_init__(self) -> None:
        if self.length < 3:
            raise ValueError(f"length={self.length} has no room between BOS and EOS; the smallest is 3")
        if self.batch < 0:
            raise ValueError(f"batch={self.batch} is no number of documents; 0 joins all of them")

    def vocabulary(self) -> Vocabulary:
        size, end = self._size(), self._end()
        return Vocabulary(size=size, total=size + 1, mask=size, bos=end, eos=end, pad=None)

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return {"train": self._pack("train"), "heldout": self._pack("heldout")}

    def _end(self) -> int:
        """E, the boundary id."""
        return self.units.count(self.documents) if self.units.end is None else self.units.end

    def _size(self) -> int:
        """Tokens of the language: the units, and E where it is none of them."""
        return self.units.count(self.documents) + (self.units.end is None)

    def _pack(self, split: Split) -> Rows:
        """Ids [n, L], candidates everywhere but at both ends, rows named by their place in the split."""
        inner, end = self.length - 2, self._end()
        chunks = [np.empty((0, inner), np.int64)]
        streams = self.units.encode((text for _, text in self.documents.texts(split)), self.documents)
        while documents := list(itertools.islice(streams, self.batch or None)):
            stream = np.concatenate([np.append(ids, end) for ids in documents])
            count = len(stream) // inner
            chunks.append(stream[: count * inner].reshape(count, inner))
        ids = np.pad(np.concatenate(chunks), ((0, 0), (1, 1)), constant_values=end)
        candidates = np.ones(ids.shape, bool)
        candidates[:, [0, -1]] = False
        return Rows(ids=ids, candidates=candidates, example=np.arange(len(ids)))
