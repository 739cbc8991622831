"""Error messages for users: one sentence that names the wrong value and the nearest valid one."""

from __future__ import annotations

import difflib
import errno
import typing
from contextlib import contextmanager

MOST = 40
"""Names that a message lists."""
LONGEST = 600
"""Characters that a message has; of a longer one the middle is left out."""


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """End of an error message, e.g. "nearest is 'elbo'": the valid name closest to `name` in spelling, or "valid: " and
    the valid names (at most `MOST`) where none is close."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name[:100], valid, n=1, cutoff=0.4)
    if close:
        return f"nearest is {close[0]!r}"
    rest = f" and {len(valid) - MOST} more" if len(valid) > MOST else ""
    return f"valid: {', '.join(valid[:MOST]) or 'none'}{rest}"


class UnknownSymbol(ValueError):
    """A text has a symbol for which a vocabulary has no id."""


@contextmanager
def naming(place: str) -> typing.Iterator[None]:
    """Within it the message of an `UnknownSymbol` begins with `place`, the file or task and the document of the
    text."""
    try:
        yield
    except UnknownSymbol as error:
        raise UnknownSymbol(f"{place}: {error}") from None


class Usage(ValueError):
    """ValueError for wrong command-line arguments."""


class Stopped(Exception):
    """A training run received SIGTERM or reached its time limit, and has saved its state; exit code 143, as for
    SIGTERM."""


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
