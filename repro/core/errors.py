"""Error messages for users: one sentence that names the wrong value and the nearest valid one."""

from __future__ import annotations

import errno
import re
import typing
from collections.abc import Generator
from contextlib import contextmanager

MOST = 40
"""Largest number of names that a message lists."""
MANY = 400
"""If there are more valid names than this, a message lists none of them."""
SHORT = 3
"""Least number of characters of a part of a name by which the name is found."""
LARGEST_COUNT = 2**53
"""Largest count that a user may give; every integer up to here is a float64 too."""
LONGEST = 600
"""Largest number of characters of a message; of a longer message the middle is left out."""


def counted(count: int, noun: str) -> str:
    """A number and its noun, which gets an s unless the number is 1: `1 step`, `16 steps`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """End of an error message about an unknown `name`: "nearest is 'elbo'" where a valid name is `similar`, else
    "valid: " and the first 40 valid names in alphabetical order; if there are more than 400, only their number."""
    valid = sorted(valid)
    close = similar(name, valid)
    if close is not None:
        return f"nearest is {close!r}"
    if len(valid) > MANY:
        return f"none of {len(valid):,} names is like it"
    rest = f" and {len(valid) - MOST} more" if len(valid) > MOST else ""
    return f"valid: {', '.join(valid[:MOST]) or 'none'}{rest}"


def similar(name: str, valid: typing.Sequence[str]) -> str | None:
    """The valid name that `name` most likely stands for; None where no valid name is likely.

    It is the valid name of which `name` is a misspelling (`misspelt`), else the shortest of the valid names that begin
    with `name` (`temp`: `temperature`), contain all its words (`confidence`: `low_confidence`) or consist of words of
    `name` (`random_sampler`: `random`). Case and separators do not count.
    """
    found = misspelt(name, valid)
    if found is not None:
        return found
    wanted = _plain(name[:100])
    parts = [each for each in valid if _is_part(wanted, _plain(each))]
    return min(parts, key=lambda each: (len(each), each), default=None)


def misspelt(name: str, valid: typing.Sequence[str]) -> str | None:
    """The valid name of which `name` is most likely a misspelling; None where no valid name is likely.

    It is the valid name that the fewest edits (a character inserted, left out, replaced, or swapped with its neighbour)
    turn `name` into, if their number is at most a third of the longer name's length, as in GCC's suggestions
    (gcc-mirror/gcc gcc/spellcheck.cc, get_edit_distance_cutoff).
    """
    wanted = _plain(name[:100])
    edits = [(_edits(wanted, _plain(each)), each) for each in valid]
    return min(((count, each) for count, each in edits if count is not None), default=(0, None))[1]


def _plain(name: str) -> str:
    """A name in lower case with "_" for every run of characters that are no letters or digits, none at the ends."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _is_part(name: str, other: str) -> bool:
    """Whether the name `other` begins with `name`, or one of the two contains all words of the other; words of fewer
    than three characters, which occur in many names, do not count."""
    words, others = ({word for word in each.split("_") if len(word) >= SHORT} for each in (name, other))
    within = bool(words and others) and (words <= others or others <= words)
    return within or (len(name) >= SHORT and other.replace("_", "").startswith(name.replace("_", "")))


def _edits(name: str, other: str) -> int | None:
    """Number of edits (see `misspelt`) that turn `name` into `other`; None if it is more than a third of the longer
    name's length. If the lengths differ by 1 at most, this third is rounded down, but not below 1; else it is rounded
    up."""
    longest, apart = max(len(name), len(other)), abs(len(name) - len(other))
    most = max(longest // 3, 1) if apart <= 1 else (longest + 2) // 3
    if longest < 2 or apart > most:
        return 0 if name == other and name else None
    rows = [list(range(len(other) + 1))]
    for i, mine in enumerate(name, start=1):
        row = [i]
        for j, theirs in enumerate(other, start=1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (mine != theirs))
            if i > 1 and j > 1 and mine == other[j - 2] and name[i - 2] == theirs:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        if min(row) > most:
            return None
        rows.append(row)
    return rows[-1][-1] if rows[-1][-1] <= most else None


class UnknownSymbol(ValueError):
    """Error: a text contains a symbol for which the vocabulary has no id."""


@contextmanager
def naming(place: str) -> Generator[None]:
    """Context manager that puts `place` (the file or task, and the document) before the message of an `UnknownSymbol`
    that is raised within it."""
    try:
        yield
    except UnknownSymbol as error:
        raise UnknownSymbol(f"{place}: {error}") from None


class Usage(ValueError):
    """ValueError for wrong command-line arguments."""


class Stopped(Exception):
    """Raised when a command stops early with its results saved: a training run after SIGTERM, an evaluation at the end
    of its time budget (--max-hours). The exit code is 143, as for SIGTERM."""


def one_line(error: BaseException) -> str:
    """The message of an error as one line of text; for a full disk, it also says what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or text}); finished results are safe; free disk space and run again"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS) and error.filename:
        return (
            f"{error.filename}: {error.strerror}; choose a place that you may write (--out, or $REPRO_RUNS)"
        )
    if out_of_memory(error):
        return (
            f"out of memory ({text[:200] or 'no more can be allocated'}); give smaller sizes, or free memory"
        )
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated: Python's, numpy's, or torch's, on a CPU or GPU."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or named
