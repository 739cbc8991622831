"""Reading files that others wrote: whatever is wrong with a file is a ValueError of one line that names the file.

    config = read_json(Path("config.json"), dict)        an object; read_json(path, Struct) a typed structure
    rows = read_json_lines(Path("rows.jsonl"), Row)      one JSON value a line; errors begin with FILE:LINE
    with foreign(path, "tokenizer"):                     around the call of a library that parses the file
        tokenizer = Tokenizer.from_file(str(path))

JSON is read strictly: no key twice in an object, no NaN or infinity, at most 40 digits an integer and 64 levels of
nesting. `remedy`, an argument of most functions: the end of the error message, which says what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
import tomllib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import msgspec

DEPTH = 64
"""Levels of nesting that a file may have."""
DIGITS = 40
"""Digits that an integer may have; transformers writes 1e30 for "no limit"."""
LARGEST = 1 << 30
"""Bytes that a file of text may have."""
COPY = "copy it from its source again"
PACKED = {
    b"\x1f\x8b": "compressed (gzip)",
    b"PK\x03\x04": "an archive (zip, or a document of an office program)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"\xfd7zXZ\x00": "compressed (xz)",
    b"BZh": "compressed (bzip2)",
    b"%PDF-": "a PDF",
}
"""First bytes of a file -> what it is in place of text."""
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape in a JSON string: a surrogate pair, half of one, or another."""


def regular(path: Path) -> Path:
    """`path`, if it is a file; ValueError for a path that does not exist, and for a folder, a FIFO or a device, on
    which a reader would fail or wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # missing, a loop of links, too long; a NUL byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"{path}: {reason}; give an existing file") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}; give a file")
    return path


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; ValueError for a path that is no file, and for a file larger than 1 GiB."""
    if regular(path).stat().st_size > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes; give a smaller file")
    try:
        return path.read_bytes()
    except OSError as error:
        if error.filename is None:  # it was opened, and cannot be read
            error.filename = str(path)
        raise


