"""Which commit a git checkout (of this project or another) is at."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

CHANGED = "+"
"""What follows a commit whose Python files were changed in the checkout."""


def head(folder: Path) -> str | None:
    """Commit of the git checkout that holds `folder`, 40 hexadecimal digits; None where `folder` is in no checkout, or
    git is not installed."""
    return _git(folder, "rev-parse", "HEAD")


def commit(folder: Path, files: Collection[str]) -> str | None:
    """Commit of the git checkout that holds `folder`, followed by "+" (`CHANGED`) if Python files in `folder` differ
    from the commit's; None without a checkout, and if the commit lacks one of `files` (paths below `folder`): then
    `folder` is a copy within another project's checkout. Files that are missing on disk do not count as changed,
    because a checkout may hold only a part of its project."""
    found = head(folder)
    held = _git(folder, "ls-tree", "-r", "--name-only", "HEAD", "--", *files)
    if found is None or held is None or not set(files) <= set(held.splitlines()):
        return None
    changed = _git(folder, "diff", "--diff-filter=M", "--name-only", "HEAD", "--", "*.py")
    return found + (CHANGED if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What `git` with these `arguments`, run in `folder` without writing there, prints; None if it fails."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
