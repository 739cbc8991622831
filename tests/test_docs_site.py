"""The documentation site: links fit GitHub and the site, every page is in the navigation, and it builds offline."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import yaml

from repro.core.files import ROOT
from scripts import docs_site


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("docs/own_data.md", "[many](../recipes/README.md#engines)", "[many](launching.md#engines)"),
        ("docs/results.md", "![f](../paper_figures/out/quality.svg)", "![f](figures/quality.svg)"),
        (
            "CONTRIBUTING.md",
            "[m](docs/method.md#scales), [g](docs/gallery.md)",
            "[m](method.md#scales), [g](gallery.md)",
        ),
        ("docs/architecture.md", "see [pyproject.toml](../pyproject.toml)", "see pyproject.toml"),
        ("docs/index.md", "[the file](../evals/corpora.toml)", "the file (`evals/corpora.toml`)"),
        (
            "docs/index.md",
            "[a](#here) [b](https://arxiv.org/abs/1)",
            "[a](#here) [b](https://arxiv.org/abs/1)",
        ),
    ],
)
def test_links_lead_to_pages_of_the_site(source, text, expected):
    assert docs_site.rewritten(text, source) == expected


def test_nested_lists_are_indented_for_the_site():
    assert docs_site.nested("- a\n  - b\n    - c\n") == "- a\n    - b\n        - c\n"
    assert docs_site.nested("- a\n    - b\n") == "- a\n    - b\n"


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = re.findall(r"[\w/]+\.md", yaml.dump(yaml.safe_load(text)["nav"]))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | set(docs_site.PAGES.values())
    assert sorted(named) == sorted(pages)
    assert all((ROOT / source).is_file() for source in docs_site.PAGES)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="extra docs; `make docs` installs it")
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"(?:https?:)?//"
    for path in (tmp_path / "site").rglob("*.html"):
        assert not re.search(loaded, path.read_text("utf-8")), path
