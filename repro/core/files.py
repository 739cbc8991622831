"""Locations of files, and atomic writing: a reader of a file never sees it half written.

A file or folder is made in a *workplace*, a hidden folder beside it that is locked as long as its writer lives, and
then renamed. A killed writer leaves its workplace; the next writer in the same folder removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from safetensors import SafetensorError

_HERE = Path(__file__).resolve().parents[1]
CHECKOUT = (_HERE.parent / "pyproject.toml").is_file()
"""Whether the package is that of a git checkout, not of an installed wheel."""
ROOT = _HERE.parent if CHECKOUT else _HERE / "_data"
"""Folder that contains `recipes/` and `evals/`: the git checkout, or their copy in an installed wheel, which only
pip writes."""
EXPORT = "repro.json"
"""File that tells a folder of exported weights (`python -m repro.checkpoint export`) from one of released weights."""
RESULTS = ROOT / "results" if CHECKOUT else Path("results")
"""Folder of published records, tables and certificates: in the checkout, or without one in the working directory."""
ADAPTERS = RESULTS / "adapters"
"""Folder of released adapters: a folder per recipe, laid out as a run folder. Evaluations write nothing there."""


WAIT = 1.0
"""Seconds of waiting for a lock in silence."""


def runs() -> Path:
    """Folder for everything that runs produce: $REPRO_RUNS, or `runs/` in the working directory."""
    return Path(os.environ.get("REPRO_RUNS", "runs"))


WORKPLACE = ".repro-tmp"
"""End of the names of workplaces."""


@contextmanager
def atomically(path: Path) -> Generator[Path]:
    """Context manager that yields a temporary path, at which the caller makes a file or folder. Without an error this
    is then renamed to `path`, else removed. Its files get the permission bits that the umask gives to new files.

    Raises FileExistsError where `path` is an existing folder, a device or a pipe, and OSError (ENOSPC) where the disk
    is full, also if it is safetensors that finds it full (and raises SafetensorError).
    """
    if _is_special(path):
        raise FileExistsError(f"{path} is a device or a pipe; choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _workplace(path) as place:
            temporary, mode = place / path.name, _mode(place / f"{path.name}.mode")
            yield temporary
            _finish(temporary, mode)
            if path.is_dir():
                raise FileExistsError(f"{path} is an existing folder; remove it or choose another path")
            os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if _says_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if isinstance(error, OSError) and WORKPLACE in str(error.filename):
            error.filename = str(path)  # what the user knows
        raise


def write_source(path: Path, text: str) -> None:
    """Write `text` to `path`, a generated file of the git checkout; ValueError if the package is installed from a
    wheel, not run in a checkout."""
    if not CHECKOUT:
        raise ValueError(f"{path} belongs to the installed package; run this in a git checkout")
    write_text(path, text)


def lacks_locks(error: OSError) -> bool:
    """Whether an error says that the file system has no locks (some network and FUSE mounts)."""
    return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Context manager that holds a lock on the file `path`, as one process at a time can; after a second of waiting a
    line on stderr names the file. Where the file system has no locks, the lock is held while a file PATH.soft
    exists; if its process was killed, the next process on the same machine removes this file, else the user must."""
    try:
        lock = _held(FileLock(path))
    except OSError as error:
        if not lacks_locks(error):
            raise
        lock = _held(SoftFileLock(f"{path}.soft"))
    try:
        yield
    finally:
        lock.release()


def _held(lock: BaseFileLock) -> BaseFileLock:
    """Acquire `lock` and return it; after a second of waiting, say on stderr that another process holds it."""
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        print(f"waiting for {lock.lock_file}, which another process holds", file=sys.stderr, flush=True)
        lock.acquire()
    return lock


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; a device or a pipe, such as /dev/stdout, gets the text and is not replaced by
    a file."""
    if _is_special(path):
        # without blocking: a pipe that nobody reads is an error, not a wait
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(handle, True)
        with open(handle, "w", encoding="utf-8") as out:
            out.write(text)
        return
    with atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def _is_special(path: Path) -> bool:
    """Whether `path` is a device, a pipe or a socket, which a rename to this path would replace by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def remove(path: Path) -> None:
    """Remove a file or folder. If this process is killed meanwhile, `path` is complete or gone, never half removed."""
    with _workplace(path) as place:
        os.replace(path, place / path.name)


def _mode(fresh: Path) -> int:
    """Permission bits that the umask gives to new files, read from the file `fresh`, which is made for this: Python
    can read the umask only by setting it, for all threads."""
    fresh.touch()
    return stat.S_IMODE(fresh.stat().st_mode)


def _finish(path: Path, mode: int) -> None:
    """Write a file, or all files of a folder, through to the disk (fsync), and give them the permission bits `mode`:
    otherwise only their owner could read files that safetensors wrote, and copies would have the bits of their
    source."""
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            if stat.S_IMODE(os.fstat(handle.fileno()).st_mode) != mode:
                os.fchmod(handle.fileno(), mode)


@contextmanager
def _workplace(path: Path) -> Generator[Path]:
    """Context manager that yields a new hidden folder beside `path` for this writer alone and removes it afterwards.
    Such folders of writers that were killed are removed first (not where the file system has no locks).
    """
    for left in path.parent.glob(f".*{WORKPLACE}"):
        with suppress(OSError):  # it is gone, or another user's
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError if its writer lives
                shutil.rmtree(left)
            finally:
                os.close(handle)
    place, handle = _made(path)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _made(path: Path) -> tuple[Path, int]:
    """A new hidden folder beside `path` (see `_workplace`), and the file descriptor that holds its lock."""
    while True:  # another writer may remove a workplace that is not locked yet
        place = Path(tempfile.mkdtemp(WORKPLACE, f".{path.name}.", path.parent))
        with suppress(FileNotFoundError):
            handle = os.open(place, os.O_RDONLY)
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if place.is_dir():
                return place, handle
            os.close(handle)


def _says_full(error: OSError | SafetensorError) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"os error {errno.ENOSPC}" in str(error) or f"os error {errno.EDQUOT}" in str(error)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def stale(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Paths of those of `files` (name -> expected text) that are missing from `folder` or contain something else."""
    paths = {folder / name: text.encode() for name, text in files.items()}
    return [path for path, data in paths.items() if not path.is_file() or path.read_bytes() != data]
