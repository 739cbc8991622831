"""Where things lie, and how a file is written so that a reader never sees half of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_HERE = Path(__file__).resolve().parents[1]
ROOT = _HERE.parent if (_HERE.parent / "pyproject.toml").is_file() else _HERE / "_data"
"""Folder that holds `recipes/` and `evals/`: the checkout, or the copy that the wheel carries."""


def runs() -> Path:
    """Folder of everything made on this machine: `runs/` of the working directory, or $REPRO_RUNS."""
    return Path(os.environ.get("REPRO_RUNS", "runs"))


@contextmanager
def atomically(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path` (file or folder); on success it takes the name, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    _clear(temporary)
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():
            raise FileExistsError(f"{path} exists")
        os.replace(temporary, path)
    finally:
        _clear(temporary)


def write_text(path: Path, text: str) -> None:
    with atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def json_lines(path: Path) -> list[str]:
    """The lines of a file with one JSON value a line. str.splitlines also cuts at U+2028, U+2029 and U+0085, which may
    stand inside a JSON string."""
    *lines, last = path.read_text("utf-8").split("\n")
    return [*lines, last] if last else lines


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
