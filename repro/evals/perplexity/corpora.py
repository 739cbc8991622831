"""Corpora and protocols by name, as data: evals/corpora.toml, read strictly into tasks.

    protocol("zeroshot.ptb")                    a published protocol as a task
    scored("book.txt", "wrapped", model.data)   any text under a packing by name (--corpus, --tasks)
    replaced("pubmed")                          what stands in for a data set that no longer loads, in words

A corpus of a person's own is a .txt file or a folder of them, a .jsonl, .json or .parquet file (column `text`),
`sotu` (embedded), a name of evals/corpora.toml, or OWNER/NAME on the Hub; `SOURCE:split=test,column=body,config=en`
says where.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path

from repro.core import parts
from repro.core.errors import nearest
from repro.data import sources
from repro.data.corpus import UNRESOLVED, Data
from repro.data.documents import AllFiles, Documents, HubSplit, Sotu
from repro.evals.perplexity.catalogue import FILE, Corpus, entries
from repro.evals.perplexity.corpus import Perplexity
from repro.evals.perplexity.packings import Packing, PaddedRows, PieceRows, WrappedPlainRows, WrappedRows
from repro.evals.perplexity.tokenizers import OWN, TOKENIZERS, check, ends

PASSES = 4
"""Passes of a bound: the fewest that tell the error of its draws."""
OWN_PACKINGS: dict[str, Packing] = {
    "wrapped": WrappedRows(batch=0),
    "wrapped_plain": WrappedPlainRows(batch=0),
    "padded": PaddedRows(),
    "pieces": PieceRows(),
}
"""Ways to cut a person's own text, at the length of the model's rows and in its own tokens."""
SOTU = Sotu(sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6", heldout_stride=20)
"""As in the scale nano.text: the addresses that its networks never read."""


@lru_cache
def read(path: Path = FILE) -> tuple[dict[str, Corpus], dict[str, Perplexity]]:
    """Corpora and protocols by name; ValueError names the field or entry that is wrong."""
    corpora, listed = entries(path)
    found: dict[str, Perplexity] = {}
    for each in listed:
        for name in each.corpora:
            if name not in corpora:
                raise ValueError(f"{path}: no corpus {name!r}; {nearest(name, corpora)}")
            task = Perplexity(
                name=each.name.format(corpus=name),
                corpus=name,
                documents=corpora[name].part(),
                packing=parts.read(each.packing, Packing),
                length=each.length,
                passes=each.passes,
                tokenizer=each.tokenizer,
                counts=each.counts,
            )
            if task.name in found:
                raise ValueError(f"{path}: two protocols are called {task.name!r}")
            found[task.name] = task
    return corpora, found


def protocols() -> dict[str, Perplexity]:
    return read()[1]


def protocol(name: str) -> Perplexity:
    """The task of a published protocol; ValueError names the nearest."""
    found = protocols()
    if name not in found:
        raise ValueError(f"no protocol {name!r}; {nearest(name, found)}")
    return found[name]


# --- a person's own -----------------------------------------------------------------------------------------
def documents(source: str) -> tuple[str, Documents]:
    """Name and documents of a corpus as a person names it; ValueError, in one line, for what is none."""
    place, _, pins = source.partition(":")
    asked = dict(pin.partition("=")[::2] for pin in pins.split(",")) if pins else {}
    for pin, value in asked.items():
        if pin not in ("split", "column", "config", "revision") or not value:
            raise ValueError(
                f"corpus {source!r}: no pin {pin!r}; {nearest(pin, ['split', 'column', 'config', 'revision'])}"
            )
    corpora = read()[0]
    if place == "sotu" or place in corpora:
        if asked:
            raise ValueError(f"corpus {place!r} has its pins; leave out {pins!r}")
        return place, SOTU if place == "sotu" else corpora[place].part()
    path = sources.local(place)
    if path is None and "/" not in place:
        raise ValueError(
            f"no corpus {place!r}; {nearest(place, ['sotu', *corpora])}; else a file, or OWNER/NAME on the Hub"
        )
    name = place if path is None else path.stem
    if path is not None and (path.suffix == ".txt" or (path.is_dir() and any(path.glob("*.txt")))):
        if asked:
            raise ValueError(f"{place} is text and has no columns or splits; leave out {pins!r}")
        found = AllFiles(path=place, sha256=UNRESOLVED)
    else:
        found = HubSplit(
            source=place,
            config=asked.get("config"),
            revision=asked.get("revision", UNRESOLVED),
            split=asked.get("split", "train" if path is not None else "test"),
            column=asked.get("column", "text"),
        )
    return name, found


def scored(source: str, way: str | None, data: Data) -> Perplexity:
    """A person's corpus under a published protocol or a packing by name (None: wrapped where the vocabulary has an end
    of text, else in pieces); its name, length and tokens are the protocol's or the model's own. Released weights that
    do not say their EOS are taken to have a known tokenizer by their size."""
    name, found = documents(source)
    vocabulary = data.vocabulary()
    fitting = [each for each in TOKENIZERS if vocabulary.eos is None and check(each, vocabulary) is None]
    tokenizer = fitting[0] if fitting else OWN
    if way is None:
        way = "pieces" if ends(tokenizer, vocabulary).end is None else "wrapped"
    if way in protocols():
        return dataclasses.replace(protocols()[way], name=f"{name}.{way}", corpus=name, documents=found)
    if way not in OWN_PACKINGS:
        raise ValueError(f"no packing {way!r}; {nearest(way, [*OWN_PACKINGS, *protocols()])}")
    return Perplexity(
        name=f"{name}.{way}",
        corpus=name,
        documents=found,
        packing=OWN_PACKINGS[way],
        length=data.row_length(),
        passes=PASSES,
        tokenizer=tokenizer,
        counts="text",
    )
