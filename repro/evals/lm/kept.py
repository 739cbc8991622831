"""A person's own lm-eval YAML, kept by content: runs/tasks/<digest> holds what an answer depends on, and no path does.

    digest = keep(Path("my_tasks/capitals.yaml"))     # copies it with its includes, functions and local data files
    config(digest)                                    # what lm-eval takes, data files by their absolute place

Editing the YAML or its data makes another digest, hence another question; an old answer can still be asked again.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from filelock import FileLock

from repro.core.files import atomically, runs

MAIN = "task.yaml"
DATA = "data"


def keep(path: Path) -> str:
    """Copy a task and all that it names; returns the SHA-256 of the copies. ValueError names a file that is missing."""
    files = {MAIN: path, **_company(path), **{f"{DATA}/{file.name}": file for file in _data_files(path)}}
    content = hashlib.sha256()
    for name in sorted(files):
        if not files[name].is_file():
            raise ValueError(f"{path} names {files[name].name!r}, which is no file beside it")
        data = files[name].read_bytes()
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    digest = content.hexdigest()
    folder = _folder(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if not folder.is_dir():
            with atomically(folder) as temporary:
                for name, file in files.items():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / name).write_bytes(file.read_bytes())
    return digest


def config(digest: str) -> dict[str, Any]:
    """The kept task as lm-eval takes it. ValueError when this machine does not hold it."""
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = _folder(digest)
    if not folder.is_dir():
        raise ValueError(
            f"no kept task {digest[:16]} in {folder.parent}; name its YAML again with --tasks FILE.yaml"
        )
    found = load_yaml(folder / MAIN)
    given = dict(found.get("dataset_kwargs") or {})
    cache = {"cache_dir": str((runs() / "data" / "lm_eval").absolute())}
    if "data_files" in given:
        given["data_files"] = _placed(given["data_files"], folder / DATA)
    return found | {"dataset_kwargs": given | cache}


def _folder(digest: str) -> Path:
    return runs() / "tasks" / digest[:16]


def _placed(files: Any, folder: Path) -> Any:
    """Data files (a name, a list, or by split) with their absolute places."""
    if isinstance(files, dict):
        return {split: _placed(each, folder) for split, each in files.items()}
    if isinstance(files, list):
        return [_placed(each, folder) for each in files]
    return str((folder / Path(files).name).absolute())


def _plain(path: Path) -> dict[str, Any]:
    """A YAML as it stands: functions as text, includes not followed. ValueError in one line when it cannot be read."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return load_yaml(path, resolve_func=False, recursive=False)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _includes(path: Path) -> list[str]:
    found = _plain(path).get("include") or []
    return [found] if isinstance(found, str) else found


def _company(path: Path) -> dict[str, Path]:
    """Name in the copy -> file, for includes and the modules of `!function`, wherever an include names them."""
    found: dict[str, Path] = {}
    for module in re.findall(r"!function\s+([\w.]+)\.\w+", path.read_text("utf-8")):
        name = f"{module.replace('.', '/')}.py"
        if (path.parent / name).is_file():
            found[name] = path.parent / name
    for name in _includes(path):
        if Path(name).name != name:
            raise ValueError(f"{path} includes {name!r}; put it beside the task")
        found |= {name: path.parent / name, **_company(path.parent / name)}
    return found


def _data_files(path: Path) -> list[Path]:
    """Local data files of a task and its includes, beside the YAML or from the working directory."""
    found: list[Path] = []
    for name in [path.name, *_includes(path)]:
        files = (_plain(path.parent / name).get("dataset_kwargs") or {}).get("data_files") or []
        flat = list(files.values()) if isinstance(files, dict) else files
        for each in [flat] if isinstance(flat, str) else flat:
            for one in [each] if isinstance(each, str) else each:
                beside = path.parent / one
                found.append(beside if beside.is_file() else Path(one))
    return found
