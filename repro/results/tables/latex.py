"""LaTeX of tables: `tabular` environments with booktabs' rules, for `\\input` within a table of the author's.

latex_table(["preset", "acc"], [("", [["random", "0.40 ± 0.11"]])])
latex_of_markdown(text)                   the tables of a Markdown file of this suite, each section a group of rows

Tables are set in \\footnotesize and fit a width (6.4 inches unless another is asked for) and a page: long names and
sentences are broken in columns of fixed width, headers at their spaces, and a table with too many rows is split
into several. Widths are estimated from the number of characters (tests/results/test_latex.py typesets such tables).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

NEEDS = "% \\usepackage{array,booktabs}"
LETTER = 0.49
"""Mean width of a letter or digit in em (of Computer Modern, a digit has 0.5)."""
GAP = 0.7
"""Width between two columns in em: twice \\tabcolsep, 2.8 pt, at 8 pt."""
WIDTH, LINES = 6.4, 60
"""Largest width of a table in inches, and its largest number of lines."""
EM = 53 / 6.4
"""Em of \\footnotesize in an inch, less a margin, as widths are estimates."""
BREAKS = "[_:@/,=]"
"""Characters after which a name may be broken, as a regular expression."""
NARROW, NARROWEST = 4.0, 3.5
"""Least width of a column whose cells are broken, in em, and that of one in a table that does not fit otherwise."""
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


@dataclass
class _Column:
    """Layout of a column: its `width` and the width of its longest unbreakable piece (`least`), both in em, whether it
    is aligned to the right (`right`), and whether its cells are `broken` into lines."""

    width: float
    least: float
    right: bool
    broken: bool = False

    def spec(self) -> str:
        """What stands for the column in the argument of `tabular`: `l` or `r`, or a paragraph column of fixed width if
        its cells are broken into lines."""
        side = "raggedleft" if self.right else "raggedright"
        fixed = f">{{\\{side}\\arraybackslash}}p{{{self.width:.1f}em}}"
        return fixed if self.broken else "r" if self.right else "l"

    def cell(self, text: str) -> str:
        """LaTeX of a cell; in a column whose cells are broken, a line may end within a name."""
        made = escaped(text)
        return re.sub(rf"(\\_|{BREAKS})(?=\S)", r"\1\\allowbreak{}", made) if self.broken else made

    def lines(self, text: str) -> int:
        """Number of lines that a cell with this text needs in the column."""
        pieces = re.sub(f"(?<={BREAKS})", " ", text)
        return len(wrap(pieces, int(self.width / LETTER))) if self.broken and text else 1

    def heading(self, text: str) -> str:
        """LaTeX of the column's header, broken at its spaces if it is wider than the column."""
        letters = max(_longest(text), int(self.width / LETTER))
        parts = wrap(text, letters, break_long_words=False)
        if len(parts) < 2:
            return escaped(text)
        lines = " \\\\ ".join(map(escaped, parts))
        return f"\\shortstack[{'r' if self.right else 'l'}]{{{lines}}}"


def _longest(heading: str) -> int:
    """Number of letters of the longest piece of a header, which may be broken at spaces and hyphens."""
    return max(map(len, re.split(r"\s|(?<=-)", heading)), default=1)


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], left: int, inches: float) -> list[_Column]:
    """The layout of each column. Until the table fits `inches`, first headers are broken, then the cells of names, then
    those of numbers; a table that is still wider stays so."""
    room = EM * inches
    columns = []
    for i, name in enumerate(header):
        cells = [row[i] for row in rows]
        pieces = [p for text in cells for p in re.split(rf"\s|(?<={BREAKS})", text)]
        least = LETTER * max([_longest(name), *map(len, pieces)])
        width = LETTER * max([_longest(name), *map(len, cells)])
        numbers = all(re.match(r"[-+(\[<]?[\d.]|-?$", text) for text in cells)
        columns.append(_Column(width, least, right=i >= left and numbers))
    whole = [max(c.width, LETTER * len(name)) for c, name in zip(columns, header, strict=True)]
    if sum(width + GAP for width in whole) <= room:
        for column, width in zip(columns, whole, strict=True):
            column.width = width
    # widths are estimated with a margin, so a little too much is no reason for the last step
    for right, least, most in ((False, NARROW, room), (True, NARROW, room), (True, NARROWEST, 1.05 * room)):
        while sum(column.width + GAP for column in columns) > most:
            able = [c for c in columns if c.right <= right and c.width - 0.5 >= max(least, c.least)]
            if not able:
                break
            widest = max(able, key=lambda column: column.width)
            widest.width, widest.broken = widest.width - 0.5, True
    return columns


