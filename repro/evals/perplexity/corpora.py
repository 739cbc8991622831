"""Perplexity tasks by name: those of published protocols (evals/corpora.toml), and those of any text.

    protocol("zeroshot.ptb")                         task: the corpus PTB under the published protocol zeroshot
    corpus_task("book.txt", "wrapped", model.data)   task: any text, cut into rows by a packing (--corpus, --tasks)

The argument of `--corpus` is a .txt file or a folder of them, a .jsonl, .json, .parquet or .csv file (column `text`),
`sotu` (State of the Union addresses, part of this repository), a name of evals/corpora.toml, or OWNER/NAME on the Hub;
`SOURCE:split=test,column=body,config=en` selects a split and column.
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
from repro.evals.perplexity.catalogue import FILE, read_catalogue
from repro.evals.perplexity.corpus import Perplexity, TruncatedPerplexity
from repro.evals.perplexity.packings import Packing, PaddedRows, PieceRows, WrappedPlainRows, WrappedRows
from repro.evals.perplexity.tokenizers import OWN, TOKENIZERS, mismatch, special_ids

PASSES = 4
"""Default number of Monte Carlo passes of a bound: the fewest from which its sampling error can be estimated
(docs/method.md#statistics)."""
OWN_PACKINGS: dict[str, Packing] = {
    "wrapped": WrappedRows(batch=0),
    "wrapped_plain": WrappedPlainRows(batch=0),
    "padded": PaddedRows(),
    "pieces": PieceRows(),
}
"""Name -> packing for a user's text, used at the model's row length and with its own tokenizer."""
SOTU = Sotu(sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6", heldout_stride=20)
"""The State of the Union addresses, of which the held-out ones are scored, as for recipes of scale nano.text."""
TRUNCATED = ".truncated"
"""Ending of the name of a protocol without the bound's prior and tail terms."""
PINS = ("split", "column", "config", "revision")


@lru_cache
def protocols(path: Path = FILE) -> dict[str, Perplexity]:
    """Task name -> perplexity task of a published corpus and protocol, such as `zeroshot.ptb`; ValueError names a wrong
    field or entry of the file."""
    corpora, listed = read_catalogue(path)
    tasks: dict[str, Perplexity] = {}
    for each in listed:
        for name in each.corpora:
            if name not in corpora:
                raise ValueError(
                    f"{path}: protocol {each.name!r} names unknown corpus {name!r}; {nearest(name, corpora)}"
                )
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
            if task.name in tasks:
                raise ValueError(f"{path}: two protocols are called {task.name!r}; rename one of them")
            tasks[task.name] = task
    return tasks


def protocol(name: str) -> Perplexity:
    """The perplexity task `name` of a published corpus and protocol, such as `zeroshot.ptb`. `NAME.truncated` is the
    task NAME without the terms of the bound for t = 1 (prior) and for times below the smallest integrated one (tail).
    ValueError, with the most similar name, if there is no such task."""
    base = name.removesuffix(TRUNCATED)
    if base != name and base in protocols():
        data = parts.canonical(protocols()[base]) | {"part": "truncated_perplexity", "name": name}
        return parts.read(data, TruncatedPerplexity)
    if name not in protocols():
        raise ValueError(f"no perplexity protocol {name!r}; {nearest(name, protocols())}")
    return protocols()[name]


# --- any text -------------------------------------------------------------------------------------------------


def find_documents(source: str) -> tuple[str, Documents]:
    """(name, documents) of the corpus that `source`, an argument of `--corpus` (see the module's docstring), describes.

    ValueError for a corpus or setting that does not exist, and for a setting that has no effect.
    """
    place, _, text = source.partition(":")
    pins = dict(pin.partition("=")[::2] for pin in text.split(",")) if text else {}
    for pin, value in pins.items():
        if pin not in PINS:
            raise ValueError(f"corpus {source!r}: no setting {pin!r}; {nearest(pin, PINS)}")
        if not value:
            raise ValueError(
                f"corpus {source!r}: setting {pin!r} has no value; write {pin}=VALUE after the colon"
            )
    corpora = read_catalogue()[0]
    if place == "sotu" or place in corpora:
        if pins:
            raise ValueError(f"corpus {place!r} has fixed settings; leave out {text!r}")
        return place, SOTU if place == "sotu" else corpora[place].part()
    path = sources.local(place)
    if path is None and "/" not in place:
        raise ValueError(
            f"no corpus {place!r}; {nearest(place, ['sotu', *corpora])}; or give a file, or OWNER/NAME on the Hub"
        )
    name = place if path is None else path.stem
    if path is not None and (path.suffix == ".txt" or (path.is_dir() and any(path.glob("*.txt")))):
        if pins:
            raise ValueError(f"{place} is plain text and has no columns or splits; leave out {text!r}")
        return name, AllFiles(path=place, sha256=UNRESOLVED)
    return name, HubSplit(
        source=place,
        config=pins.get("config"),
        revision=pins.get("revision", UNRESOLVED),
        split=pins.get("split", "train" if path is not None else "test"),
        column=pins.get("column", "text"),
    )


def corpus_task(source: str, packing: str | None, data: Data) -> Perplexity:
    """Perplexity task for the corpus `source` (an argument of `--corpus`) and a model whose tokenizer and row length
    are those of `data`.

    `packing` names a packing (`OWN_PACKINGS`) or a published protocol; None: "wrapped" if the vocabulary has an EOS,
    else "pieces". A protocol sets row length and tokenizer; otherwise they are the model's own. A vocabulary without
    EOS is taken for that of GPT-2 or bert-base-uncased (`TOKENIZERS`) if it has as many ids. ValueError for a corpus or
    packing that does not exist.
    """
    name, documents = find_documents(source)
    vocabulary = data.vocabulary()
    fitting = [each for each in TOKENIZERS if vocabulary.eos is None and mismatch(each, vocabulary) is None]
    tokenizer = fitting[0] if fitting else OWN
    if packing is None:
        packing = "pieces" if special_ids(tokenizer, vocabulary).end is None else "wrapped"
    if packing in protocols():
        return dataclasses.replace(
            protocols()[packing], name=f"{name}.{packing}", corpus=name, documents=documents
        )
    if packing not in OWN_PACKINGS:
        raise ValueError(
            f"no packing or perplexity protocol {packing!r}; {nearest(packing, [*OWN_PACKINGS, *protocols()])}"
        )
    return Perplexity(
        name=f"{name}.{packing}",
        corpus=name,
        documents=documents,
        packing=OWN_PACKINGS[packing],
        length=data.row_length(),
        passes=PASSES,
        tokenizer=tokenizer,
        counts="text",
    )
