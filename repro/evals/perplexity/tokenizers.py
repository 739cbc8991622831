"""Tokenizers that published perplexities are a token of, known by what they make of a few words.

check("gpt2", vocabulary, data)     None, or why this vocabulary is none of it; ValueError when the ids differ
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.core.errors import nearest
from repro.data.corpus import Data, Vocabulary
from repro.evals.perplexity.packings import Ends

OWN = "own"
BESIDE = 2
"""Ids that a network may have beyond those of its tokenizer: padding and a mask."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """`size` ids; what stands around a row and pads it; `words` and their `ids`."""

    size: int
    ends: Ends
    words: str
    ids: tuple[int, ...]


TOKENIZERS = {
    # github.com/openai/gpt-2; <|endoftext|> is BOS and EOS at once (s-sahoo/duo dataloader.py, get_tokenizer)
    "gpt2": Known(size=50257, ends=Ends(50256, 50256, None), words="Hello world", ids=(15496, 995)),
    # huggingface.co/google-bert/bert-base-uncased; [CLS], [SEP], [PAD] (the same)
    "bert-base-uncased": Known(size=30522, ends=Ends(101, 102, 0), words="hello world", ids=(7592, 2088)),
}


def ends(name: str, vocabulary: Vocabulary | None) -> Ends:
    """What stands around rows of a tokenizer by name; "own": what the vocabulary has, EOS doing for a BOS that is
    missing. ValueError names the nearest name."""
    if name != OWN:
        if name not in TOKENIZERS:
            raise ValueError(f"no tokenizer {name!r}; {nearest(name, [OWN, *TOKENIZERS])}")
        return TOKENIZERS[name].ends
    if vocabulary is None:
        return Ends(None, None, None)
    begin = vocabulary.eos if vocabulary.bos is None else vocabulary.bos
    pad = vocabulary.pad if vocabulary.filler is None else vocabulary.filler
    return Ends(begin, vocabulary.eos, pad)


def check(name: str, vocabulary: Vocabulary, data: Data | None = None) -> str | None:
    """Why numbers a token of `name` cannot be had with a vocabulary, by its size; with `data`, its words are tried and
    others raise ValueError."""
    if name == OWN:
        return None
    known = TOKENIZERS[name]
    if not known.size <= vocabulary.total <= known.size + BESIDE:
        return f"a token of {name} ({known.size} ids); this model has {vocabulary.total}"
    ids = known.ids if data is None else tuple(data.encode(known.words))
    if ids != known.ids:
        shown = [*ids[:5], *(["..."] if len(ids) > 5 else [])]
        raise ValueError(
            f"the tokenizer makes {shown} of {known.words!r}, {name} {list(known.ids)};"
            " copy the tokenizer of these weights beside them"
        )
    return None
