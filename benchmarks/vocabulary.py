"""Time and memory of a training step by vocabulary size: where fused head and sparse soft tokens begin to pay off
(docs/method.md#cost-duo-step).

`paper_figures/vocabulary.py` draws these rows. A ratio below 1 means that the dense step is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from benchmarks.duo import DuoStep
from benchmarks.masked import MaskedStep
from benchmarks.row import Row, Side, against, peak_bytes

SIZES = (1_024, 4_096, 16_384, 50_368, 126_464)
"""Vocabulary sizes: three powers of two, ModernBERT's, LLaDA's."""


@dataclass(frozen=True)
class VocabularyRow(Row):
    """A row with its training step, vocabulary size, and quantity (MiB: peak memory beyond the weights)."""

    step: Literal["duo", "masked"]
    vocabulary: int
    quantity: Literal["seconds", "MiB"]


def vocabulary(repeats: int) -> list[Row]:
    """Time and memory of both training steps at every vocabulary size; the target is to be no worse than the dense
    step."""
    found: list[Row] = []
    for vocab_size in SIZES:
        duo, masked = DuoStep(vocab_size), MaskedStep(vocab_size)
        found += _rows("duo", vocab_size, duo.name, duo.ours, duo.script, repeats, duo.agreement)
        found += _rows(
            "masked", vocab_size, masked.name, masked.ours, masked.everywhere, repeats, masked.agreement
        )
    return found


def _rows(
    step: Literal["duo", "masked"],
    vocab_size: int,
    name: str,
    ours: Side,
    dense: Side,
    repeats: int,
    agreement: Callable[[], str],
) -> list[Row]:
    """Rows of seconds and of MiB of one step; the runs that measure agreement warm up those that measure memory."""
    agreed = agreement()
    mine, theirs = (peak_bytes(side) / 2**20 for side in (ours, dense))
    memory = Row(f"{name}: peak memory beyond the weights, MiB", mine, theirs, theirs / mine, 1.0, agreed)
    others = (
        ["theirs"] if step == "duo" else []
    )  # the reference script's step; the other is a variant of ours
    time = against({"ours": ours, "theirs": dense}, repeats, others).row(name, 1.0, agreed)
    return [
        VocabularyRow(**asdict(row), step=step, vocabulary=vocab_size, quantity=quantity)
        for row, quantity in ((time, "seconds"), (memory, "MiB"))
    ]
