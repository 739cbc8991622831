"""The vocabulary of released weights: the tokenizer that came with them; there are no rows to train on.

`Released` identifies the tokenizer by its SHA-256 only, so that a model does not depend on the location of its folder.
It reads a copy of tokenizer.json under runs/data, which `store_tokenizer` makes when the folder is loaded.
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
from repro.core.reading import COPY, foreign, parse_json, read_text
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.text import encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@part
class Released(Data):
    """Vocabulary and tokenizer of released weights; texts are tokenised without special tokens. `tokenizer_sha256`: of
    the file tokenizer.json; `total`: number of ids; `size`: number of ids without the mask, if that is the last id,
    else `total`; `length`: ids of the longest row that the weights were trained on."""

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
            size=self.size,
            total=self.total,
            mask=self.mask,
            bos=self.bos,
            eos=self.eos,
            pad=self.pad,
            bos_rule=_bos_rule(self.tokenizer_sha256, self.bos),
        )

    def row_length(self) -> int:
        return self.length

    def expected_rows(self) -> int:
        return 0

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        raise ValueError("released weights come without training data; choose tasks that have their own")

    def encode(self, text: str) -> list[int]:
        return tokenizer_of_release(self.tokenizer_sha256).encode(text, add_special_tokens=False).ids

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        return encoded(tokenizer_of_release(self.tokenizer_sha256), texts)

    def decode(self, ids: Sequence[int]) -> str:
        return tokenizer_of_release(self.tokenizer_sha256).decode(
            list(map(int, ids)), skip_special_tokens=False
        )

    def text(self, ids: Sequence[int]) -> str:
        return tokenizer_of_release(self.tokenizer_sha256).decode(
            list(map(int, ids)), skip_special_tokens=True
        )


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`, a tokenizer.json, without truncation and padding, which some files switch on.
    ValueError for a file of another format, and for a tokenizer that fails on a short text."""
    from tokenizers import Tokenizer

    content = read_text(path)
    parse_json(content, dict, str(path))
    with foreign(path, "tokenizer"):
        made = Tokenizer.from_str(content)
        made.no_truncation()
        made.no_padding()
        made.decode(made.encode("A text, 1.").ids)
    by_id: dict[int, str] = {}
    for token, index in made.get_vocab().items():
        if by_id.setdefault(index, token) != token:
            raise ValueError(f"{path} has the id {index} for {by_id[index]!r} and for {token!r}; {COPY}")
    return made


def store_tokenizer(path: Path) -> str:
    """Copy the file `path`, a tokenizer.json, to runs/data, where `Released` looks for it; return its SHA-256."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not _stored(digest).is_file():
        with atomically(_stored(digest)) as temporary:
            temporary.write_bytes(content)
    return digest


def _stored(digest: str) -> Path:
    return runs() / "data" / f"tokenizer-{digest[:16]}.json"


@lru_cache(maxsize=16)
def _bos_rule(digest: str, bos: int | None) -> Literal["text", "empty"]:
    """When a left-to-right network reads the id `bos` (`Vocabulary.bos_rule`): "text" (before every text) if the
    tokenizer itself puts it there, else "empty" (only before an empty text). `digest`: SHA-256 of the tokenizer, "" for
    weights whose cost is only estimated."""
    if not digest or bos is None:
        return "empty"
    plain, special = (
        tokenizer_of_release(digest).encode("a", add_special_tokens=each).ids for each in (False, True)
    )
    return "text" if special[:1] == [bos] != plain[:1] else "empty"


@lru_cache(maxsize=4)
def tokenizer_of_release(digest: str) -> Tokenizer:
    """The stored tokenizer with the SHA-256 `digest`; ValueError if it is missing or was changed."""
    path = _stored(digest)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        fault = "has changed" if path.is_file() else "is missing"
        raise ValueError(
            f"{path} {fault}; load the folder of released weights again, which stores the tokenizer"
        )
    return read_tokenizer(path)
