"""A data source with a pinned number of training rows, so that plans need not prepare a large corpus.

Counted(data=Packed(documents=Hub(...), ...), rows=8_700_000)
"""

from __future__ import annotations

from repro.core.parts import part
from repro.data.corpus import DelegatedData


@part
class Counted(DelegatedData):
    """`data`, of which `rows` training rows are expected; used in plans only."""

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows={self.rows} is not a number of rows; give the expected number")

    def expected_rows(self) -> int:
        return self.rows
