"""Numbers that README and pages give as results are those of the stored tables."""

from __future__ import annotations

import csv
import re
from collections import Counter

import pytest

from repro.core.files import ROOT
from repro.core.reading import read_toml

TABLES = ROOT / "results" / "tables"


def rows(table: str, **where: str) -> list[dict[str, str]]:
    """Rows of results/tables/TABLE.csv whose columns have the values `where`."""
    with (TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return [
            row for row in csv.DictReader(file) if all(row[name] == value for name, value in where.items())
        ]


def number(table: str, column: str, **where: str) -> float:
    (row,) = rows(table, **where)
    return float(row[column])


def text(page: str) -> str:
    return re.sub(r"\s+", " ", (ROOT / page).read_text("utf-8"))


def choices() -> list[str]:
    """What the README says of the founding Duo."""

    def value(arm: str, measure: str, column: str = "value") -> float:
        return number("choices", column, arm=arm, measure=measure)

    gain, low, high = (-value("duo_mended", "bound", column) for column in ("difference", "high", "low"))
    words = {8: "eight"}[int(value("duo_mended", "bound", "seeds"))]
    english = [number("perplexity", "nll", checkpoint=f"{name}@micro") for name in ("duo", "duo_mended")]
    return [
        f"from {value('duo', 'bound'):.2f} to {value('duo_mended', 'bound'):.2f} nats per token",
        f"mean difference of {words} paired train seeds {gain:.2f}, 95 % interval {low:.2f} to {high:.2f}",
        f"*excess* from {value('duo', 'excess'):.2f} to {value('duo_mended', 'excess'):.2f}",
        f"better still: {value('duo_nelbo', 'bound'):.2f} and {value('duo_nelbo', 'excess'):.2f}",
        f"the bound falls from {english[0]:.1f} to {english[1]:.1f} nats",
    ]


def sudoku() -> list[str]:
    """What the README says of its figure."""

    def solved(recipe: str, preset: str, rate: str) -> tuple[str, float]:
        where = {"recipe": f"{recipe}@nano.sudoku", "preset": preset, "tokens_per_step": rate}
        return f"{100 * number('speed', 'accuracy', **where):.4g} %", number("speed", "nfe", **where)

    best, passes = solved("llada", "threshold_0.9", "")
    sure, slow = solved("llada", "low_confidence", "1")
    left, _ = solved("ar", "greedy", "1")
    return [
        f"`threshold_0.9`, solves {best} in {passes:.1f} passes",
        f"({slow:.0f} passes), `low_confidence` solves {sure}, the left-to-right model (black) {left}",
    ]


def controls() -> list[str]:
    each = {(row["group"], row["kind"], row["family"], row["function"]) for row in rows("controls")}
    found = Counter(group for group, *_ in each)
    return [f"{found['wrong']} wrong and {found['right']} right samplers and losses"]


def verdicts() -> list[str]:
    found = Counter(row["verdict"] for row in rows("claims"))
    left = len(read_toml(ROOT / "evals" / "claims.toml")["untestable"])
    return [
        f"{found['holds here']} hold here, {found['fails here']} fail here, {found['undecided']} are undecided, "
        f"{left} cannot be tested here"
    ]


def published() -> list[str]:
    tables = read_toml(ROOT / "evals" / "published.toml")["table"]
    return [f"holds {sum(len(row['values']) for each in tables for row in each['rows'])} published numbers"]


@pytest.mark.parametrize(
    ("page", "sentences"),
    [
        ("README.md", choices),
        ("README.md", sudoku),
        ("docs/certify.md", controls),
        ("docs/published.md", published),
        ("results/README.md", verdicts),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_a_page_has_the_numbers_of_its_table(page, sentences):
    found = text(page)
    assert not [sentence for sentence in sentences() if sentence not in found]
