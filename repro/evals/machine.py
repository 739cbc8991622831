"""Locks by which a process does timed work while no other process of its machine works on the same results.

    with Machine(folder).beside(): ...     untimed work: several processes may do it at the same time
    with Machine(folder).alone(): ...      timed work: waits for the untimed work of all others, and they wait for it

Decodings that are timed at once, or during other work, share caches and memory bandwidth, so each looks slower than it
is. The lock files lie in the machine's temporary folder, one pair for each folder of results, so that machines that
share a folder of results do not wait for each other. The operating system frees the locks of a killed process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from repro.core.files import lacks_locks


@dataclass(frozen=True)
class Machine:
    """The locks of this machine's processes that work on the results in `folder`. If the file system of the machine's
    temporary folder has no file locks, no process waits."""

    folder: Path

    @contextmanager
    def beside(self) -> Generator[None]:
        """Context of untimed evaluations for the folder of results, which several processes may make at the same time;
        it waits until no timed work runs or waits."""
        with ExitStack() as held:
            with self._locked("gate", fcntl.LOCK_EX):  # held by a process that waits for `alone` or is in it
                held.enter_context(self._locked("work", fcntl.LOCK_SH))
            yield

    @contextmanager
    def alone(self) -> Generator[None]:
        """Context of timed work. It begins once no other process on this machine evaluates for the same folder of
        results, waiting if necessary, and until it ends all others wait."""
        with self._locked("gate", fcntl.LOCK_EX), self._locked("work", fcntl.LOCK_EX):
            yield

    def path(self, name: str) -> Path:
        """Path of the lock file `name`. "work" is held by each process that works, by several at once if the work is
        untimed. "gate" must be held to acquire "work"; timed work keeps it until it ends, so that no other work begins
        while timed work waits or runs."""
        of = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"repro-{os.getuid()}-{of}.{name}"

    @contextmanager
    def _locked(self, name: str, how: int) -> Generator[None]:
        handle = self._acquired(name, how)
        try:
            yield
        finally:
            with suppress(OSError):  # another process holds it or there are no locks: the file stays
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.path(name).unlink()
            os.close(handle)

    def _acquired(self, name: str, how: int) -> int:
        """Open the file of the lock `name`, lock it by `how` (an operation of flock), and return its file descriptor.
        The last holder of a lock removes its file. If it does so before the file is locked here, this lock would
        exclude nobody, so a new file is opened and locked."""
        while True:
            handle = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, how)
            except OSError as error:
                if not lacks_locks(error):
                    os.close(handle)
                    raise
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(self.path(name))):
                    return handle
            os.close(handle)
