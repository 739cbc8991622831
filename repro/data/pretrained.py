"""Published tokenizers (WordPiece or BPE), from a Hub name or a local folder.

    Pretrained(source="bert-base-uncased", revision=UNRESOLVED, size=30522, begin=101, end=102, pad=0, mask=103)
    Pretrained(source="gpt2", revision=UNRESOLVED, size=50258, begin=50256, end=50256, pad=50257, mask=None)

Vocabulary size and special ids are settings, so that cost plans need no tokenizer. GPT-2 has 50257 ids; s-sahoo/duo
adds one for padding, which uniform noise can then draw as well (docs/method.md#transformation-operator).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.data import sources
from repro.data.documents import Documents
from repro.data.text import Ids, Special, Units, encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@part
class Pretrained(Units):
    """A published tokenizer with `size` ids, which include BOS `begin`, EOS `end` and, unless None, padding and mask.

    `source`: Hub name or folder; `revision`: commit, SHA-256 of the folder's files, or UNRESOLVED (any). Texts are
    tokenised without special tokens, truncation or padding. Raises ConnectionError where the Hub cannot be reached, and
    ValueError for an unknown name or revision, or a tokenizer with more ids than `size`.
    """

    source: str
    revision: str
    size: int
    begin: int
    end: int
    pad: int | None
    mask: int | None

    def __post_init__(self) -> None:
        for name, value in self.special()._asdict().items():
            if value is not None and not 0 <= value < self.size:
                raise ValueError(f"{name}={value} is not an id; give 0 to {self.size - 1}")

    def special(self) -> Special:
        return Special(begin=self.begin, end=self.end, pad=self.pad, mask=self.mask)

    def vocab_size(self, documents: Documents) -> int:
        return self.size

    def encode(self, texts: Iterable[str], documents: Documents) -> Iterator[Ids]:
        return encoded(self._tokenizer(), texts)

    def decode(self, ids: Sequence[int], documents: Documents) -> str:
        return self._tokenizer().decode(list(map(int, ids)), skip_special_tokens=False)

    def resolve(self) -> dict[str, str | int]:
        return {"revision": sources.revision(self.source, self.revision, "model")}

    def tokenizer(self, documents: Documents) -> Tokenizer:
        return self.published()

    def published(self) -> Tokenizer:
        """The published tokenizer itself; ConnectionError where the Hub cannot be reached, ValueError for an unknown
        name or revision."""
        return sources.tokenizer(self.source, self.revision).backend_tokenizer

    def _tokenizer(self) -> Tokenizer:
        made = _plain(self)
        if made.get_vocab_size() > self.size:
            raise ValueError(
                f"{self.source} has {made.get_vocab_size()} ids, more than size={self.size}; increase size"
            )
        return made


@lru_cache(maxsize=4)
def _plain(units: Pretrained) -> Tokenizer:
    """The tokenizer without the truncation and padding that some tokenizer files switch on."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(units.published().to_str())
    made.no_truncation()
    made.no_padding()
    return made
