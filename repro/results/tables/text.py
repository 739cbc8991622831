"""Numbers as text: CSV and uncertainties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def csv_text(numbers: DataFrame) -> str:
    """CSV with at most six significant digits; an unknown number is empty."""
    return numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def measured(value: float, se: float, sd_seeds: float) -> str:
    """`1.8790 ± 0.0041, sd 0.0124` (standard error, standard deviation over seeds): two digits of the smaller
    uncertainty; four significant digits of a value without one, "" for NaN."""
    if math.isnan(value):
        return ""
    known = [error for error in (se, sd_seeds) if error > 0]
    if not known:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(min(known))))
    text = f"{value:.{digits}f}"
    if not math.isnan(se):
        text += f" ± {se:.{digits}f}"
    return f"{text}, sd {sd_seeds:.{digits}f}" if sd_seeds > 0 else text
