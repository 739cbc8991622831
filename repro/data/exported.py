"""The tokenizer of a data source as an object of the library `tokenizers`, for exported folders that other programs
read.

Oracle languages, sudoku and characters have one id per character; their tokenizer is made here. A byte-level BPE that
was trained here, GPT-2's and pretrained tokenizers get tokens for the special ids that follow their own ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from repro.data import sources
from repro.data.byte_level import Bpe, keep_tokenizer
from repro.data.corpus import Data, Vocabulary
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
        made = data.units.tokenizer(data.documents)
        return _characters(data) if made is None else _with_special(made, data.vocabulary())
    if isinstance(data, Released):
        return tokenizer_of_release(data.tokenizer_sha256)
    named = getattr(data, "tokenizer", None)
    if isinstance(named, str):  # chats, which name a tokenizer on the Hub
        return sources.tokenizer(named, getattr(data, "tokenizer_revision", "")).backend_tokenizer
    return _characters(data)


def keep_tokenizer_of(data: Data, folder: Path) -> None:
    """Store the tokenizer of an exported folder where `data` finds it, if it was trained on the run's own documents:
    then the folder can be sampled from on a machine that lacks these. ValueError for a file of another tokenizer."""
    if isinstance(data, Written) and isinstance(data.units, Bpe):
        keep_tokenizer(data.documents, data.units.size, folder / "tokenizer.json")


def special_tokens(made: Tokenizer, vocabulary: Vocabulary) -> dict[str, str]:
    """Kind of a special id of `vocabulary` ("mask", "bos", "eos", "pad") -> its token in the tokenizer `made`; a kind
    whose id has no token is left out."""
    ids = {name: getattr(vocabulary, name) for name, _ in SPECIAL}
    tokens = {name: made.id_to_token(number) for name, number in ids.items() if number is not None}
    return {name: token for name, token in tokens.items() if token is not None}


def _with_special(tokenizer: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """A copy of `tokenizer` in which the special ids of `vocabulary` have the tokens [MASK], [BOS], [EOS] and [PAD],
    unless the tokenizer has tokens with these ids. Ids that do not follow those of the tokenizer stay without one: the
    library would number the token otherwise."""
    from tokenizers import AddedToken, Tokenizer

    made = Tokenizer.from_str(tokenizer.to_str())
    texts = {getattr(vocabulary, name): text for name, text in SPECIAL}
    last = max(made.get_vocab().values())
    for number in sorted(number for number in texts if number is not None and number > last):
        if number == last + 1 and made.token_to_id(texts[number]) is None:
            made.add_special_tokens([AddedToken(texts[number], normalized=False, special=True)])
            last = number
    return made


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
