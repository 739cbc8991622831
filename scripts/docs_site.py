"""Hook of mkdocs (mkdocs.yml): pages and pictures that live outside docs/, and links that fit both GitHub and the site.

A link of a page is relative to its file in the repository, as GitHub reads it. On the site, a link to a page of the
site leads there; a link to another file of the repository becomes the path of the file in plain text, since the site
does not hold that file. Nested lists are indented by two spaces a level in the files, and by four on the site, as
Python-Markdown needs it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "recipes/README.md": "launching.md",
    "results/README.md": "record_history.md",
    "examples/newcomer/README.md": "newcomer.md",
}
"""File in the repository -> page of the site."""
FIGURES = "paper_figures/out/"
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.S | re.M)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of `PAGES` and the figures to the files of the site."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for figure in sorted((ROOT / FIGURES).glob("*.svg")):
        files.append(File.generated(config, f"figures/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with its links outside code as the site has them."""
    source = next((s for s, p in PAGES.items() if p == page.file.src_uri), f"docs/{page.file.src_uri}")
    found, end = [], 0
    for fence in FENCE.finditer(markdown):
        found += [rewritten(markdown[end : fence.start()], source), fence.group()]
        end = fence.end()
    return nested("".join([*found, rewritten(markdown[end:], source)]))


def nested(text: str) -> str:
    """A text whose nested lists are indented by two spaces a level, with four; any other text as it is."""
    if not re.search(r"^  [-*] ", text, re.M):
        return text
    return re.sub(r"^((?:  )+)(?=[-*] )", r"\1\1", text, flags=re.M)


def rewritten(text: str, source: str) -> str:
    """A text of the file `source` with its links as the site has them."""

    def link(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        path, hash_mark, anchor = target.partition("#")
        if not path or re.match(r"\w+:", target):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = place_of(path)
        if place is None:
            return label if path in label else f"{label} (`{path}`)"
        return f"{mark}[{label}]({place}{hash_mark}{anchor})"

    return LINK.sub(link, text)


def place_of(path: str) -> str | None:
    """The place on the site of a file of the repository; None where the site does not hold it."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith(FIGURES):
        return f"figures/{path.removeprefix(FIGURES)}"
    return path.removeprefix("docs/") if path.startswith("docs/") else None
