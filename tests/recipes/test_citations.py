"""Every pin of a recipe cites a source that a reader can open, or says that the value is this suite's own choice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.core import parts, registry
from repro.recipes.command import citations
from repro.recipes.scale import by_name

KINDS = {
    "a paper and its place in it": r"arXiv \d{4}\.\d{5}(v\d+)? (eq\.|table|section|appendix|algorithm) ?\w",
    "a line of a repository at a commit": r"[\w.-]+/[\w.-]+@[0-9a-f]{7} [\w./-]+:\d+",
    "a section of the method document": r"docs/method\.md#[\w-]+",
    "a line of a released package": r"(transformers|accelerate|torch|datasets) \d+(\.\d+)+ [\w./-]+\.py:\d+",
    "a choice of this suite and its reason": r"ours: \S+",
    "a revision that nobody published": r"not pinned by the (papers?|reference scripts)",
}
METHOD = Path(__file__).resolve().parents[2] / "docs" / "method.md"


@pytest.mark.parametrize("name", list(registry.RECIPES))
def test_every_pin_cites_a_source(name):
    cited = citations(name)
    for pin in parts.leaves(by_name(name)):
        source = next((text for path, text in cited.items() if f"{pin}.".startswith(f"{path}.")), None)
        assert source is not None, f"{name}: no source comment on the line of {pin}"
        assert any(re.match(kind, source) for kind in KINDS.values()), (
            f"{name}: {pin} cites {source!r}, which is none of: {'; '.join(KINDS)}"
        )


def test_every_cited_commit_is_listed_in_the_method_document():
    listed = set(re.findall(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}", METHOD.read_text("utf-8")))
    cited = {
        commit
        for name in registry.RECIPES
        for source in citations(name).values()
        for commit in re.findall(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}", source)
    }
    assert cited <= listed, f"cited, but not in the table of docs/method.md: {sorted(cited - listed)}"
