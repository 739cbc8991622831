"""Catalogue of published corpora and perplexity protocols: evals/corpora.toml, in which an unknown field is an
error."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.data.detokenise import Detokenised, Rule
from repro.data.documents import Documents, HubSplit
from repro.evals.perplexity.packings import Packing, PaddedRows

FILE = ROOT / "evals" / "corpora.toml"


class PublishedCorpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published corpus: the data set that the papers load, and the one on the Hub that is loaded here.

    `papers`: name of the data set that the papers' code loads; `script`: whether their code needs a loader script,
    which no longer runs; `source`, `config` ("none": no config), `revision`, `split` and text `column` of the data set
    loaded here; `same`: what is known about whether both hold the same texts; `seen`: the source of these facts;
    `rule`: detokenisation rule; `documents` and `tokens`: number of documents, and estimated number of GPT-2 tokens.
    """

    name: str
    papers: str
    script: bool
    source: str
    same: str
    seen: str
    config: str
    revision: str
    split: str
    column: str
    rule: Rule | Literal["none"]
    documents: int
    tokens: int

    def part(self) -> Documents:
        """The documents of the corpus as a component (part), detokenised by `rule`."""
        split = HubSplit(
            source=self.source,
            config=None if self.config == "none" else self.config,
            revision=self.revision,
            split=self.split,
            column=self.column,
        )
        return split if self.rule == "none" else Detokenised(documents=split, rule=self.rule)


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published perplexity protocol: how the corpora named `corpora` are cut into rows, scored and counted.

    `name`: name of its tasks, in which {corpus} stands for a corpus's name; `packing`: a `Packing` as a table (`part`
    and its fields); `length`: ids per row; `passes`: Monte Carlo passes of the bound; `tokenizer`: name of the
    tokenizer whose tokens are counted; `counts`: "text" (only tokens of the text are counted) or "row" (also BOS and
    EOS of every row); `source`: the paper or code that states the protocol.
    """

    name: str
    corpora: list[str]
    packing: dict[str, Any]
    length: int
    passes: int
    tokenizer: str
    counts: Literal["row", "text"]
    source: str


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    corpus: list[PublishedCorpus]
    protocol: list[Protocol]


@lru_cache
def read_catalogue(path: Path = FILE) -> tuple[dict[str, PublishedCorpus], list[Protocol]]:
    """(published corpora by name, list of perplexity protocols) of the TOML file `path`; ValueError names a wrong field
    or entry."""
    data = read_toml(path, _File)
    corpora = {corpus.name: corpus for corpus in data.corpus}
    if len(corpora) < len(data.corpus):
        names = [corpus.name for corpus in data.corpus]
        raise ValueError(
            f"{path}: two corpora have one name, {max(names, key=names.count)!r}; rename one of them"
        )
    return corpora, data.protocol


def replacement_note(name: str) -> str:
    """End of an error message: which data set is loaded in place of that of the papers for the published corpus `name`,
    if the papers' loader script for it no longer runs; else ""."""
    corpus = read_catalogue()[0].get(name)
    if corpus is None or not corpus.script:
        return ""
    return (
        f"; the papers load {corpus.papers!r}, a loader script that no longer runs: {corpus.source} replaces it"
        f" ({corpus.same})"
    )


def expected_rows(name: str, packing: Packing, length: int) -> int | None:
    """Estimated number of rows of `length` ids that `packing` cuts from the published corpus `name`, for estimates of
    cost; None for a corpus that is not in evals/corpora.toml."""
    corpus = read_catalogue()[0].get(name)
    if corpus is None:
        return None
    if isinstance(packing, PaddedRows):
        return corpus.documents
    return corpus.tokens // packing.text_ids(length)
