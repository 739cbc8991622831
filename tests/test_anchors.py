"""References to documents resolve: every cited anchor exists once, and every cited document is in the repository."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("repro", "tests", "recipes", "evals")
PLACES = (
    *CODE,
    "benchmarks",
    "scripts",
    "paper_figures",
    "docs",
    "README.md",
    "results/README.md",
    "CHANGELOG.md",
)
UNPUBLISHED = re.compile(r"\b(" + "|".join(("spec", "design", "peers", "measured")) + r") [A-I0-9]")
"""References by the section of a document that is not part of the repository."""


def texts(*places: str) -> dict[str, str]:
    """The text files that git tracks or would add under these places, by path."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *places]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    suffixes = {".py", ".md", ".toml", ".yaml", ".sbatch"}
    paths = {name: ROOT / name for name in names}
    return {n: p.read_text("utf-8") for n, p in paths.items() if p.suffix in suffixes and p.is_file()}


def test_cited_anchors_exist_exactly_once():
    found = Counter(re.findall(r'<a id="([^"]+)"></a>', (ROOT / "docs" / "method.md").read_text("utf-8")))
    missing = [
        f"{name}: docs/method.md#{anchor} exists {found[anchor]} times"
        for name, text in texts(*PLACES).items()
        for anchor in re.findall(r"docs/method\.md#([\w-]+)", text)
        if found[anchor] != 1
    ]
    assert not missing, "\n".join(missing)


def test_links_inside_the_method_document_resolve():
    text = (ROOT / "docs" / "method.md").read_text("utf-8")
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(re.findall(r'<a id="([^"]+)"></a>', text))


def test_cited_documents_exist():
    cited = {doc for text in texts(*PLACES).values() for doc in re.findall(r"\bdocs/[\w-]+\.md\b", text)}
    assert not {doc for doc in cited if not (ROOT / doc).is_file()}


def test_no_unpublished_document_is_cited():
    lines = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts(*CODE).items()
        for number, line in enumerate(text.splitlines(), 1)
        if UNPUBLISHED.search(line)
    ]
    assert not lines, "\n".join(lines)
