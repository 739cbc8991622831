"""Work queue: the work of one evaluation, split into chunks that any process may compute.

    found = queue.map_chunks(2048, 256, bounds, read)    # read(bounds(rows), rows) of each chunk, in order
    queue.join()                                         # from here on one process continues

A chunk is a range of items, such as rows to decode or score. The split depends on the evaluation alone, never on the
number of processes or the batch size. A finished chunk is stored in OUT/chunks/<question id>-<numerics class>/ until
the evaluation's record is written, so a killed run loses one chunk. Processes claim chunks through file locks, which
the operating system frees when a process is killed. Several machines may share the folder OUT.

Where the file system of OUT has no locks, the processes of one launcher split the chunks by their number instead:
process r of n computes the chunks r, r + n, ..., and process 0 combines them. A process without a launcher computes all
of them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct

from repro.core.cli import launched
from repro.core.files import lacks_locks, write_text
from repro.core.parts import sha256
from repro.core.reading import convert, read_json
from repro.evals.machine import Machine
from repro.results.record import text

Value = TypeVar("Value")
Item = TypeVar("Item")
TOKENS = 1 << 15
"""Approximate total number of tokens in the rows of a chunk."""
ROWS = 512
"""Largest number of rows in a chunk."""
ANSWER = "answer"
"""Name of the lock that is held by the process that combines the chunks into a result."""


def rows_per_chunk(length: int) -> int:
    """Number of rows of `length` tokens in a chunk, the part of an evaluation that a process computes at a time: from 1
    to 512 rows (`ROWS`), about 2^15 tokens in all."""
    return max(1, min(ROWS, TOKENS // max(1, length)))


def spans(count: int, size: int) -> list[range]:
    """Consecutive ranges of `size` items that cover `count` items; the last one may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Busy(Exception):
    """Raised if this process cannot go on with an evaluation, because another process computes a missing chunk (a range
    of items), combines the chunks into the result, or has just stored the result. `lock`: file lock of that work.

    `by_rank`: there are no file locks, and the chunk, or combining all chunks, is assigned to another process by its
    number in the launch (rank).
    """

    def __init__(self, lock: Path, by_rank: bool = False) -> None:
        super().__init__(f"another process holds {lock}")
        self.lock, self.by_rank = lock, by_rank

    def over(self) -> bool:
        """Whether to try the evaluation again: `lock` is free (released, or its process was killed) and no process is
        combining the chunks into a result. Without file locks: the chunk is finished, or all chunks were removed, as
        they are once the record is written."""
        if self.by_rank:
            return self.lock.with_suffix(".json").is_file() or not self.lock.parent.is_dir()
        return _is_free(self.lock) and _is_free(_lock_path(self.lock.with_name(ANSWER)))


class WorkQueue(Protocol):
    """Interface of work queues, by which several processes share the work of one evaluation: its items are split into
    chunks (ranges of items), and each chunk is computed by one process.

    `batch` is the largest number of rows in one forward (None: the task's default).
    """

    @property
    def batch(self) -> int | None: ...

    def map_chunks(
        self, count: int, size: int, find: Callable[[range], Any], read: Callable[[Any, range], Value]
    ) -> list[Value]:
        """`read(find(range), range)` for `count` items in ranges of `size`, one value per chunk, in order.

        What `find` returns must be JSON-able; the stored value of a finished chunk is read instead of computed. `read`
        checks type, sizes and ranges of the stored value, since a chunk's file may hold anything, and raises
        ValueError. Raises Busy while other processes compute chunks that are still missing. Chunks are stored by the
        number of the call, so all processes must make the same calls in the same order.
        """
        ...

    def each(self, parts: Sequence[Item], find: Callable[[Item], Value]) -> list[Value]:
        """`find(part)` for each of `parts`, independent parts of the evaluation; `find` may call `map_chunks` any
        number of times. Where other processes compute chunks of a part, this process goes on with the next part; raises
        Busy after the last part if any part lacks chunks."""
        ...

    def join(self) -> None:
        """Claim the right to combine the chunks into a result; call it after the last `map_chunks`.

        Raises Busy if another process has claimed it, or has already written the record.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Context of timed work, entered after `join`: while it lasts, no other process of this machine works on the
        same results on a CPU. Where models run on accelerators, each process has one of its own, so nothing waits."""
        ...