def read_text(path: Path) -> str:
    """The text of a UTF-8 file without the byte order mark that some editors put before it, line ends unchanged;
    ValueError for a path that is no file, for a file larger than 1 GiB, not in UTF-8 or compressed, and for a pointer
    of Git LFS in place of the file."""
    data = read_bytes(path)
    packed = next((name for begin, name in PACKED.items() if data.startswith(begin)), None)
    if packed is not None:
        raise ValueError(f"{path} is {packed} and not text; unpack or convert it, and give the text")
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ValueError(
            f"{path} is a pointer of Git LFS and not the file; run `git lfs pull` in its repository"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8") from None


def read_json(path: Path, kind: Any = Any, remedy: str = COPY) -> Any:
    """The JSON value in a file, converted by msgspec to the type `kind`. ValueError, which ends with `remedy`, for a
    file that is not JSON or whose value is not of this type."""
    return parse_json(read_text(path), kind, str(path), remedy)


def read_json_lines(path: Path, kind: Any = Any, remedy: str = COPY) -> Iterator[Any]:
    """The JSON values in the lines of a file, each converted by msgspec to the type `kind`. ValueError `FILE:LINE:
    FAULT; REMEDY` for a line that is not JSON or whose value is not of this type; `remedy`: what to do about the
    fault."""
    for number, line in enumerate(json_lines(path), start=1):
        yield parse_json(line, kind, f"{path}:{number}", remedy)


def json_lines(path: Path) -> list[str]:
    """The lines (unparsed JSON values) of a JSON Lines file; ValueError for a file that `read_text` refuses.

    Lines end at a line feed alone: str.splitlines would also split at U+2028, U+2029 and U+0085, which may occur inside
    a JSON string.
    """
    *lines, last = read_text(path).split("\n")
    return [*lines, last] if last else lines


def parse_json(text: str | bytes, kind: Any, where: str, remedy: str = COPY, *, lenient: bool = False) -> Any:
    """The JSON value in `text`, converted by msgspec to the type `kind`. ValueError `WHERE: FAULT; REMEDY` for text
    that is not JSON or whose value is not of this type; `where`: the place of the text, such as a file's name;
    `remedy`: what to do about the fault.

    `lenient`, for answers of servers: -Infinity, which Python's own json writes, is accepted, and half of a surrogate
    pair, which JavaScript writes for half of a character, becomes U+FFFD.
    """
    try:
        if lenient:
            text = _without_halves(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_limit if lenient else _number,
            parse_float=_number,
            parse_int=_whole,
        )
        _check(found, finite=not lenient)
    except ValueError as error:
        raise ValueError(f"{where}: not sound JSON ({error}); {remedy}") from None
    except RecursionError:
        raise ValueError(f"{where}: more than {DEPTH} levels of nesting; {remedy}") from None
    return convert(found, kind, where, remedy)


def convert(data: Any, kind: Any, where: str, remedy: str = COPY) -> Any:
    """Plain data (dicts, lists, numbers, text) converted by msgspec to the type `kind`. ValueError `WHERE: FAULT;
    REMEDY` for data that are not of this type; `where`: the place of the data, such as a file's name; FAULT includes
    the path of the wrong value within the data; `remedy`: what to do about it."""
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        said = str(error).replace("`", "'").replace("$.", "")
        raise ValueError(f"{where}: {said[:1].lower()}{said[1:]}; {remedy}") from None


def finite(data: Any) -> Any:
    """Copy of plain data (mappings, lists, numbers, text) with None in place of each number that is infinite or NaN,
    which JSON lacks."""
    if isinstance(data, Mapping):
        return {name: finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def read_toml(path: Path, kind: Any = Any) -> Any:
    """The tables of a TOML file, converted by msgspec to the type `kind`. ValueError for a file that is not TOML, for
    tables that are not of this type, and for NaN and infinity."""
    text = read_text(path)
    try:
        found = tomllib.loads(text)
        _check(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct it") from None
    except RecursionError:
        raise ValueError(f"{path}: more than {DEPTH} levels of nesting; correct it") from None
    return convert(found, kind, str(path), "correct it")


@contextmanager
def foreign(path: Path, what: str, remedy: str = COPY) -> Generator[None]:
    """Context manager for the call of a library that parses the file or folder `path`, and for nothing else: whatever
    the library raises becomes a ValueError that ends with `remedy`, and what it writes to the standard error (warnings,
    progress, a panic of Rust) is discarded. `what`: what the file should be, for the message, such as "tokenizer".

    Every exception is caught because the libraries have no common type: tokenizers raises bare Exceptions, and
    BaseExceptions for panics; safetensors, pyarrow and transformers raise types of their own.
    """
    try:
        with silent():
            yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is truncated or not a {what} ({said}); {remedy}") from error


@contextmanager
def open_tensors(path: Path) -> Generator[Any]:
    """Context manager that yields the safetensors file `path`, opened by the library's `safe_open` for torch;
    ValueError for a file of another format."""
    from safetensors import safe_open

    with foreign(regular(path), "safetensors file"):
        opened = safe_open(path, "pt")
    with opened as shard:
        yield shard


_hidden: list[tuple[int, TextIO]] = []
"""For each `silent` that was entered: a copy of the file descriptor of the standard error, and Python's stream."""


@contextmanager
def silent() -> Generator[None]:
    """Context manager that discards whatever this process writes to the standard error, by Python or by a library."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    _hidden.append((kept, sys.stderr))
    try:
        yield
    finally:
        _hidden.pop()
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept), os.close(nowhere)


@contextmanager
def aloud() -> Generator[None]:
    """Context manager in which the standard error is shown also within `silent`."""
    if not _hidden:
        yield
        return
    (kept, shown), discarded, nowhere = _hidden[0], sys.stderr, os.dup(2)
    os.dup2(kept, 2)
    sys.stderr = shown
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = discarded
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object; remove one of the two")
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number; write one that is")
    return value


def _limit(text: str) -> float:
    return -math.inf if text == "-Infinity" else _number(text)


def _without_halves(text: str) -> str:
    """JSON text with U+FFFD in place of each Unicode escape that is one half of a surrogate pair and stands alone."""
    return _ESCAPE.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"{text[:20]}... has more than {DIGITS} digits; shorten the number")
    return int(text)


def _check(data: Any, depth: int = DEPTH, *, finite: bool = True) -> None:
    """Raise RecursionError for `data` with more than `depth` levels of nesting, and ValueError for text that is not
    Unicode (a lone surrogate) and, if `finite`, for a number that is not finite."""
    if isinstance(data, dict | list):
        if depth == 0:
            raise RecursionError
        for each in (*data, *data.values()) if isinstance(data, dict) else data:
            # nearly all values are numbers (infinity and NaN minus themselves are NaN) and ASCII text
            kind = type(each)
            if (
                (kind is float and each - each == 0)
                or (kind is str and each.isascii())
                or isinstance(each, int)
            ):
                continue
            if kind is float and finite:
                pairs = data.items() if isinstance(data, dict) else enumerate(data)
                key = next(key for key, value in pairs if value is each)
                raise ValueError(f"the value of {key!r} is {each}; it must be a finite number")
            _check(each, depth - 1, finite=finite)
    elif isinstance(data, str):
        if not data.isascii():
            data.encode()  # UnicodeEncodeError, a ValueError
    elif finite and isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"the value is {data}; it must be a finite number")
