"""Running text in rows of L ids that do not cross documents (`repro.data.packed` joins documents).

    Text(documents=Sotu(...), units=Characters(), length=64)

`units` is the tokenizer: characters, a fixed alphabet, or one of `repro.data.byte_level` and `repro.data.pretrained`.
Some tokenizers are learnt from the documents, so every method of a tokenizer takes the documents. The k-th row of
document `number` has the name (`Rows.example`) `number << 32 | k`: it keeps the document, since rows of one document
are statistically dependent. Symbols: V = `vocab_size` of the tokenizer, L ids per row.
"""

from __future__ import annotations

import itertools
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from repro.core.errors import UnknownSymbol, naming
from repro.core.parts import Part, part
from repro.data import rows
from repro.data.corpus import Data, Rows, Vocabulary, prepared
from repro.data.documents import Documents, Split

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = np.ndarray


class Special(NamedTuple):
    """Ids of BOS, EOS, padding and mask in a tokenizer's vocabulary; None where it has none."""

    begin: int | None = None
    end: int | None = None
    pad: int | None = None
    mask: int | None = None


class Units(Part):
    """Base class of tokenizers, which turn text into ids below V = `vocab_size` and back. `documents` in its methods:
    the documents from which some tokenizers are learnt."""

    def special(self) -> Special:
        """The tokenizer's own special ids; by default it has none."""
        return Special()

    def resolve(self) -> dict[str, str | int]:
        """Values of those settings of this tokenizer that are UNRESOLVED (a placeholder for what only the Hub or the
        files know), looked up now: setting -> value; empty for most tokenizers."""
        return {}

    @abstractmethod
    def vocab_size(self, documents: Documents) -> int:
        """V, the number of ids of the tokenizer. `documents`: those from which some tokenizers are learnt."""

    @abstractmethod
    def encode(self, texts: Iterable[str], documents: Documents) -> Iterator[Ids]:
        """Token ids of each text, [T] for a text of T tokens; ValueError names a symbol that has no id. `documents`:
        the documents of the data source, from which some tokenizers are learnt."""

    @abstractmethod
    def decode(self, ids: Sequence[int], documents: Documents) -> str:
        """Text of token ids, which are below `vocab_size`; bytes that are not UTF-8 become U+FFFD. `documents`: those
        of the data source, from which some tokenizers are learnt."""

    @abstractmethod
    def tokenizer(self, documents: Documents) -> Tokenizer | None:
        """This tokenizer as an object of the library `tokenizers`; None for one with an id per character.
        `documents`: those of the data source, from which some tokenizers are learnt."""


@part
class Characters(Units):
    """Tokenizer with one id for each character that occurs in the documents, training or held-out (of which nothing but
    the set of their characters is used), in sorted order."""

    def vocab_size(self, documents: Documents) -> int:
        return len(_alphabet(documents))

    def encode(self, texts: Iterable[str], documents: Documents) -> Iterator[Ids]:
        return spelled(_alphabet(documents), texts)

    def decode(self, ids: Sequence[int], documents: Documents) -> str:
        alphabet = _alphabet(documents)
        return "".join(alphabet[i] for i in ids)

    def tokenizer(self, documents: Documents) -> None:
        return None


@part
class Alphabet(Units):
    """Tokenizer with one id per character of `characters`, which are sorted. Unlike `Characters` it needs no documents,
    so a model can write text where its training data is not at hand."""

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or self.characters != "".join(sorted(set(self.characters))):
            raise ValueError(
                f"characters={self.characters[:40]!r} are not distinct, sorted characters; give each once, in order"
            )

    def vocab_size(self, documents: Documents) -> int:
        return len(self.characters)

    def encode(self, texts: Iterable[str], documents: Documents) -> Iterator[Ids]:
        return spelled(self.characters, texts)

    def decode(self, ids: Sequence[int], documents: Documents) -> str:
        return "".join(self.characters[i] for i in ids)

    def tokenizer(self, documents: Documents) -> None:
        return None


