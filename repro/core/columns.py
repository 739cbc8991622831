"""Tables of plain text: where the terminal is narrow, long names are broken into several lines; numbers never are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence


def packed(name: str, longest: int) -> str:
    """A name with line breaks after some of its ":,+/_" and spaces, so that each line has at most `longest` characters;
    a piece without such a place stays whole. "(step 39 of 900)", which marks a network whose training stopped early,
    takes at most two lines."""
    lines = [""]
    for piece in re.split(r"(?<=[:,+/_ ])(?<!\(step )(?<! of )", name.replace("\n", "")):
        if lines[-1] and len(lines[-1]) + len(piece) > longest:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def columns(
    rows: Sequence[Sequence[str]], names: Sequence[int], right: Sequence[int], room: int
) -> Iterator[str]:
    """Lines of a table at most `room` characters wide, where its cells allow that. `rows`: the text of the cells, row
    by row; a text may have several lines. `names`: numbers (from 0) of the columns whose cells may be broken into more
    lines (`packed`) if the table would be too wide. `right`: numbers of the columns that are aligned to the right."""
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
