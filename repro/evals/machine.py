"""Whether a process computes beside others of its machine or alone, which what it times must be.

    with Machine(folder).beside(): ...     may run at the same time as others that are `beside`
    with Machine(folder).alone(): ...      waits until they have ended; none begins before this ends

Two decodings that are timed at once, or beside other work, share caches and memory bandwidth, and each looks slower
than it is. Locks lie in the machine's temporary folder, one pair for each folder of results: machines that share a
folder do not wait for each other. The operating system frees the locks of a killed process.
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
    """This machine's processes that work on the results in `folder`. Where its temporary folder has no file locks,
    nothing waits."""

    folder: Path

    @contextmanager
    def beside(self) -> Generator[None]:
        """Context of work that others may do at the same time."""
        with ExitStack() as held:
            with self._locked("gate", fcntl.LOCK_EX):  # shut while a process waits to be alone, or is
                held.enter_context(self._locked("work", fcntl.LOCK_SH))
            yield

    @contextmanager
    def alone(self) -> Generator[None]:
        """Context of work beside which no other is done."""
        with self._locked("gate", fcntl.LOCK_EX), self._locked("work", fcntl.LOCK_EX):
            yield

    def path(self, name: str) -> Path:
        """File of the lock `name`, "gate" or "work"."""
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
        """Descriptor of the locked file; one that its last holder has removed meanwhile is not the lock any more."""
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