@part
class Written(Data):
    """Base class of data sources that cut rows from tokenised documents (`Text`, `Packed`, `Padded`, ...): `units` is
    the tokenizer, `documents` the source of the texts, `length` the number of ids per row."""

    documents: Documents
    units: Units
    length: int

    def row_length(self) -> int:
        return self.length

    def expected_rows(self) -> int:
        """Exact number of training rows; the first call prepares the corpus to count them."""
        return len(prepared(self).train)

    def clusters(self, example: np.ndarray) -> np.ndarray:
        return example >> 32  # a row's name is document << 32 | k

    def encode(self, text: str) -> list[int]:
        return next(iter(self.units.encode([text], self.documents))).tolist()

    def encode_each(self, texts: Iterable[str]) -> Iterator[Ids]:
        return self.units.encode(texts, self.documents)

    def decode(self, ids: Sequence[int]) -> str:
        vocabulary = self.vocabulary()
        special = [vocabulary.filler, vocabulary.bos, vocabulary.eos, vocabulary.mask]
        marks = dict(zip(special, ("[PAD]", "[BOS]", "[EOS]", "[MASK]"), strict=True))
        written = []
        for mark, run in itertools.groupby(map(int, ids), key=marks.get):
            run = list(run)
            wrong = [i for i in run if not 0 <= i < vocabulary.total]
            if wrong:
                raise ValueError(f"no token has the id {wrong[0]}; the largest id is {vocabulary.total - 1}")
            written.append(mark * len(run) if mark else self.units.decode(run, self.documents))
        return "".join(written)

    def resolve(self) -> dict[str, str | int]:
        """Values of those settings of this data source that are UNRESOLVED (a placeholder for what only the Hub or the
        files know), looked up now: dotted path -> value. `derive(data, data.resolve())` fixes them all."""
        found = {f"documents.{pin}": value for pin, value in self.documents.resolve().items()}
        return found | {f"units.{pin}": value for pin, value in self.units.resolve().items()}

    def stream(self, split: Split) -> Iterator[tuple[int, Ids]]:
        """(number, token ids) of each document of a split."""
        numbers, texts = itertools.tee(self.documents.texts(split))
        encoded = self.units.encode((text for _, text in texts), self.documents)
        for number, _ in numbers:
            with naming(f"{self.documents.origin()}, document {number}"):
                ids = next(encoded)
            yield number, ids

    @abstractmethod
    def chunks(self, split: Split) -> Iterator[Rows]:
        """The rows of a split, in order, as an iterator of chunks (each holds some of the rows), so that they need not
        all fit into memory."""

    def splits(self) -> Iterator[tuple[Split, Iterable[Rows]]]:
        for split in ("train", "heldout"):
            yield split, self.chunks(split)

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return {split: Rows.joined(chunks, self.length) for split, chunks in self.splits()}


@part
class Text(Written):
    """Rows of every L = `length` ids of each document, without the remainder; every position is a candidate (corrupted
    and scored).

    Ids 0..V-1 are those of the tokenizer `units`, V is the mask, V + 1 a BOS that no row contains (left-to-right models
    start from it).
    """

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length={self.length} is too short for rows; the smallest is 1")

    def vocabulary(self) -> Vocabulary:
        size = self.units.vocab_size(self.documents)
        return Vocabulary(size=size, total=size + 2, mask=size, bos=size + 1, eos=None, pad=None)

    def chunks(self, split: Split) -> Iterator[Rows]:
        return rows.consecutive(self.stream(split), self.length)


def spelled(alphabet: str, texts: Iterable[str]) -> Iterator[Ids]:
    """Token ids of each text: the id of a character is its place in the sorted `alphabet`. UnknownSymbol names a
    character outside it."""
    known = _points(alphabet)
    for text in texts:
        points = _points(text)
        ids = np.searchsorted(known, points).clip(max=len(known) - 1)
        wrong = np.flatnonzero(known[ids] != points)
        if len(wrong):
            raise UnknownSymbol(_unknown_character(text, wrong[0], alphabet))
        yield ids


def encoded(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Ids]:
    """Token ids of each text by `tokenizer`, without special ids; texts are read in batches of 256 to limit memory."""
    texts = iter(texts)
    while batch := list(itertools.islice(texts, 256)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield np.array(encoding.ids, dtype=np.int64)


def _points(text: str) -> Ids:
    """Unicode code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


@lru_cache(maxsize=8)
def _alphabet(documents: Documents) -> str:
    everything = itertools.chain(documents.texts("train"), documents.texts("heldout"))
    return "".join(sorted(set().union(*(text for _, text in everything))))


AROUND = 12
"""Characters shown on either side of one that is outside the alphabet."""


def _unknown_character(text: str, at: int, alphabet: str) -> str:
    """Message about the character `text[at]`, which is not in `alphabet`: it shows the text around this character, and
    names the character of the alphabet that is nearest in Unicode to its base letter (e for é)."""
    base = ord(unicodedata.normalize("NFKD", text[at])[0])
    close = min(alphabet, key=lambda known: abs(ord(known) - base))
    shown = text[max(0, at - AROUND) : at + AROUND + 1]
    return (
        f"character {text[at]!r} in {shown!r} is outside the alphabet of {len(alphabet)} characters; replace it"
        f" (nearest is {close!r}), or train with a tokenizer that reads any text (--tokenizer bpe:2048)"
    )
