"""The tasks that lm-eval ships, by name.

lm-eval (0.4.13 lm_eval/tasks/manager.py:100) reads its 14,000 YAML files whenever it is asked for a task, which takes
5 to 15 CPU seconds. Here they are read once per installation, in about 1 CPU second, and the index of tasks made from
them is stored in runs/data. Its file name contains a hash of lm-eval's version and of the path, size and time of each
YAML file, so that a changed installation gets a new index.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repro.core.files import runs, write_text
from repro.core.reading import read_json

DECISIVE = ("include", "class", "group", "task", "tag")
"""The settings of a YAML file on which its entry in the index depends."""


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A stored entry of lm-eval's index of tasks. `kind`: TASK, PY_TASK, GROUP or TAG (names of lm-eval's enumeration
    `Kind`); `path`: the entry's YAML, relative to the indexed folder (None for a tag, which has no YAML); `tags`: its
    tags (of a tag: the tasks that have it)."""

    kind: str
    path: str | None
    tags: list[str]


@cache
def standard_tasks() -> Any:
    """lm-eval's TaskManager, whose `task_index` holds all tasks, groups and tags that lm-eval ships; made once per
    process."""
    from lm_eval import tasks

    manager = tasks.TaskManager(include_defaults=False)
    manager.task_index.update(indexed(Path(tasks.__file__).parent))
    return manager


def indexed(folder: Path) -> dict[str, Any]:
    """lm-eval's index (name of a task, group or tag -> lm_eval.tasks._index.Entry) of the YAML files below `folder`,
    read from runs/data or, if it is not stored there yet, made and stored. The field `cfg` of each entry is None:
    lm-eval reads a task's YAML again when it builds the task."""
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
    """The index of the YAML files below `folder`, name of a task, group or tag -> entry, as lm-eval builds it (0.4.13
    lm_eval/tasks/_index.py:46), but each file is read only once: lm-eval reads an included file again for every file
    that includes it, which is most of its work. A file that lm-eval skips is skipped here too."""
    import yaml
    from lm_eval.tasks._index import TaskIndex

    found: dict[str, Any] = {}
    read = cache(_settings)
    for path in TaskIndex._iter_yaml_files(folder):
        with suppress(AttributeError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError):
            TaskIndex.process_cfg(_with_included(path, read, set()), path, found)
    return {
        name: _Stored(
            each.kind.name,
            None if each.yaml_path is None else str(each.yaml_path.relative_to(folder)),
            sorted(each.tags),
        )
        for name, each in found.items()
    }


def _with_included(path: Path, read: Callable[[Path], Mapping[str, Any]], above: set[Path]) -> dict[str, Any]:
    """The settings of the YAML file `path`, merged with the settings of the files that it includes, as by lm-eval
    (0.4.13 lm_eval/tasks/_yaml_loader.py:164): the file's own settings replace included ones, and those of a later
    included file replace those of an earlier one.

    `read` returns the settings that a file itself has; `above`: paths of the files read so far, to which `path` is
    added. Raises ValueError if `path` is already among them, as lm-eval does.
    """
    path = Path(os.path.normpath(path))  # resolving the links of 24,000 paths took half of the time
    if path in above:
        raise ValueError(f"{path} is included twice; include it once")
    above.add(path)
    own = dict(read(path))
    included = own.pop("include", [])
    merged: dict[str, Any] = {}
    for other in included if isinstance(included, list) else [included]:
        merged |= _with_included(path.parent / other, read, above)
    return merged | own


def _settings(path: Path) -> Mapping[str, Any]:
    """The settings of the YAML file `path` on which its index entry depends (`DECISIVE`: task, tag, include, ...), name
    -> value; ValueError for a file that is no YAML mapping."""
    import yaml

    found = yaml.load(path.read_bytes(), _loader())
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no settings; write them as a YAML mapping, NAME: VALUE")
    return {name: found[name] for name in DECISIVE if name in found}


@cache
def _loader() -> type[Any]:
    """PyYAML's safe loader class, extended to read lm-eval's YAML tag `!function` as text, without importing the
    function."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    return Loader


def _state(folder: Path) -> str:
    """SHA-256 (hexadecimal) of lm-eval's version and of path, size and time of change of each YAML file below
    `folder`."""
    lines = [version("lm-eval"), str(folder)]
    for path in sorted(folder.rglob("*.yaml")):
        about = path.stat()
        lines.append(f"{path} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
