"""Rows of documents joined into one stream, or of one document each, as in the papers on LM1B and OpenWebText
(docs/method.md#duo-hyperparameters).

    Packed(documents=Hub(...), units=Gpt2(), length=1024, batch=1000)          "wrapped"
    PackedPlain(...)                                                           Packed with nothing between documents
    PackedWhole(...)                                                           Packed without BOS and E around a row
    Padded(documents=Hub(...), units=Pretrained(...), length=128)              one per row, "unwrapped"
    Stream(documents=Files(...), units=Alphabet(...), length=64)               joined and cut, nothing constant in a row

Packed: each document ends with the boundary id E; the stream is cut every L - 2 ids, and each cut is put between BOS
and E (s-sahoo/duo dataloader.py:462-485). E is the tokenizer's own end of text where it has one (GPT-2's, BERT's SEP),
else the id V; since it separates documents within a row, it is a token of the language. BOS is the tokenizer's own
(BERT's CLS), else E. The first and the last id of a row are constant, so they are neither corrupted nor scored (at L =
128 they would change a score by a factor of 126/128; docs/method.md#ar-baseline).

Padded: padding is attended to and corrupted like a token, but never scored (docs/method.md#duo-hyperparameters).
Visible padding shows the length of the text, so the score of such a model is not a bound on log p of the text alone.

Stream: no constant ids and no padding; a row may begin and end within a text.

Symbols: V ids of the tokenizer (`units`), L ids per row.
"""

from __future__ import annotations

from collections.abc import Iterator

from repro.core.parts import part
from repro.data import rows
from repro.data.corpus import Rows, Vocabulary
from repro.data.documents import Split
from repro.data.text import Special, Written


def _check_length(length: int) -> None:
    if length < 3:
        raise ValueError(f"length={length} leaves no position between BOS and EOS; the smallest is 3")


def with_boundary(special: Special, size: int) -> Vocabulary:
    """Vocabulary of packed rows, from a tokenizer with `size` ids and the special ids `special`. EOS, the boundary
    between documents, and the mask are those of the tokenizer; one that it lacks gets a new id. BOS is that of the
    tokenizer, or else equal to EOS."""
    end = size if special.end is None else special.end
    size += (
        special.end is None
    )  # a boundary id that the tokenizer does not have becomes a token of the language
    begin = end if special.begin is None else special.begin
    own_mask = special.mask is not None
    mask = special.mask if own_mask else size
    return Vocabulary(size=size, total=size + (not own_mask), mask=mask, bos=begin, eos=end, pad=None)


@part
class Joined(Written):
    """Base class of data sources that join documents and cut rows of `length` ids from them. `batch`: number of
    documents that are joined at a time; ids left over at the end of a batch are dropped. 0: all documents are
    joined."""

    batch: int

    def __post_init__(self) -> None:
        _check_length(self.length)
        if self.batch < 0:
            raise ValueError(
                f"batch={self.batch} is not a number of documents; give 1 or more, or 0 to join all of them"
            )

    def vocabulary(self) -> Vocabulary:
        return with_boundary(self.units.special(), self.units.vocab_size(self.documents))

    def _wrapped(self, split: Split, marked: bool) -> Iterator[Rows]:
        vocabulary = self.vocabulary()
        assert vocabulary.bos is not None and vocabulary.eos is not None
        mark = (vocabulary.eos,) if marked else ()
        stream = self.stream(split)
        return rows.wrapped(stream, self.length, vocabulary.bos, vocabulary.eos, mark, self.batch)


@part
class Packed(Joined):
    """Rows cut from joined documents ("wrapped"), with the boundary id E after each document. A row is BOS, L - 2 ids
    of the stream, and E; its first and its last id are neither corrupted nor scored."""

    version = 2

    def chunks(self, split: Split) -> Iterator[Rows]:
        return self._wrapped(split, marked=True)


@part
class PackedPlain(Joined):
    """Rows cut from joined documents ("wrapped") with nothing between documents, as in the data on which s-sahoo/duo
    measures zero-shot perplexity (`insert_eos=False`). A row is BOS, L - 2 ids of the documents, and the boundary id E;
    its first and its last id are neither corrupted nor scored."""

    def chunks(self, split: Split) -> Iterator[Rows]:
        return self._wrapped(split, marked=False)


@part
class PackedWhole(Joined):
    """Rows cut from joined documents every L = `length` ids, with the boundary id E after each document and neither BOS
    nor E around a row, as BD3-LM was trained (`insert_train_special=False`, docs/method.md#block-diffusion). The first
    id of a row is neither corrupted nor scored (BD3-LM's `ignore_bos`), so that every scored id has context."""

    def chunks(self, split: Split) -> Iterator[Rows]:
        end = self.vocabulary().eos
        assert end is not None
        for cut in rows.joined(self.stream(split), self.length, (end,), self.batch):
            cut.candidates[:, 0] = False
            yield cut


@part
class Stream(Written):
    """Rows cut every L = `length` ids from all documents of a split joined, with the boundary id E after each document;
    every position is a candidate (corrupted and scored), so a model can generate a row from nothing. Left-to-right
    models start from E, or from the tokenizer's BOS."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length={self.length} is too short for rows; the smallest is 1")

    def vocabulary(self) -> Vocabulary:
        return with_boundary(self.units.special(), self.units.vocab_size(self.documents))

    def chunks(self, split: Split) -> Iterator[Rows]:
        end = self.vocabulary().eos
        assert end is not None
        return rows.joined(self.stream(split), self.length, (end,), 0)


@part
class Padded(Written):
    """One document per row of L = `length` ids, cut at L - 2 ids, between the tokenizer's own BOS and EOS, then its own
    padding.

    Raises ValueError for a tokenizer that lacks one of these three ids.
    """

    def __post_init__(self) -> None:
        _check_length(self.length)
        special = self.units.special()
        if special.begin is None or special.end is None or special.pad is None:
            raise ValueError(
                "padded rows need a tokenizer with its own BOS, EOS and padding ids, such as bert-base-uncased"
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
