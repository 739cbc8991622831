"""Documents joined into one stream, or one a row, as the papers on LM1B and OpenWebText do
(docs/method.md#duo-hyperparameters).

    Packed(documents=Hub(...), units=Gpt2(), length=1024, batch=1000)          "wrapped"
    PackedPlain(...)                                                           the same, nothing between documents
    Padded(documents=Hub(...), units=Pretrained(...), length=128)              one a row, "unwrapped"

Packed: each document ends in the boundary id E; the stream is cut into chunks of L - 2, and each chunk stands between
BOS and E (s-sahoo/duo dataloader.py:462-485). E is the units' own end of text where they have one (GPT-2, BERT's SEP),
else the id V: it stands between documents within a row, so it is a token of the language. BOS is the units' own (BERT's
CLS), else E. The two that a row is forced to carry are trivial, hence neither corrupted nor scored (at L = 128 they
would dilute a score by 2/128; docs/method.md#ar-baseline).

Padded: padding is attended and noised like a token, and never scored (docs/method.md#duo-hyperparameters). Its place
tells the length of the text once it is visible, so what such a model scores is no bound on log p of the text alone.
Symbols: V units, L ids a row.
"""

from __future__ import annotations

from collections.abc import Iterator

from repro.core.parts import part
from repro.data import rows
from repro.data.corpus import Rows, Vocabulary
from repro.data.documents import Split
from repro.data.text import Written


def _check_length(length: int) -> None:
    if length < 3:
        raise ValueError(f"length={length} has no room between BOS and EOS; the smallest is 3")


@part
class Joined(Written):
    """Kind: rows cut from joined documents, `batch` of them at a time; each batch drops its remainder (0: all)."""

    batch: int

    def __post_init__(self) -> None:
        _check_length(self.length)
        if self.batch < 0:
            raise ValueError(f"batch={self.batch} is no number of documents; 0 joins all of them")

    def vocabulary(self) -> Vocabulary:
        special, size = self.units.special(), self.units.count(self.documents)
        end = size if special.end is None else special.end
        size += special.end is None  # E is a token of the language where it is none of the units
        begin = end if special.begin is None else special.begin
        beyond = special.mask is None
        mask = size if special.mask is None else special.mask
        return Vocabulary(size=size, total=size + beyond, mask=mask, bos=begin, eos=end, pad=None)

    def _wrapped(self, split: Split, marked: bool) -> Iterator[Rows]:
        vocabulary = self.vocabulary()
        assert vocabulary.bos is not None and vocabulary.eos is not None
        mark = (vocabulary.eos,) if marked else ()
        stream = self.stream(split)
        return rows.wrapped(stream, self.length, vocabulary.bos, vocabulary.eos, mark, self.batch)


@part
class Packed(Joined):
    """Wrapped rows, E behind each document."""

    version = 2

    def chunks(self, split: Split) -> Iterator[Rows]:
        return self._wrapped(split, marked=True)


@part
class PackedPlain(Joined):
    """Wrapped rows with nothing between documents (`insert_eos=False` in s-sahoo/duo: its zero-shot sets)."""

    def chunks(self, split: Split) -> Iterator[Rows]:
        return self._wrapped(split, marked=False)


@part
class Padded(Written):
    """One document a row, cut at L - 2 ids, between the units' own BOS and EOS, padded with their own padding.

    Raises ValueError for units without these three.
    """

    def __post_init__(self) -> None:
        _check_length(self.length)
        special = self.units.special()
        if special.begin is None or special.end is None or special.pad is None:
            raise ValueError("padded rows need units with BOS, EOS and padding of their own (pretrained)")

    def vocabulary(self) -> Vocabulary:
        special, size = self.units.special(), self.units.count(self.documents)
        return Vocabulary(
            size=size,
            total=size + (special.mask is None),
            mask=size if special.mask is None else special.mask,
            bos=special.begin,
            eos=special.end,
            pad=None,
            filler=special.pad,
        )

    def chunks(self, split: Split) -> Iterator[Rows]:
        special = self.units.special()
        assert special.begin is not None and special.end is not None and special.pad is not None
        return rows.padded(self.stream(split), self.length, special.begin, special.end, special.pad)
