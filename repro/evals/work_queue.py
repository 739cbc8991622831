"""The work of a question in pieces, done by whichever process is free: a killed run loses a piece, not a question.

    found = work.pieces(2048, 256, lambda rows: bound_of(rows))     # one JSON-able value a piece, in order
    work.join()                                                     # from here on one process goes on

How work is cut is a function of the question alone: neither the number of processes nor the batch enters. A finished
piece lies in OUT/pieces/<question>-<numerics class>/ until its question's record is written. Processes need no word
with each other: whoever holds the lock of a piece does it, and the system frees the locks of a process that was
killed. OUT may be a folder that several machines see, if its file system has locks.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock, Timeout

from repro.core.files import write_text
from repro.core.parts import sha256
from repro.results.record import text

Found = TypeVar("Found")
TOKENS = 1 << 15
"""Tokens of the rows of a piece, about."""
ROWS = 512
"""Most rows of a piece."""
ANSWER = "answer"
"""Name of the lock of the process that makes an answer of the pieces."""


def rows_of(length: int) -> int:
    """Rows of a piece whose rows are `length` tokens long."""
    return max(1, min(ROWS, TOKENS // max(1, length)))


def spans(count: int, size: int) -> list[range]:
    """`count` items in runs of `size`, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Elsewhere(Exception):
    """Another process is at what is left of a question; it holds the lock `lock`."""

    def __init__(self, lock: Path) -> None:
        super().__init__(f"another process holds {lock}")
        self.lock = lock

    def over(self) -> bool:
        """Whether that process has let go of it, or was killed, and none makes the answer."""
        return _free(self.lock) and _free(_lock(self.lock.with_name(ANSWER)))


class Work(Protocol):
    """Who does the pieces, and how many rows go through the network together (None: what suits the task)."""

    @property
    def batch(self) -> int | None: ...

    def pieces(self, count: int, size: int, find: Callable[[range], Found]) -> list[Found]:
        """What `find` makes of each run of `size` of `count` items; it is JSON-able, and read back where it was kept.

        Raises Elsewhere while others do the rest.
        """
        ...

    def join(self) -> None:
        """All pieces are there: one process makes the answer of them. Raises Elsewhere for the others."""
        ...


@dataclass(frozen=True)
class Alone:
    """All pieces one after the other, nothing kept."""

    batch: int | None

    def pieces(self, count: int, size: int, find: Callable[[range], Found]) -> list[Found]:
        return [find(span) for span in spans(count, size)]

    def join(self) -> None:
        pass


ALONE = Alone(batch=None)


@dataclass(eq=False)
class Shared:
    """The pieces of one question in `folder`, shared with every process that works there.

    `answered` says whether its record is written: pieces may vanish then. `seconds` is what the pieces took, whoever
    did them; `own` what those took that were done here.
    """

    folder: Path
    question: str
    numerics: dict[str, Any]
    batch: int | None
    answered: Callable[[], bool]
    seconds: float = 0.0
    own: float = 0.0
    _stage: int = 0
    _joined: FileLock | None = field(default=None, repr=False)

    def pieces(self, count: int, size: int, find: Callable[[range], Found]) -> list[Found]:
        stage, self._stage = self._stage, self._stage + 1
        todo = {self.folder / f"{stage}-{span.start}.json": span for span in spans(count, size)}
        for path, span in todo.items():
            if path.is_file():
                continue
            try:
                with self._held(path):
                    if not path.is_file():
                        self._do(path, span, find)
            except Elsewhere:
                continue
        for path in todo:
            if not path.is_file():
                raise Elsewhere(_lock(path))
        return [self._read(path, span) for path, span in todo.items()]

    def join(self) -> None:
        if self._joined is None:
            path = self.folder / ANSWER
            self._joined = _taken(path)
            if self.answered():
                raise Elsewhere(_lock(path))

    def finish(self) -> None:
        """The record is written: nobody needs the pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # others' pieces are there, or nothing is
            self.folder.parent.rmdir()

    def close(self) -> None:
        """Let others make the answer, if it was not made."""
        if self._joined is not None:
            self._joined.release()

    @contextmanager
    def _held(self, path: Path) -> Generator[None]:
        """Hold a piece that no record makes needless. Raises Elsewhere when another process does."""
        lock = _taken(path)
        try:
            if self.answered():
                raise Elsewhere(_lock(path))
            yield
        finally:
            lock.release()

    def _do(self, path: Path, span: range, find: Callable[[range], Any]) -> None:
        began = time.perf_counter()
        found = find(span)
        seconds = time.perf_counter() - began
        self.own += seconds
        body = self._head(span) | {"seconds": round(seconds, 6), "found": found}
        whole = json.dumps(body)
        write_text(path, json.dumps({"sha256": sha256(whole), "piece": whole}))

    def _read(self, path: Path, span: range) -> Any:
        """A finished piece; ValueError in one line when it is not what was written here. Raises Elsewhere when it is
        gone: another process has answered the question since."""
        try:
            kept = json.loads(path.read_text("utf-8"))
            whole = json.loads(kept["piece"])
            fits = sha256(kept["piece"]) == kept["sha256"] and whole.items() >= self._head(span).items()
        except FileNotFoundError:
            raise Elsewhere(_lock(path)) from None
        except (json.JSONDecodeError, KeyError, TypeError):
            fits = False
        if not fits:
            raise ValueError(f"{path} was changed after it was written; remove it and run again")
        self.seconds += whole["seconds"]
        return whole["found"]

    def _head(self, span: range) -> dict[str, Any]:
        rows = [span.start, span.stop]
        return {"question": self.question, "numerics": text(self.numerics), "rows": rows}


def shared(
    folder: Path, question: str, numerics: dict[str, Any], batch: int | None, answered: Callable[[], bool]
) -> Shared:
    """The work on a question whose pieces lie below `folder`; answers of two numerics classes share none."""
    name = f"{question[:16]}-{sha256(text(numerics))[:8]}"
    return Shared(folder / name, question, numerics, batch, answered)


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")


def _free(lock: Path) -> bool:
    if not lock.is_file():
        return True
    try:
        with FileLock(lock, blocking=False):
            return True
    except Timeout:
        return False


def _taken(path: Path) -> FileLock:
    """The lock of a piece, held. Raises Elsewhere when another process holds it, or has just finished the question."""
    lock = FileLock(_lock(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):
        raise Elsewhere(_lock(path)) from None
    return lock
