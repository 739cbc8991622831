"""A data source with its number of training rows as a setting, so that cost plans need not prepare a large corpus.

Counted(data=Packed(documents=Hub(...), ...), rows=8_700_000)
"""

from __future__ import annotations

from repro.core.parts import part
from repro.data.corpus import DelegatedData


@part
class Counted(DelegatedData):
    """The data source `data`, with `rows` as its expected number of training rows. Only cost plans use the number; the
    rows that training reads are those of `data`, however many there are."""

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows={self.rows} is not a number of training rows; give 1 or more")

    def expected_rows(self) -> int:
        return self.rows
