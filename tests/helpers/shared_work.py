"""Work for tests of `scripts.reproduce.shared`, importable in the processes that it starts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def note(folder: Path, name: str, action: str = "") -> None:
    """Write this process's id to the file `name`, once two processes are at work; then `fail`, get `killed`, or go on
    for a minute ("long") if `action` says so."""
    (folder / f"{name}.tmp").write_text(str(os.getpid()))
    (folder / f"{name}.tmp").rename(folder / name)
    until = time.monotonic() + 60
    while len({path.read_text() for path in folder.glob("[0-9]")}) < 2:
        assert time.monotonic() < until, "the second process took no entry"
        time.sleep(0.01)
    if action == "fail":
        raise ValueError(f"{name} is wrong; mend it")
    if action == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "long":
        time.sleep(60)
        (folder / "late").touch()
