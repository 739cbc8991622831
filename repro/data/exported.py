"""The tokenizer of a data source as an object of the library `tokenizers`, for exported folders that other programs
read.

Oracle languages, sudoku and characters have one id per character; their tokenizer is made here. A byte-level BPE that
was trained here, GPT-2's and pretrained tokenizers are returned as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.data import sources
from repro.data.corpus import Data
from repro.data.released import Released, tokenizer_of_release
from repro.data.text import Written

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = (("mask", "[MASK]"), ("bos", "[BOS]"), ("eos", "[EOS]"), ("pad", "[PAD]"))


def tokenizer_of(data: Data) -> Tokenizer:
    """The tokenizer of `data`, which gives a text the ids that the network was trained on, without special tokens.

    ConnectionError if the tokenizer is on the Hub and the Hub cannot be reached.
    """
    if isinstance(data, Written):
        return data.units.tokenizer(data.documents) or _characters(data)
    if isinstance(data, Released):
        return tokenizer_of_release(data.tokenizer_sha256)
    named = getattr(data, "tokenizer", None)
    if isinstance(named, str):  # chats, which name a tokenizer on the Hub
        return sources.tokenizer(named, getattr(data, "tokenizer_revision", "")).backend_tokenizer
    return _characters(data)


def _characters(data: Data) -> Tokenizer:
    """A tokenizer with one id per character and the special tokens [MASK], [BOS], [EOS] and [PAD], as far as `data` has
    them."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = data.vocabulary()
    ids = {data.decode([number]): number for number in range(vocabulary.size)}
    special = {}
    for name, text in SPECIAL:
        number = getattr(vocabulary, name)
        if number is not None and number >= vocabulary.size:
            special[text] = number
    made = Tokenizer(models.WordLevel({**ids, **special}))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return made
