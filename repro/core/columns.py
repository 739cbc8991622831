"""Tables of text whose names are broken into lines where the terminal is narrow; numbers never are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence


def packed(name: str, longest: int) -> str:
    """A name broken into lines of at most `longest` characters, after one of ":,+/_" or a space; a longer piece stays
    whole, and the mark of an unfinished network (`Labels.marked`) takes at most two lines."""
    lines = [""]
    for piece in re.split(r"(?<=[:,+/_ ])(?<!\(step )(?<! of )", name.replace("\n", "")):
        if lines[-1] and len(lines[-1]) + len(piece) > longest:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def columns(
    rows: Sequence[Sequence[str]], names: Sequence[int], right: Sequence[int], room: int
) -> Iterator[str]:
    """Lines of a table with the cells `rows`, at most `room` characters wide where its cells allow. If the table would
    be wider, cells of the columns `names` are broken into pieces that are as long as possible (`packed`). The columns
    `right` are aligned to the right, all others to the left. A cell may have several lines."""
    for longest in (room, 48, 36, 24, 16, 8):
        cells = [
            [
                [
                    part
                    for line in cell.split("\n")
                    for part in (packed(line, longest) if i in names else line).split("\n")
                ]
                for i, cell in enumerate(row)
            ]
            for row in rows
        ]
        wide = [max(len(line) for row in cells for line in row[i]) for i in range(len(rows[0]))]
        if sum(wide) + 2 * (len(wide) - 1) <= room:
            break
    for row in cells:
        for parts in itertools.zip_longest(*row, fillvalue=""):
            found = [
                part.rjust(size) if i in right else part.ljust(size)
                for i, (part, size) in enumerate(zip(parts, wide, strict=True))
            ]
            yield "  ".join(found).rstrip()
