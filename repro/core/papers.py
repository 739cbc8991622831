"""The papers in evals/papers.toml, by arXiv number: how tables name them, and their BibTeX entries.

shown("2502.09992")                 "LLaDA, arXiv 2502.09992"
papers()["2502.09992"].bibtex("2502.09992")
of_task("gsm8k_256")                the arXiv number of GSM8K
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import convert, read_toml

FILE = ROOT / "evals" / "papers.toml"


class Paper(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A paper: an entry of evals/papers.toml, where the name of its table is the arXiv number.

    `key`: of the BibTeX entry; `name`: short name; `authors`: as BibTeX writes them; `venue`: where it was published
    besides arXiv, "" for nowhere; `recipes`: beginnings of the names of the recipes that follow the paper; `tasks`:
    beginnings of the names of the tasks that use its benchmark; `asks`: what these tasks ask, in a few words.
    """

    key: str
    name: str
    title: str
    authors: str
    year: int
    venue: str = ""
    recipes: list[str] = []
    tasks: list[str] = []
    asks: str = ""

    def bibtex(self, number: str) -> str:
        """The BibTeX entry of the paper with the arXiv `number`."""
        kind, where = ("inproceedings", [f"  booktitle = {{{self.venue}}},"]) if self.venue else ("misc", [])
        lines = [
            f"@{kind}{{{self.key},",
            f"  title = {{{self.title}}},",
            f"  author = {{{self.authors}}},",
            f"  year = {{{self.year}}},",
            *where,
            f"  eprint = {{{number}}},",
            "  archivePrefix = {arXiv},",
            "}",
        ]
        return "\n".join(lines)


@lru_cache(maxsize=1)
def papers() -> dict[str, Paper]:
    """arXiv number -> paper, in the order of evals/papers.toml; ValueError for a wrong field in this file."""
    return {
        number: convert(data, Paper, f"{FILE}, {number}", "correct it")
        for number, data in read_toml(FILE, dict).items()
    }


def shown(number: str | None) -> str:
    """The paper with the arXiv number `number` as tables print it, e.g. `LLaDA, arXiv 2502.09992`; "" for None.

    Raises ValueError, which names the most similar number, for a paper without an entry in evals/papers.toml.
    """
    if number is None:
        return ""
    if number not in papers():
        raise ValueError(
            f"no paper {number!r} in {FILE}; {nearest(number, papers())} (a new one needs its entry there)"
        )
    return f"{papers()[number].name}, arXiv {number}"


def of_task(name: str) -> str | None:
    """arXiv number of the paper that introduced the benchmark of the task `name`; None if evals/papers.toml has
    none."""
    return _longest(name, {head: number for number, each in papers().items() for head in each.tasks})


def of_recipe(name: str) -> str | None:
    """arXiv number of the paper whose method the recipe `name` trains; None if evals/papers.toml has none."""
    return _longest(name, {head: number for number, each in papers().items() for head in each.recipes})


def _longest(name: str, heads: dict[str, str]) -> str | None:
    """The value of the longest key of `heads` with which `name` begins; None if there is none."""
    found = [head for head in heads if name.startswith(head)]
    return heads[max(found, key=len)] if found else None
