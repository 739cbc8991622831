"""Published corpora and perplexity protocols as evals/corpora.toml states them, read strictly."""

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


class Corpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a published corpus is. `papers`: what their code loads, by a loader `script` or not; `source`, `config`,
    `revision`, `split`, `column`: what is loaded here; `same`: what is known of its agreement with theirs; `seen`:
    where these facts stand; `rule`: how it is detokenised; `tokens`: a guess of how many, of GPT-2."""

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
        found = HubSplit(
            source=self.source,
            config=None if self.config == "none" else self.config,
            revision=self.revision,
            split=self.split,
            column=self.column,
        )
        return found if self.rule == "none" else Detokenised(documents=found, rule=self.rule)


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `corpora` are cut and counted; `name` may hold {corpus}."""

    name: str
    corpora: list[str]
    packing: dict[str, Any]
    length: int
    passes: int
    tokenizer: str
    counts: Literal["row", "text"]
    source: str


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    corpus: list[Corpus]
    protocol: list[Protocol]


@lru_cache
def entries(path: Path = FILE) -> tuple[dict[str, Corpus], list[Protocol]]:
    """Corpora by name, and protocols, as the file states them; ValueError names the field or entry that is wrong."""
    try:
        data = msgspec.toml.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}".replace("`", "'")) from None
    corpora = {each.name: each for each in data.corpus}
    if len(corpora) < len(data.corpus):
        raise ValueError(f"{path}: two corpora have one name")
    return corpora, data.protocol


def replaced(name: str) -> str:
    """What is loaded for a published corpus where the papers' own no longer loads; empty where it does."""
    entry = entries()[0].get(name)
    if entry is None or not entry.script:
        return ""
    return (
        f"; the papers load {entry.papers!r}, a loader script that no longer runs: {entry.source} stands in for it"
        f" ({entry.same})"
    )


def expected_rows(corpus: str, packing: Packing, length: int) -> int | None:
    """About how many rows a published corpus gives, for plans; None for any other."""
    entry = entries()[0].get(corpus)
    if entry is None:
        return None
    if isinstance(packing, PaddedRows):
        return entry.documents
    return entry.tokens // packing.room(length)
