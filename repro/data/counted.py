"""A source of rows that is too large to be prepared for the sake of a plan: how many rows are expected is pinned.

    Counted(data=Packed(documents=Hub(...), ...), rows=8_700_000)

Only plans read the number; everything else is the source's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from repro.core.parts import part
from repro.data.corpus import Data, Rows, Vocabulary


@part
class Counted(Data):
    """`data`, of which `rows` training rows are expected."""

    data: Data
    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows={self.rows} are no rows; give the number that is expected")

    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary()

    def row_length(self) -> int:
        return self.data.row_length()

    def expected_rows(self) -> int:
        return self.rows

    def resolve(self) -> dict[str, str | int]:
        return {f"data.{pin}": value for pin, value in self.data.resolve().items()}

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return self.data.build()

    def splits(self) -> Iterator[tuple[Literal["train", "heldout"], Iterable[Rows]]]:
        return self.data.splits()

    def encode(self, text: str) -> list[int]:
        return self.data.encode(text)

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        return self.data.encode_each(texts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.data.decode(ids)

    def clusters(self, example: np.ndarray) -> np.ndarray:
        return self.data.clusters(example)

    def prompt(self, text: str) -> list[int]:
        return self.data.prompt(text)
