"""Checkouts of peers made by tests, and the rows of benchmarks against them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def checkout(folder: Path, files: dict[str, str]) -> str:
    """Make a git repository with these files in `folder`; returns its commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows that `python -m benchmarks --peer` stored in `folder`."""
    return json.loads((folder / "peers.json").read_text("utf-8"))["rows"]
