"""Errors of users: one sentence that names the wrong value and the nearest valid one."""

from __future__ import annotations

import difflib
import errno
import typing


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """The valid name closest in spelling, as the tail of an error message (the whole list when nothing is close)."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"nearest is {close[0]!r}" if close else f"valid: {', '.join(valid) or 'none'}"


class Usage(ValueError):
    """Wrong arguments."""


class Stopped(Exception):
    """A run was told to stop (SIGTERM, or after so many hours) and has saved itself; exit code 143, as the shell gives
    for that signal."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line, with the remedy for a full disk."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or text}); nothing finished was lost: free room and run again"
        )
    return text
