"""The tasks that lm-eval ships, by name.

lm-eval (0.4.13 lm_eval/tasks/manager.py:100) reads its 14,000 YAML files whenever it is asked for a task, which takes
15 CPU seconds. Here it does so once per installation: what it finds is stored in runs/data, under a name that changes
with lm-eval's version and with the path, size or time of any of these files.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repro.core.files import runs, write_text
from repro.core.reading import read_json


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An entry of lm-eval's index: `kind`, the name of lm-eval's `Kind`; `path` of the YAML, relative to the indexed
    folder (None for a tag, which has no YAML); `tags` (of a tag: its tasks)."""

    kind: str
    path: str | None
    tags: list[str]


@cache
def standard_tasks() -> Any:
    """lm-eval's TaskManager with all tasks, groups and tags that lm-eval ships in its `task_index`; made once per
    process."""
    from lm_eval import tasks

    manager = tasks.TaskManager(include_defaults=False)
    manager.task_index.update(indexed(Path(tasks.__file__).parent))
    return manager


def indexed(folder: Path) -> dict[str, Any]:
    """lm-eval's index (name -> lm_eval.tasks._index.Entry) of the YAML files below `folder`, read from runs/data or, if
    it is not stored there yet, made and stored. Entries have no `cfg`: lm-eval reads the YAML of a task again when it
    builds it."""
    from lm_eval.tasks._index import Entry, Kind

    place = runs() / "data" / f"lm_eval-tasks-{_state(folder)[:16]}.json"
    if not place.exists():
        write_text(place, json.dumps(msgspec.to_builtins(_made(folder))))
    stored = read_json(place, dict[str, _Stored], "remove it and run again")
    return {
        name: Entry(name, Kind[each.kind], each.path and folder / each.path, None, set(each.tags))
        for name, each in stored.items()
    }


def _made(folder: Path) -> dict[str, _Stored]:
    from lm_eval.tasks import TaskManager

    found = TaskManager(include_path=str(folder), include_defaults=False).task_index
    return {
        name: _Stored(
            each.kind.name,
            None if each.yaml_path is None else str(each.yaml_path.relative_to(folder)),
            sorted(each.tags),
        )
        for name, each in found.items()
    }


def _state(folder: Path) -> str:
    """SHA-256 of lm-eval's version, and of the path, size and time of each YAML file below `folder`."""
    lines = [version("lm-eval"), str(folder)]
    for path in sorted(folder.rglob("*.yaml")):
        about = path.stat()
        lines.append(f"{path} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
