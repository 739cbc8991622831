"""Result of a comparison of the reproduction test, and its text in a terminal: a table, or lines of text where the
terminal is too narrow for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class ReproductionResult:
    """Result of one comparison of a cell: whether it is `paired` (of train seeds that are committed too), the mean of
    `n` `committed` values, the mean `yours` of your run, its prediction interval (`low`, `high`), the smallest
    `detectable` change (half the interval), Student's `t`, and the adjusted p-value `p`.

    `verdict`: good, BAD, unfinished (no number differs, but your run stopped before the committed number of steps),
    missing (your run has no such record) or untested (too few committed values).
    """

    name: str
    metric: str
    paired: bool
    committed: float | None
    n: int
    yours: float | None
    low: float | None
    high: float | None
    detectable: float | None
    t: float | None
    p: float | None
    verdict: str


def render(results: Sequence[ReproductionResult]) -> Table:
    """Table of the results of the reproduction test for the terminal, one line per comparison."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("cell", "seeds", "metric", "committed", "yours", "expected", "detects", ""):
        left = name in ("cell", "seeds", "metric", "")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    styles = {"good": "green", "BAD": "bold red"}
    for row in results:
        *cells, verdict = _cells(row)
        table.add_row(*cells, f"[{styles.get(verdict, 'yellow')}]{verdict}[/]")
    return table


def in_words(results: Sequence[ReproductionResult]) -> Iterator[str]:
    """Lines of text with the results of the reproduction test, one per comparison, for a terminal that is too narrow
    for the table."""
    for name, seeds, metric, committed, yours, expected, detects, verdict in map(_cells, results):
        yield f"{verdict}  {name}, {metric} ({seeds} seeds): yours {yours}, expected {expected}," + (
            f" committed {committed}, detects {detects}"
        )


def _cells(row: ReproductionResult) -> tuple[str, ...]:
    """Texts for one comparison: name, seeds ("paired": those of the committed runs; "others": other ones), metric,
    committed value, value of your run, the interval in which that is expected, detectable change, verdict."""
    return (
        row.name,
        "paired" if row.paired else "others",
        row.metric,
        f"{row.committed:.5g} ({row.n})" if row.committed is not None else f"- ({row.n})",
        f"{row.yours:.5g}" if row.yours is not None else "-",
        f"{row.low:.5g} .. {row.high:.5g}" if row.low is not None else "-",
        f"{row.detectable:.1g}" if row.detectable is not None else "-",
        row.verdict,
    )
