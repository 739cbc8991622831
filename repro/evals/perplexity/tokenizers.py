"""Tokenizers whose tokens published perplexities are counted in, recognised by their size and the ids of a few words.

mismatch("gpt2", vocabulary)    None, or the reason why this vocabulary is not GPT-2's
check_ids("gpt2", data)         ValueError when the ids of a few words differ
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.core.errors import nearest
from repro.data.corpus import Data, Vocabulary
from repro.evals.perplexity.packings import SpecialIds

OWN = "own"
EXTRA_IDS = 2
"""Ids that a network may have beyond those of its tokenizer: padding and a mask."""


@dataclass(frozen=True, kw_only=True)
class KnownTokenizer:
    """A tokenizer of `size` ids, its special ids, and some `words` with their `ids`."""

    size: int
    special: SpecialIds
    words: str
    ids: tuple[int, ...]


TOKENIZERS = {
    # github.com/openai/gpt-2; <|endoftext|> is both BOS and EOS (s-sahoo/duo@7c9b498 dataloader.py, get_tokenizer)
    "gpt2": KnownTokenizer(
        size=50257, special=SpecialIds(50256, 50256, None), words="Hello world", ids=(15496, 995)
    ),
    # huggingface.co/google-bert/bert-base-uncased; [CLS], [SEP], [PAD] (the same function)
    "bert-base-uncased": KnownTokenizer(
        size=30522, special=SpecialIds(101, 102, 0), words="hello world", ids=(7592, 2088)
    ),
}


def special_ids(name: str, vocabulary: Vocabulary | None) -> SpecialIds:
    """Special ids of a tokenizer by name; for "own" those of `vocabulary`, with EOS in place of a missing BOS.
    ValueError names the nearest name."""
    if name != OWN:
        if name not in TOKENIZERS:
            raise ValueError(f"no tokenizer {name!r}; {nearest(name, [OWN, *TOKENIZERS])}")
        return TOKENIZERS[name].special
    if vocabulary is None:
        return SpecialIds(None, None, None)
    begin = vocabulary.eos if vocabulary.bos is None else vocabulary.bos
    pad = vocabulary.pad if vocabulary.filler is None else vocabulary.filler
    return SpecialIds(begin, vocabulary.eos, pad)


def mismatch(name: str, vocabulary: Vocabulary) -> str | None:
    """The reason, by vocabulary size, why a model's perplexity cannot be counted in tokens of `name`, or None."""
    if name == OWN:
        return None
    size = TOKENIZERS[name].size
    if size <= vocabulary.total <= size + EXTRA_IDS:
        return None
    return f"a token of {name} ({size} ids); this model has {vocabulary.total}"


def check_ids(name: str, data: Data) -> None:
    """Raise ValueError if `data` gives the known words of tokenizer `name` other ids."""
    if name == OWN:
        return
    known = TOKENIZERS[name]
    ids = tuple(data.encode(known.words))
    if ids != known.ids:
        shown = [*ids[:5], *(["..."] if len(ids) > 5 else [])]
        raise ValueError(
            f"the tokenizer makes {shown} of {known.words!r}, {name} {list(known.ids)};"
            " copy the tokenizer of these weights into their folder"
        )
