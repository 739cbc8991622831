"""LaTeX of tables: `tabular` environments with booktabs' rules, for `\\input` within a table of the author's.

latex_table(["preset", "acc"], [("", [["random", "0.40 ± 0.11"]])])
latex_of_markdown(text)                   the tables of a Markdown file of this suite, each section a group of rows
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NEEDS = "% \\usepackage{booktabs}"
SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
SYMBOLS = {
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "·": r"$\cdot$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{MINUS SIGN}": "$-$",
    "°": r"$^\circ$",
    "…": r"\dots{}",
}
NUMBER = re.compile(r"(?<![\w.-])-(?=[\d.])")
"""A minus sign: a hyphen before a digit that ends no word."""

Group = tuple[str, Sequence[Sequence[str]]]
"""Heading of some rows ("" for none) and the rows, each a list of cells."""


def escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped, and signs (±, minus) as mathematics."""
    found = "".join(SPECIAL.get(letter) or SYMBOLS.get(letter, letter) for letter in text)
    return NUMBER.sub("$-$", found).replace("\n", " ")


def latex_table(header: Sequence[str], groups: Iterable[Group], left: int = 1) -> str:
    """A `tabular` with booktabs' rules: `header`, then each group of rows below its heading. The first `left` columns
    are aligned to the left, the others to the right. ValueError for a row of another length than the header."""
    lines = [NEEDS, f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}", r"\toprule"]
    lines += [_row(header)]
    for heading, rows in groups:
        lines.append(r"\midrule")
        if heading:
            lines.append(f"\\multicolumn{{{len(header)}}}{{l}}{{\\emph{{{escaped(heading)}}}}} \\\\")
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"a row has {len(row)} cells and the header {len(header)}: {list(row)}")
            lines.append(_row(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def latex_of_markdown(text: str) -> str:
    """LaTeX of the tables in Markdown text; sections (`## NAME`) with one header share a `tabular`. The title and the
    paragraphs before the first table become comments. "" for a text without a table."""
    tables: list[tuple[list[str], list[Group]]] = []
    header: list[str] = []
    rows: list[list[str]] | None = None
    heading, notes = "", []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            if rows is None:
                rows = []
                header = cells
            elif all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                if not tables or tables[-1][0] != header:
                    tables.append((header, []))
                tables[-1][1].append((heading, rows))
            else:
                rows.append([_plain(cell) for cell in cells])
            continue
        rows = None
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.strip() and not tables:
            notes.append(f"% {line.lstrip('# ')}")
    made = [latex_table([_plain(h) for h in header], groups, _labels(groups)) for header, groups in tables]
    return "\n".join([*notes, *made]) if made else ""


def _plain(cell: str) -> str:
    """A cell of Markdown without its marks: escapes, code and links."""
    cell = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", cell)
    return re.sub(r"\\([|_*`])", r"\1", cell).replace("`", "")


def _labels(groups: Sequence[Group]) -> int:
    """Number of columns at the left that hold names: up to the first in which every cell begins as a number does."""
    rows = [row for _, each in groups for row in each]
    for column in range(len(rows[0]) if rows else 1):
        if all(re.match(r"-?[\d.]|$", row[column]) for row in rows):
            return max(1, column)
    return len(rows[0]) if rows else 1
