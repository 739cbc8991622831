"""Text of tables: Markdown pages, CSV files, values with their uncertainties, and tokens per step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.core.stats import NORMAL, Interval

if TYPE_CHECKING:
    from pandas import DataFrame

ROUNDING = 1e-12
"""Share of a value below which an uncertainty is the rounding of equal numbers."""


def page(title: str, *parts: str) -> str:
    """Markdown of a page: its heading and its parts (paragraphs, headings of sections, tables)."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def grid(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Markdown of a table with the columns `header` and a row for each list of cells in `lines`; the text of a cell is
    printed as it is."""
    from tabulate import tabulate

    return tabulate(lines, headers=header, tablefmt="github", disable_numparse=True)


def csv_text(numbers: DataFrame) -> str:
    """CSV text of a frame, with at most six significant digits; a NaN is an empty field."""
    return numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def per_step(tokens: str) -> str:
    """Text `1 token per step` of a label of planned tokens per step (a number, or `all`)."""
    return f"{tokens} token{'' if tokens == '1' else 's'} per step"


def measured(value: float, se: float, sd_seeds: float) -> str:
    """Text `1.8790 ± 0.0080, sd 0.0124` of a value, half of its 95 % interval (1.96 standard errors) and its standard
    deviation over train seeds, rounded to two digits of the smaller uncertainty. Uncertainties that are NaN or mere
    rounding (below `ROUNDING` times the value) are left out; without any, the value has four significant digits. A NaN
    value gives ""."""
    if math.isnan(value):
        return ""
    half, sd_seeds = (
        math.nan if 0 < error <= ROUNDING * abs(value) else error for error in (NORMAL * se, sd_seeds)
    )
    known = [error for error in (half, sd_seeds) if error > 0]
    if not known:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(min(known))))
    text = f"{value:.{digits}f}"
    if not math.isnan(half):
        text += f" ± {half:.{digits}f}"
    return f"{text}, sd {sd_seeds:.{digits}f}" if sd_seeds > 0 else text


def proportion(value: float, interval: Interval, sd_seeds: float) -> str:
    """Text `0.950 [0.887, 0.978], sd 0.011` of a share of items, its interval and its standard deviation over train
    seeds, which is left out where it is zero or NaN."""
    cell = f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{cell}, sd {sd_seeds:.3f}" if sd_seeds > 0 else cell
