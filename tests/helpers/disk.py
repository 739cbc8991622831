"""A real disk of a few megabytes, which a test can fill.

with small_disk(tmp_path) as disk:
    fill(disk, room=4096)    # 4096 bytes are left
    ...
    free(disk)
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repro.core.files import file_digest

FILL = "filling"


@contextmanager
def small_disk(parent: Path, mib: int = 2) -> Generator[Path]:
    """The folder of a new file system in memory: mounted by root, else in a user namespace, whose files /proc shows.

    Skips the test where neither is allowed.
    """
    folder = parent / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={mib}m tmpfs {folder}"
    if subprocess.run(mount.split(), capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && echo mounted && exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        try:
            if holder.stdout is None or not holder.stdout.readline():
                pytest.skip(
                    "a full disk needs a file system of its own: neither mount nor unshare is allowed"
                )
            yield Path(f"/proc/{holder.pid}/root{folder}")
        finally:
            holder.kill()


def fill(disk: Path, room: int) -> None:
    """Fill the disk up to `room` bytes, in whole pages of 4096."""
    free(disk)
    state = os.statvfs(disk)
    (disk / FILL).write_bytes(bytes(state.f_bavail * state.f_bsize - room))


def free(disk: Path) -> None:
    (disk / FILL).unlink(missing_ok=True)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path; empty folders are listed too. Not `FILL` and locks."""
    return {
        str(path.relative_to(folder)): file_digest(path) if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
        if path.name not in (FILL, ".lock")
    }
