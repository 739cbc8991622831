"""Published corpora and perplexity protocols, read strictly from evals/corpora.toml."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from repro.core.files import ROOT
from repro.data.detokenise import Detokenised, Rule
from repro.data.documents import Documents, HubSplit
from repro.evals.perplexity.packings import Packing, PaddedRows

FILE = ROOT / "evals" / "corpora.toml"


class PublishedCorpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a published corpus can be loaded from.

    `papers`: the data set that the papers' code loads, by a loader `script` or not; `source`, `config`, `revision`,
    `split`, `column`: what is loaded here; `same`: what is known about its agreement with theirs; `seen`: the source of
    these facts; `rule`: detokenisation; `documents` and `tokens`: their number, tokens estimated for GPT-2.
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
        """The corpus as a data part, detokenised by its rule."""
        split = HubSplit(
            source=self.source,
            config=None if self.config == "none" else self.config,
            revision=self.revision,
            split=self.split,
            column=self.column,
        )
        return split if self.rule == "none" else Detokenised(documents=split, rule=self.rule)


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the rows of `corpora` are cut and counted; `name` may contain {corpus}."""

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
    """Corpora by name, and protocols; ValueError names a wrong field or entry."""
    try:
        data = msgspec.toml.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}".replace("`", "'")) from None
    corpora = {corpus.name: corpus for corpus in data.corpus}
    if len(corpora) < len(data.corpus):
        raise ValueError(f"{path}: two corpora have one name")
    return corpora, data.protocol


def replacement_note(name: str) -> str:
    """A sentence on what is loaded instead of a published corpus whose loader script no longer runs, else ""."""
    corpus = read_catalogue()[0].get(name)
    if corpus is None or not corpus.script:
        return ""
    return (
        f"; the papers load {corpus.papers!r}, a loader script that no longer runs: {corpus.source} replaces it"
        f" ({corpus.same})"
    )


def expected_rows(name: str, packing: Packing, length: int) -> int | None:
    """Estimated number of rows of a published corpus, for plans; None for other corpora."""
    corpus = read_catalogue()[0].get(name)
    if corpus is None:
        return None
    if isinstance(packing, PaddedRows):
        return corpus.documents
    return corpus.tokens // packing.text_ids(length)
