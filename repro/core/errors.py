"""Error messages for users: one sentence that names the wrong value and the nearest valid one."""

from __future__ import annotations

import difflib
import errno
import typing


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """End of an error message, e.g. "nearest is 'elbo'": the valid name closest to `name` in spelling, or "valid: " and
    all valid names where none is close."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"nearest is {close[0]!r}" if close else f"valid: {', '.join(valid) or 'none'}"


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
    return text
