"""Locations of files, and atomic writing: a reader of a file never sees it half written."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_HERE = Path(__file__).resolve().parents[1]
ROOT = _HERE.parent if (_HERE.parent / "pyproject.toml").is_file() else _HERE / "_data"
"""Folder that contains `recipes/` and `evals/`: the git checkout, or their copy in an installed wheel."""


WAIT = 1.0
"""Seconds of waiting for a lock in silence."""


def runs() -> Path:
    """Folder for everything that runs produce: $REPRO_RUNS, or `runs/` in the working directory."""
    return Path(os.environ.get("REPRO_RUNS", "runs"))


@contextmanager
def atomically(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`, for a file or folder that is renamed to `path` on success and removed on
    failure.

    Raises FileExistsError where `path` is an existing folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    _clear(temporary)
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():
            raise FileExistsError(f"{path} is an existing folder; remove it or choose another path")
        os.replace(temporary, path)
    finally:
        _clear(temporary)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock file `path`, as one process at a time can; a line on stderr names it after `WAIT` seconds of
    waiting."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        print(f"waiting for {path}, which another process holds", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
