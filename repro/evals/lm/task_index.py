"""The tasks that lm-eval ships, by name.

lm-eval (0.4.13 lm_eval/tasks/manager.py:100) reads its 14,000 YAML files whenever it is asked for a task, which takes
5 to 15 CPU seconds. Here each file is read once, in about 1, and once an installation: what they say is stored in
runs/data, under a name that changes with lm-eval's version and with the path, size or time of any of these files.
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
    """The index of tasks as lm-eval builds it (0.4.13 lm_eval/tasks/_index.py:46), but each file is read only once:
    lm-eval reads an included file again for every file that includes it, which is most of its work. A file that lm-eval
    skips is skipped here too."""
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
    """The settings of a YAML file with those of the files that it includes, as lm-eval merges them (0.4.13
    lm_eval/tasks/_yaml_loader.py:164): its own win over those of a file, and those of a later file over those of an
    earlier one.

    `read`: the settings that a file itself has; `above`: the files read so far, to which this one is added. Raises
    ValueError for a file that is already among them, as lm-eval does.
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
    """The settings of a YAML file that say what it defines and includes (`DECISIVE`); ValueError for a file that holds
    no settings."""
    import yaml

    found = yaml.load(path.read_bytes(), _loader())
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no settings; write a YAML mapping, NAME: VALUE")
    return {name: found[name] for name in DECISIVE if name in found}


@cache
def _loader() -> type[Any]:
    """PyYAML's safe loader, which knows lm-eval's tag `!function` and does not resolve it."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    return Loader


def _state(folder: Path) -> str:
    """SHA-256 of lm-eval's version, and of the path, size and time of each YAML file below `folder`."""
    lines = [version("lm-eval"), str(folder)]
    for path in sorted(folder.rglob("*.yaml")):
        about = path.stat()
        lines.append(f"{path} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
