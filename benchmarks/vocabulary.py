"""Time and memory of a training step by vocabulary: where fused head and sparse soft tokens begin to pay
(docs/method.md#cost-duo-step).

`paper_figures/vocabulary.py` draws these rows. A ratio below 1 says that the dense step is the better one there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from benchmarks.duo import DuoStep
from benchmarks.masked import MaskedStep
from benchmarks.row import Row, Side, interleaved, peak_bytes

SIZES = (1_024, 4_096, 16_384, 50_368, 126_464)
"""V: two powers, a small BPE, ModernBERT's, LLaDA's."""


@dataclass(frozen=True)
class VocabularyRow(Row):
    """A row that says what it measured: which step, V, seconds or MiB beyond the weights."""

    step: Literal["duo", "masked"]
    vocabulary: int
    quantity: Literal["seconds", "MiB"]


def vocabulary(repeats: int) -> list[Row]:
    """Both steps at every size, time and memory; the target is to be no worse than dense."""
    found: list[Row] = []
    for count in SIZES:
        duo, masked = DuoStep(count), MaskedStep(count)
        found += _rows("duo", count, duo.name, duo.ours, duo.script, repeats, duo.agreement)
        found += _rows(
            "masked", count, masked.name, masked.ours, masked.everywhere, repeats, masked.agreement
        )
    return found


def _rows(
    step: Literal["duo", "masked"],
    count: int,
    name: str,
    ours: Side,
    dense: Side,
    repeats: int,
    agreement: Callable[[], str],
) -> list[Row]:
    """Seconds and MiB of one step at one V; the agreement's own runs are the warm-up of the memory's."""
    agreed = agreement()
    mine, theirs = (peak_bytes(side) / 2**20 for side in (ours, dense))
    memory = Row(f"{name}: peak memory beyond the weights, MiB", mine, theirs, theirs / mine, 1.0, agreed)
    time = interleaved(name, ours, dense, 1.0, repeats, agreed)
    return [
        VocabularyRow(**asdict(row), step=step, vocabulary=count, quantity=quantity)
        for row, quantity in ((time, "seconds"), (memory, "MiB"))
    ]
