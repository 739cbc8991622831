"""Checks of a GGUF file: of its header before the package `gguf` reads the file, and of the places of its tensors.

The package trusts every count and length in the file: with a wrong one it runs without end, or reads the numbers of
another tensor. The format is described by gguf.md in ggml-org/ggml; as in ggml's own reader
(ggml-org/ggml@db7cfae src/gguf.cpp: gguf_init_from_reader), the tensors must follow one another without gaps.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from repro.core.errors import nearest
from repro.core.reading import regular

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type of a value of one size -> its bytes."""
DIMENSIONS = 4
"""Most dimensions of a tensor (GGML_MAX_DIMS in ggml-org/ggml@db7cfae src/gguf.cpp: gguf_init_from_reader)."""
COPY = "copy the file from its source again"


class _Cursor:
    """A reading position in a file, which moves forward and never past the file's end; `left`: number of bytes from the
    position to the end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.left = path, file, path.stat().st_size

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the file; ValueError if fewer are left."""
        self._move(count)
        return self.file.read(count)

    def skip(self, count: int) -> None:
        """Move past the next `count` bytes of the file without reading them; ValueError if fewer are left."""
        self._move(count)
        self.file.seek(count, 1)

    def number(self, form: str) -> int:
        """The unsigned integer in the next bytes of the file; `form`: its format in the module `struct`, "I" for 32
        bits, "Q" for 64."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def _move(self, count: int) -> None:
        if count > self.left:
            raise ValueError(
                f"{self.path} is truncated or not a GGUF file ({count} bytes are missing after byte"
                f" {self.file.tell()}); {COPY}"
            )
        self.left -= count


def check_header(path: Path) -> None:
    """Raise ValueError, which names the file, if it is no GGUF file, or if a count or length in its header is wrong."""
    with open(regular(path), "rb") as file:
        cursor = _Cursor(path, file)
        magic = cursor.take(min(len(MAGIC), cursor.left))
        if magic != MAGIC:
            raise ValueError(f"{path} is not a GGUF file (it begins with {magic!r}); {COPY}")
        version, tensors, pairs = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
        if version not in VERSIONS:
            raise ValueError(
                f"{path} has version {version} of the GGUF format; {nearest(str(version), map(str, VERSIONS))}"
            )
        for _ in range(pairs):
            cursor.skip(cursor.number("Q"))
            _skip_value(cursor, cursor.number("I"))
        for _ in range(tensors):
            _skip_tensor(cursor)


def _skip_value(cursor: _Cursor, kind: int) -> None:
    """Move `cursor` past one value of the metadata; `kind`: number of its type in the GGUF format."""
    if kind == STRING:
        return cursor.skip(cursor.number("Q"))
    if kind != ARRAY:
        return cursor.skip(_size(cursor, kind))
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner != STRING:
        return cursor.skip(count * _size(cursor, inner))
    for _ in range(count):
        cursor.skip(cursor.number("Q"))


def _size(cursor: _Cursor, kind: int) -> int:
    if kind not in SIZES:
        raise ValueError(
            f"{cursor.path}: a value of type {kind} in the metadata is not supported; convert the weights again"
        )
    return SIZES[kind]


def _skip_tensor(cursor: _Cursor) -> None:
    """Move `cursor` past the description of one tensor in the header."""
    name = cursor.take(cursor.number("Q"))
    count = cursor.number("I")
    if count > DIMENSIONS:
        raise ValueError(
            f"{cursor.path}: tensor {name[:100]!r} has {count} dimensions, not up to {DIMENSIONS}; {COPY}"
        )
    cursor.skip(8 * count + 4 + 8)  # dimensions, type, offset


def check_places(path: Path, reader: GGUFReader) -> None:
    """Raise ValueError, which names the tensor, unless the tensors fill the file `path` from the end of the header to
    its end, each beginning at the next multiple of the alignment. `reader`: the file, opened by the package `gguf`."""
    unit, size, last = int(reader.alignment), path.stat().st_size, int(reader.data_offset)
    end = last
    for tensor in reader.tensors:
        if tensor.data_offset != end:
            raise ValueError(
                f"{path}: tensor {tensor.name[:100]!r} begins at byte {tensor.data_offset}, the one before it ends at"
                f" {end}; {COPY}"
            )
        last = end + int(tensor.n_bytes)
        end = -(-last // unit) * unit
    if size not in (last, end):  # without the padding of the last tensor, or with it
        raise ValueError(f"{path} has {size} bytes, but its tensors end at byte {end}; {COPY}")
