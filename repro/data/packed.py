"""Documents joined into one stream, or one a row, as in the papers on LM1B and OpenWebText
(docs/method.md#duo-hyperparameters).

    Packed(documents=Hub(...), units=Gpt2(), length=1024, batch=1000)          "wrapped"
    PackedPlain(...)                                                           the same, nothing between documents
    Padded(documents=Hub(...), units=Pretrained(...), length=128)              one a row, "unwrapped"

Packed: each document ends with the boundary id E; the stream is cut every L - 2 ids, and each cut is put between BOS
and E (s-sahoo/duo dataloader.py:462-485). E is the units' own end of text where they have one (GPT-2, BERT's SEP), else
the id V; since it separates documents within a row, it is a token of the language. BOS is the units' own (BERT's CLS),
else E. The first and the last id of a row are constant, so they are neither corrupted nor scored (at L = 128 they would
change a score by a factor of 126/128; docs/method.md#ar-baseline).

Padded: padding is attended to and corrupted like a token, but never scored (docs/method.md#duo-hyperparameters). Where
it is visible it shows the length of the text, so the score of such a model is not a bound on log p of the text alone.
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
        raise ValueError(f"length={length} leaves no position between BOS and EOS; the smallest is 3")


@part
class Joined(Written):
    """Kind: rows cut from joined documents, `batch` at a time, without the remainder of each batch (0: all
    documents)."""

    batch: int

    def __post_init__(self) -> None:
        _check_length(self.length)
        if self.batch < 0:
            raise ValueError(f"batch={self.batch} is not a number of documents; 0 joins all of them")

    def vocabulary(self) -> Vocabulary:
        special, size = self.units.special(), self.units.vocab_size(self.documents)
        end = size if special.end is None else special.end
        size += (
            special.end is None
        )  # a boundary id that the units do not have becomes a token of the language
        begin = end if special.begin is None else special.begin
        own_mask = special.mask is not None
        mask = special.mask if own_mask else size
        return Vocabulary(size=size, total=size + (not own_mask), mask=mask, bos=begin, eos=end, pad=None)

    def _wrapped(self, split: Split, marked: bool) -> Iterator[Rows]:
        vocabulary = self.vocabulary()
        assert vocabulary.bos is not None and vocabulary.eos is not None
        mark = (vocabulary.eos,) if marked else ()
        stream = self.stream(split)
        return rows.wrapped(stream, self.length, vocabulary.bos, vocabulary.eos, mark, self.batch)


@part
class Packed(Joined):
    """Wrapped rows, with E after each document."""

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
    """One document a row, cut at L - 2 ids, between the units' own BOS and EOS, then the units' own padding.

    Raises ValueError for units that lack one of these three.
    """

    def __post_init__(self) -> None:
        _check_length(self.length)
        special = self.units.special()
        if special.begin is None or special.end is None or special.pad is None:
            raise ValueError(
                "padded rows need units with their own BOS, EOS and padding; use pretrained units"
            )

    def vocabulary(self) -> Vocabulary:
        special, size = self.units.special(), self.units.vocab_size(self.documents)
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