@dataclass(frozen=True)
class SerialQueue:
    """Work queue of an evaluation that is not shared: all chunks (ranges of its items) are computed one after another
    in this process, and none is stored."""

    batch: int | None

    def map_chunks(
        self, count: int, size: int, find: Callable[[range], Any], read: Callable[[Any, range], Value]
    ) -> list[Value]:
        return [read(find(span), span) for span in spans(count, size)]

    def each(self, parts: Sequence[Item], find: Callable[[Item], Value]) -> list[Value]:
        return [find(part) for part in parts]

    def join(self) -> None:
        pass

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


SERIAL = SerialQueue(batch=None)


class _Chunk(Struct):
    """File with the stored results of one chunk (a range of an evaluation's items): `chunk`, the results as JSON text
    (`_Body`), and the SHA-256 of this text."""

    sha256: str
    chunk: str


class _Body(Struct):
    """Stored results of one chunk (a range of an evaluation's items): id of the evaluation (`question`), numerics
    class, first and last + 1 of the items (`rows`), seconds that it took, and the computed values (`found`)."""

    question: str
    numerics: str
    rows: tuple[int, int]
    seconds: float
    found: Any


@dataclass(eq=False)
class SharedQueue:
    """Work queue of one evaluation, which stores the results of each chunk (a range of items) in `folder`, so that all
    processes that use this folder share the work.

    `question`: id of the evaluation's record; `numerics`: its numerics class (device type, dtype, ...); `batch`:
    largest number of rows in one forward (None: the task's default); `answered`: returns whether the record has been
    written, after which the chunks may be removed; `seconds`: time spent on all chunks by all processes; `own`: time
    that this process spent on chunks.
    """

    folder: Path
    question: str
    numerics: dict[str, Any]
    batch: int | None
    answered: Callable[[], bool]
    finished: Callable[[int, int], None] = lambda done, count: None
    """Called after each chunk that this process has computed, with the numbers of finished chunks and of all."""
    seconds: float = 0.0
    own: float = 0.0
    waited: float = 0.0
    """Seconds that this process waited for other processes of its machine (`repro.evals.machine`)."""
    _stage: int = 0
    _part: int | None = None
    """Index of the part that is being computed (`each`), whose stages are counted apart from those of others."""
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    """Holds, from `join` to `close`, the lock of untimed work (`Machine.beside`), except during `alone`."""
    _joined: FileLock | None = field(default=None, repr=False)
    _by_rank: bool = False
    """Whether a file lock could not be had, because the file system has none."""

    def map_chunks(
        self, count: int, size: int, find: Callable[[range], Any], read: Callable[[Any, range], Value]
    ) -> list[Value]:
        assert self._joined is None, "chunks come before join"
        stage, self._stage = self._stage, self._stage + 1
        name = f"{stage}" if self._part is None else f"{self._part}.{stage}"
        chunks = {self.folder / f"{name}-{span.start}.json": span for span in spans(count, size)}
        for number, (path, span) in enumerate(chunks.items(), start=self._part or 0):
            if path.is_file():
                continue
            try:
                with self._claimed(path, number):
                    if not path.is_file():
                        self._compute(path, span, find)
                        self.finished(sum(each.is_file() for each in chunks), len(chunks))
            except Busy:
                continue
        for path in chunks:
            if not path.is_file():
                raise Busy(_lock_path(path), self._by_rank)
        return [self._read(path, span, read) for path, span in chunks.items()]

    def each(self, parts: Sequence[Item], find: Callable[[Item], Value]) -> list[Value]:
        found, busy = [], []
        for number, part in enumerate(parts):
            self._part, self._stage = number, 0
            try:
                found.append(find(part))
            except Busy as error:
                busy.append(error)
        self._part = None
        if busy:
            raise busy[0]
        return found

    def join(self) -> None:
        if self._joined is None:
            path = self.folder / ANSWER
            self._joined = self._claim(path, 0)
            if self.answered():
                raise Busy(_lock_path(path), self._by_rank)
            asked = time.perf_counter()
            self._held.enter_context(self._beside())
            self.waited += time.perf_counter() - asked

    @contextmanager
    def alone(self) -> Generator[None]:
        assert self._joined is not None, "one process times, after join"
        if self.numerics.get("device") != "cpu":
            yield
            return
        self._held.close()
        began = time.perf_counter()
        with Machine(self._results()).alone():
            self.waited += time.perf_counter() - began
            yield
        self._held.enter_context(self._beside())

    def _beside(self) -> AbstractContextManager[None]:
        on_cpu = self.numerics.get("device") == "cpu"
        return Machine(self._results()).beside() if on_cpu else nullcontext()

    def _results(self) -> Path:
        """The folder OUT of the results; `folder`, with the chunks of this queue, is OUT/chunks/NAME."""
        return self.folder.parent.parent

    def finish(self) -> None:
        """Remove the stored chunks; call it when the record of the evaluation is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # the folder holds other questions' chunks, or is already gone
            self.folder.parent.rmdir()

    def close(self) -> None:
        """Release the claim of `join`, so that another process can combine the chunks if this one did not."""
        self._held.close()
        if self._joined is not None:
            self._joined.release()

    @contextmanager
    def _claimed(self, path: Path, number: int) -> Generator[None]:
        """Context that holds the lock of a chunk (a range of items), stored at `path`; `number`: the chunk's index in
        its call of `map_chunks`.

        Raises Busy if another process holds the lock, or if the record of the evaluation is already written.
        """
        lock = self._claim(path, number)
        try:
            if self.answered():
                raise Busy(_lock_path(path), self._by_rank)
            yield
        finally:
            lock.release()

    def _claim(self, path: Path, number: int) -> FileLock:
        """The acquired lock of the chunk at `path`; `number`: its index in its call of `map_chunks`. Without file locks
        it is not acquired; the chunk then belongs to the process whose rank is `number` modulo the number of processes.
        Raises Busy if another process holds the lock or owns the chunk."""
        try:
            return _claim(path)
        except OSError as error:
            if not lacks_locks(error):
                raise
            self._by_rank = True
        rank, world = launched()
        if number % world != rank:
            raise Busy(_lock_path(path), by_rank=True)
        return FileLock(_lock_path(path))

    def _compute(self, path: Path, span: range, find: Callable[[range], Any]) -> None:
        asked = time.perf_counter()
        with self._beside():
            began = time.perf_counter()
            found = find(span)
            seconds = time.perf_counter() - began
        self.own += seconds
        self.waited += began - asked
        body = _Body(*self._head(span), seconds=round(seconds, 6), found=found)
        chunk = json.dumps(msgspec.to_builtins(body))
        write_text(path, json.dumps({"sha256": sha256(chunk), "chunk": chunk}))

    def _read(self, path: Path, span: range, read: Callable[[Any, range], Value]) -> Value:
        """The stored value of the finished chunk at `path`.

        Raises ValueError if the file was changed or `read` refuses its contents, and Busy if the file is gone, since
        another process has written the record of the evaluation in the meantime.
        """
        remedy = "remove it and run again"
        try:
            stored = read_json(path, _Chunk, remedy)
        except ValueError:
            if not os.path.lexists(path):
                raise Busy(_lock_path(path)) from None
            raise
        if sha256(stored.chunk) != stored.sha256:
            raise ValueError(f"{path} was changed after it was written; {remedy}")
        try:
            body = convert(json.loads(stored.chunk), _Body, "its contents", "it is of another version")
            if (body.question, body.numerics, body.rows) != self._head(span):
                raise ValueError(
                    "its evaluation id, numerics class (device, dtype, ...) or rows are those of another evaluation"
                )
            value = read(body.found, span)
        except ValueError as error:
            raise ValueError(f"{path} does not fit this evaluation ({error}); {remedy}") from None
        self.seconds += body.seconds
        return value

    def _head(self, span: range) -> tuple[str, str, tuple[int, int]]:
        return self.question, text(self.numerics), (span.start, span.stop)


def shared_queue(
    folder: Path,
    question: str,
    numerics: dict[str, Any],
    batch: int | None,
    answered: Callable[[], bool],
    finished: Callable[[int, int], None] = lambda done, count: None,
) -> SharedQueue:
    """The queue of the evaluation with id `question`, with chunks in a subfolder of `folder` for its numerics class
    (device, dtype, ...).

    `batch`: largest number of rows in one forward (None: the task's default); `answered`: returns whether the record
    has been written; `finished`: called after each computed chunk with the numbers of finished chunks and of all.
    Evaluations of different numerics classes (device, dtype, ...) share no chunks.
    """
    name = f"{question[:16]}-{sha256(text(numerics))[:8]}"
    return SharedQueue(folder / name, question, numerics, batch, answered, finished)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _is_free(lock: Path) -> bool:
    if not lock.is_file():
        return True
    try:
        with FileLock(lock, blocking=False):
            return True
    except Timeout:
        return False


def _claim(path: Path) -> FileLock:
    """The acquired file lock of a chunk (a range of an evaluation's items), whose results are stored at `path`.

    Raises Busy if another process holds the lock or has just removed the folder of the chunks.
    """
    lock = FileLock(_lock_path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):
        raise Busy(_lock_path(path)) from None
    return lock
