"""Tokenizers in whose tokens published perplexities are counted (`TOKENIZERS`: GPT-2's and that of bert-base-uncased).

A model's tokenizer is taken to be one of them if it has as many ids and encodes a few words to the same ids.

    mismatch("gpt2", vocabulary)    None, or the reason why this vocabulary is not GPT-2's
    check_ids("gpt2", data)         ValueError if the ids of a few words differ
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.core.errors import nearest
from repro.data.corpus import Data, Vocabulary
from repro.evals.perplexity.packings import SpecialIds

OWN = "own"
EXTRA_IDS = 2
"""Largest number of ids that a network's vocabulary may have beyond its tokenizer's: padding and a mask."""


@dataclass(frozen=True, kw_only=True)
class KnownTokenizer:
    """A published tokenizer: number of ids (`size`), special ids, and a text `words` with its token `ids`, by which the
    tokenizer is recognised."""

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
    """Special ids (BOS, EOS, padding) of the tokenizer `name` of `TOKENIZERS`; for "own" those of the model's
    `vocabulary`, with EOS in place of a missing BOS (all None if `vocabulary` is None). ValueError for an unknown name,
    with the nearest valid one."""
    if name != OWN:
        if name not in TOKENIZERS:
            raise ValueError(
                f"tokens are counted by a tokenizer, and {name!r} is none; {nearest(name, [OWN, *TOKENIZERS])}"
            )
        return TOKENIZERS[name].special
    if vocabulary is None:
        return SpecialIds(None, None, None)
    begin = vocabulary.eos if vocabulary.bos is None else vocabulary.bos
    pad = vocabulary.pad if vocabulary.filler is None else vocabulary.filler
    return SpecialIds(begin, vocabulary.eos, pad)


def mismatch(name: str, vocabulary: Vocabulary) -> str | None:
    """Reason why the perplexity of a model with `vocabulary` cannot be counted in tokens of the tokenizer `name`: they
    have different numbers of ids. None if it can; for "own" always None."""
    if name == OWN:
        return None
    size = TOKENIZERS[name].size
    if size <= vocabulary.total <= size + EXTRA_IDS:
        return None
    return f"it counts tokens of {name}, which has {size} ids; this model has {vocabulary.total}"


def check_ids(name: str, data: Data) -> None:
    """Raise ValueError if the tokenizer of `data` encodes the test words of the tokenizer `name` (`KnownTokenizer`) to
    other ids than that tokenizer; nothing is tested for "own"."""
    if name == OWN:
        return
    known = TOKENIZERS[name]
    ids = tuple(data.encode(known.words))
    if ids != known.ids:
        shown = [*ids[:5], *(["..."] if len(ids) > 5 else [])]
        raise ValueError(
            f"the model's tokenizer encodes {known.words!r} as {shown}, that of {name} as {list(known.ids)};"
            " copy the tokenizer that belongs to these weights into their folder"
        )
