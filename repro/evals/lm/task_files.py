"""Copies of user-written lm-eval tasks, stored by content: the folder runs/tasks/DIGEST holds the YAML and every file
that it names (DIGEST: SHA-256 of these).

    digest = store_task(Path("my_tasks/capitals.yaml"))     # with its includes, functions and local data files
    load_task_config(digest)                                # lm-eval's configuration, data files as absolute paths

A record refers to the task by this digest, not by a path. Editing the YAML or its data gives a new digest and so new
records; the old copy remains, so that evaluations of the old version can still be repeated.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from repro.core.files import atomically, locked, runs
from repro.core.reading import convert, foreign, read_text
from repro.data.sources import check_rows

MAIN = "task.yaml"
NODES = 1 << 16
"""Largest number of values in a task's YAML."""
DATA = "data"


def store_task(path: Path) -> str:
    """Copy a task's YAML and all files that it names into runs/tasks; returns the SHA-256 of all copies (hexadecimal).
    ValueError for a file that is missing or cannot be read."""
    data_files = _data_files(path)
    names = _stored_names(data_files)
    files = {
        MAIN: path,
        **_dependencies(path),
        **{f"{DATA}/{names[name]}": at for name, at in data_files.items()},
    }
    content = hashlib.sha256()
    for name in sorted(files):
        if not files[name].is_file():
            raise ValueError(
                f"{path} names {files[name].name!r}, which is not a file next to it; put the file there"
            )
        check_rows(files[name])
        data = files[name].read_bytes()
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    digest = content.hexdigest()
    folder = _folder(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock"):
        if not folder.is_dir():
            with atomically(folder) as temporary:
                for name, file in files.items():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / name).write_bytes(file.read_bytes())
    return digest


def load_task_config(digest: str) -> dict[str, Any]:
    """lm-eval's configuration (name -> value) of the task that `store_task` stored under `digest`, with the data files
    as absolute paths; ValueError if runs/tasks does not hold the task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = _folder(digest)
    if not folder.is_dir():
        raise ValueError(
            f"no stored task {digest[:16]} in {folder.parent}; store it again by evaluating its YAML with --tasks"
            " FILE.yaml"
        )
    found = load_yaml(folder / MAIN)
    given = dict(found.get("dataset_kwargs") or {})
    cache = {"cache_dir": str((runs() / "data" / "lm_eval").absolute())}
    if "data_files" in given:
        names = _stored_names(_flat(given["data_files"]))
        given["data_files"] = _absolute(given["data_files"], folder / DATA, names)
    return found | {"dataset_kwargs": given | cache}


def _folder(digest: str) -> Path:
    return runs() / "tasks" / digest[:16]


def _absolute(files: Any, folder: Path, names: Mapping[str, str]) -> Any:
    """The setting `files` of a YAML (the name of a data file, a list of names, or a table of these by split), with each
    name replaced by the absolute path of the file's stored copy in `folder`. `names`: name in the YAML -> name of the
    copy."""
    if isinstance(files, dict):
        return {split: _absolute(each, folder, names) for split, each in files.items()}
    if isinstance(files, list):
        return [_absolute(each, folder, names) for each in files]
    return str((folder / names[str(files)]).absolute())


def _flat(files: Any) -> list[str]:
    """All names of data files in the setting `files`: one name, a list of names, or a table of these by split."""
    if isinstance(files, dict):
        return [name for each in files.values() for name in _flat(each)]
    return [name for each in files for name in _flat(each)] if isinstance(files, list) else [str(files)]


def _stored_names(given: Iterable[str]) -> dict[str, str]:
    """Path of a data file in the YAML -> its name in the stored copy of the task, for each path of `given`: the file's
    name without folders. Where files of two folders have one name, the first 8 digits of the SHA-256 of the path are
    put before the name."""
    given = list(dict.fromkeys(given))
    times = Counter(Path(name).name for name in given)
    return {
        name: Path(name).name
        if times[Path(name).name] == 1
        else f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{Path(name).name}"
        for name in given
    }


def _raw_yaml(path: Path) -> dict[str, Any]:
    """The content of a task YAML, with `!function` values as text and includes not followed; ValueError if it cannot be
    read."""
    from lm_eval.tasks._yaml_loader import load_yaml

    read_text(path)
    with foreign(path, "YAML of a task", "correct it"):
        found = load_yaml(path, resolve_func=False, recursive=False)
    if _size(found) > NODES:
        raise ValueError(
            f"{path} has more than {NODES} values when its YAML references (*NAME) are resolved; make it smaller"
        )
    convert(found, _Fields, str(path), "correct it")
    return found


class _Fields(Struct):
    """The fields of a task's YAML (included files, data set and splits, output type, metrics, generation arguments,
    number of few-shot examples) whose types are checked here, since lm-eval does not check them."""

    include: str | list[str] | None = None
    dataset_path: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    test_split: str | None = None
    validation_split: str | None = None
    training_split: str | None = None
    fewshot_split: str | None = None
    output_type: str | None = None
    metric_list: list[str | dict[str, Any]] | None = None
    generation_kwargs: dict[str, Any] | None = None
    num_fewshot: int | None = None


def _size(data: Any, most: int = NODES) -> int:
    """Number of values in the nested lists and dictionaries `data`; counting stops at about `most`. References in a
    YAML (`&a`, `*a`) can turn few bytes into very many values."""
    found = 1
    for each in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        if found > most:
            break
        found += _size(each, most - found)
    return found


def _includes(path: Path) -> list[str]:
    found = _raw_yaml(path).get("include") or []
    return [found] if isinstance(found, str) else found


def _dependencies(path: Path) -> dict[str, Path]:
    """Name in the stored copy -> path, for each file that a task's YAML depends on: included YAML files, and the Python
    modules that `!function` names, in the YAML or in an included file. ValueError for an include in another folder."""
    found: dict[str, Path] = {}
    for module in re.findall(r"!function\s+([\w.]+)\.\w+", read_text(path)):
        name = f"{module.replace('.', '/')}.py"
        if (path.parent / name).is_file():
            found[name] = path.parent / name
    for name in _includes(path):
        if Path(name).name != name:
            raise ValueError(
                f"{path} includes {name!r} from another folder; copy that file into the task's folder, and include"
                " it by its name alone"
            )
        found |= {name: path.parent / name, **_dependencies(path.parent / name)}
    return found


def _data_files(path: Path) -> dict[str, Path]:
    """Name in the YAML -> path, for each local data file of a task and its included files; the names are paths relative
    to the YAML or to the working directory."""
    found: dict[str, Path] = {}
    for yaml in [path.name, *_includes(path)]:
        for name in _flat(
            (_raw_yaml(path.parent / yaml).get("dataset_kwargs") or {}).get("data_files") or []
        ):
            beside = path.parent / name
            found[name] = beside if beside.is_file() else Path(name)
    return found
