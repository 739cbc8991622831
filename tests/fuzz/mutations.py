"""What can be wrong with a file: changes of its text, its bytes, its kind, and of each value in it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], None]

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "1e9": 10**9,
    "1e30": 10**30,
    "text": "zzz",
    "empty": "",
    "list": [],
    "object": {},
    "nested": [[{"a": []}]],
    "up": "../../../etc/passwd",
    "nan": float("nan"),
    "inf": float("inf"),
}
"""Name -> JSON value that replaces a value."""


def kinds(name: str) -> Iterator[tuple[str, Spoil]]:
    """Something else in place of the file `name`: nothing, a folder, a FIFO, a device, links."""

    def gone(make: Callable[[Path], None]) -> Spoil:
        def spoil(folder: Path) -> None:
            (folder / name).unlink()
            make(folder / name)

        return spoil

    yield "missing", gone(lambda path: None)
    yield "folder", gone(Path.mkdir)
    yield "fifo", gone(os.mkfifo)
    yield "link loop", gone(lambda path: path.symlink_to(path.name))
    yield "dangling link", gone(lambda path: path.symlink_to("nowhere"))
    yield "endless device", gone(lambda path: path.symlink_to("/dev/zero"))
    yield "empty device", gone(lambda path: path.symlink_to("/dev/null"))


def texts(name: str) -> Iterator[tuple[str, Spoil]]:
    """Changes of the bytes of the text file `name`."""

    def of(change: Callable[[bytes], bytes]) -> Spoil:
        def spoil(folder: Path) -> None:
            path = folder / name
            path.write_bytes(change(path.read_bytes()))

        return spoil

    changes: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "blank": lambda data: b"  \n\n",
        "first half": lambda data: data[: len(data) // 2].rstrip()[:-1],
        "without its end": lambda data: data.rstrip()[:-1],
        "junk at the end": lambda data: data + b"\n}x",
        "BOM": lambda data: b"\xef\xbb\xbf" + data,
        "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
        "Latin-1": lambda data: data[: len(data) // 2] + b"\xe9\xff" + data[len(data) // 2 :],
        "NUL": lambda data: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :],
        "binary": lambda data: bytes(range(256)) * 8,
        "HTML": lambda data: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "git lfs": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "null": lambda data: b"null",
        "number": lambda data: b"3",
        "list": lambda data: b"[]",
        "object": lambda data: b"{}",
        "string": lambda data: b'"text"',
        "deep lists": lambda data: b"[" * 200_000,
        "deep objects": lambda data: b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        "long number": lambda data: b'{"a": ' + b"9" * 6000 + b"}",
        "surrogate": lambda data: b'{"a": "\\ud800"}',
        "YAML bomb": lambda data: b"a: &a [x, x]\nb: &b [*a, *a]\n" * 3,
    }
    for what, change in changes.items():
        yield what, of(change)


def doubled(name: str) -> Iterator[tuple[str, Spoil]]:
    """Each key of the JSON object in the file `name` a second time, with another value."""

    def of(key: str) -> Spoil:
        def spoil(folder: Path) -> None:
            path = folder / name
            text = path.read_text("utf-8").lstrip()
            path.write_text("{" + f"{json.dumps(key)}: 7, " + text[1:], "utf-8")

        return spoil

    def source(folder: Path) -> list[str]:
        return list(json.loads((folder / name).read_text("utf-8")))

    yield "first key twice", lambda folder: of(source(folder)[0])(folder)
    yield "last key twice", lambda folder: of(source(folder)[-1])(folder)


def places(data: Any, depth: int = 4, wide: int = 6) -> Iterator[tuple[Any, ...]]:
    """Paths of the values in JSON data, to a depth; of a long list or object only the first `wide`."""
    if depth == 0:
        return
    items = (
        list(data.items())
        if isinstance(data, dict)
        else list(enumerate(data))
        if isinstance(data, list)
        else []
    )
    for key, value in items if depth == 4 else items[:wide]:
        yield (key,)
        yield from ((key, *rest) for rest in places(value, depth - 1, wide))


def replaced(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """JSON data with the value at a place replaced; it shares with `data` what is not on the way to the place."""
    found = copy.copy(data)
    found[place[0]] = value if len(place) == 1 else replaced(data[place[0]], place[1:], value)
    return found


def without(data: Any, place: tuple[Any, ...]) -> Any:
    """JSON data without the value at a place, as `replaced`."""
    holder = copy.copy(_at(data, place[:-1]))
    del holder[place[-1]]
    return replaced(data, place[:-1], holder) if len(place) > 1 else holder


def values(data: Any) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """(what, place, the changed data) for each place in JSON data and each of `VALUES`, and for its absence."""
    for place in places(data):
        called = ".".join(map(str, place))
        yield f"{called} missing", place, without(data, place)
        for what, value in VALUES.items():
            if (type(value), value) != (type(now := _at(data, place)), now):
                yield f"{called}={what}", place, replaced(data, place, value)


def _at(data: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        data = data[step]
    return data


def write_json(name: str, data: Any) -> Spoil:
    """Write JSON (NaN and infinity as Python's `NaN` and `Infinity`) in place of the file `name`."""

    def spoil(folder: Path) -> None:
        (folder / name).write_text(json.dumps(data), "utf-8")

    return spoil