def latex_table(header: Sequence[str], groups: Iterable[Group], left: int = 1) -> str:
    """A `tabular` with booktabs' rules: `header`, then each group of rows below its heading. The first `left` columns
    are aligned to the left, the others to the right if they hold numbers alone. ValueError for a row of another length
    than the header."""
    groups = list(groups)
    for _, rows in groups:
        for row in rows:
            if len(row) != len(header):
                raise ValueError(
                    f"the row {list(row)} has {len(row)} cells and the header {len(header)}; give both the same number"
                )
    rows = [row for _, rows in groups for row in rows]
    return _tabular(header, groups, _columns(header, rows, left, WIDTH))


def _tabular(header: Sequence[str], groups: Sequence[Group], columns: Sequence[_Column]) -> str:
    spec = "".join(column.spec() for column in columns)
    lines = [
        NEEDS,
        r"{\footnotesize\setlength{\tabcolsep}{2.8pt}%",
        f"\\begin{{tabular}}{{{spec}}}",
        r"\toprule",
    ]
    lines.append(_row(column.heading(name) for column, name in zip(columns, header, strict=True)))
    total = sum(column.width + GAP for column in columns) - GAP
    for heading, rows in groups:
        lines.append(r"\midrule")
        if heading:
            kind = "l" if LETTER * len(heading) < total else f"p{{{total:.1f}em}}"
            lines.append(f"\\multicolumn{{{len(header)}}}{{{kind}}}{{\\emph{{{escaped(heading)}}}}} \\\\")
        lines += [_row(column.cell(cell) for column, cell in zip(columns, row, strict=True)) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", ""])


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _pages(header: Sequence[str], groups: Sequence[Group], left: int, inches: float) -> list[str]:
    """The `tabular`s of a table that is split where it is longer than LINES lines; a group of rows may go on in the
    next `tabular`. `left`: number of columns at the left that hold names; `inches`: largest width."""
    columns = _columns(header, [row for _, rows in groups for row in rows], left, inches)
    pages: list[list[Group]] = [[]]
    room = LINES
    for heading, rows in groups:
        kept: list[Sequence[str]] = []
        room -= 1
        for row in rows:
            need = max(column.lines(cell) for column, cell in zip(columns, row, strict=True))
            if need > room and (kept or pages[-1]):
                pages[-1] += [(heading, kept)] if kept else []
                heading, kept, room = (
                    f"{heading.removesuffix(', continued')}, continued".lstrip(", "),
                    [],
                    LINES,
                )
                pages.append([])
            kept.append(row)
            room -= need
        pages[-1].append((heading, kept))
    return [_tabular(header, page, columns) for page in pages]


def latex_of_markdown(text: str, inches: float = WIDTH) -> list[str]:
    """LaTeX of the tables in Markdown text, at most `inches` wide, one string a `tabular`. Successive sections
    (`## NAME`) with equal headers share a `tabular`; columns without any text are left out. The title and the
    paragraphs before the first table become comments of the first string. Empty for a text without a table."""
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
    made = []
    for header, groups in tables:
        kept = [i for i in range(len(header)) if any(row[i] for _, rows in groups for row in rows)]
        kept = kept or list(range(len(header)))
        groups = [(name, [[row[i] for i in kept] for row in rows]) for name, rows in groups]
        made += _pages([_plain(header[i]) for i in kept], groups, _labels(groups), inches)
    return ["\n".join([*notes, made[0]]), *made[1:]] if made else []


def _plain(cell: str) -> str:
    """The text of a Markdown cell without markup: bold, code, links (their text stays) and escapes."""
    cell = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", cell)
    cell = re.sub(r"(?<!\\)\*\*", "", cell)
    return re.sub(r"\\([|_*`])", r"\1", cell).replace("`", "")


def _labels(groups: Sequence[Group]) -> int:
    """Number of columns at the left that hold names: up to the first in which every cell begins as a number does."""
    rows = [row for _, each in groups for row in each]
    for column in range(len(rows[0]) if rows else 1):
        if all(re.match(r"-?[\d.]|$", row[column]) for row in rows):
            return max(1, column)
    return len(rows[0]) if rows else 1
