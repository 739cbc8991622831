"""What released weights say of text: the tokenizer that came with them, and no rows.

The part names the tokenizer by its SHA-256 alone, so that a model is the same one wherever its folder lies; `keep` puts
a copy where the part finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from repro.core.files import atomically, runs
from repro.core.parts import part
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.text import encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@part
class Released(Data):
    """Ids of released weights; texts are tokenised as they are, with nothing put before or behind them.

    `length`: longest row that the network was trained on.
    """

    tokenizer_sha256: str
    size: int
    total: int
    mask: int | None
    bos: int | None
    eos: int | None
    pad: int | None
    length: int

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            size=self.size, total=self.total, mask=self.mask, bos=self.bos, eos=self.eos, pad=self.pad
        )

    def row_length(self) -> int:
        return self.length

    def expected_rows(self) -> int:
        return 0

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        raise ValueError("released weights come without data; ask for tasks that bring their own")

    def encode(self, text: str) -> list[int]:
        return _tokenizer(self.tokenizer_sha256).encode(text, add_special_tokens=False).ids

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        return encoded(_tokenizer(self.tokenizer_sha256), texts)

    def decode(self, ids: Sequence[int]) -> str:
        return _tokenizer(self.tokenizer_sha256).decode(list(map(int, ids)), skip_special_tokens=False)


def keep(path: Path) -> str:
    """Keep a tokenizer.json where `Released` finds it; returns its SHA-256."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not _kept(digest).is_file():
        with atomically(_kept(digest)) as temporary:
            temporary.write_bytes(content)
    return digest


def _kept(digest: str) -> Path:
    return runs() / "data" / f"tokenizer-{digest[:16]}.json"


@lru_cache(maxsize=4)
def _tokenizer(digest: str) -> Tokenizer:
    from tokenizers import Tokenizer

    path = _kept(digest)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{path} is not the tokenizer that it was; load the released folder again")
    made = Tokenizer.from_file(str(path))
    made.no_truncation()  # some files truncate and pad whatever they are given
    made.no_padding()
    return made
