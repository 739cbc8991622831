"""Temporary storage on disk for the token ids of a data source that is read in one order and written in another, and
may be larger than memory.

with Spool(np.dtype(np.uint32)) as spool:
    spool.append(ids)           array 0, [length]
    again = spool.read()
    again[0]                    equal to ids
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Self

import numpy as np

from repro.core.files import runs


class Spooled:
    """Arrays of ids, stored one after another in the memory-mapped `flat` [total]; array i begins at
    `flat[starts[i]]`."""

    def __init__(self, flat: np.ndarray, starts: np.ndarray) -> None:
        self.flat, self.starts = flat, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.starts[i] : self.starts[i + 1]]


class Spool:
    """Context manager that holds arrays of ids of type `dtype` in a temporary file under runs/data. The file has no
    name, so nothing is left of it after the process has ended, however it ends.

    Raises OSError for a full disk.
    """

    def __init__(self, dtype: np.dtype) -> None:
        place = runs() / "data"
        place.mkdir(parents=True, exist_ok=True)
        self.dtype, self.stops = dtype, [0]
        self.file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 (closed by `__exit__`)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def append(self, ids: np.ndarray) -> None:
        """Write the array `ids` [length]; ValueError for an id that `dtype` cannot hold."""
        narrow = ids.astype(self.dtype)
        if not np.array_equal(narrow, ids):
            raise ValueError(
                f"ids from {ids.min()} to {ids.max()} do not fit {self.dtype}; set a larger vocabulary size"
            )
        self.file.write(narrow.data)
        self.stops.append(self.stops[-1] + len(ids))

    def read(self) -> Spooled:
        """All arrays, memory-mapped; valid while the spool is open."""
        self.file.flush()
        # an empty file cannot be mapped
        flat = np.memmap(self.file, self.dtype, "r") if self.stops[-1] else np.empty(0, self.dtype)
        return Spooled(flat, np.array(self.stops))
