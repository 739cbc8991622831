"""Tests whether the rows of a sampler's calls are independent draws of one law, whatever the seed and size of the call.

Three tests, on calls of a few steps each, find what the law of all rows together does not show:

    spread       do calls differ as much as independent rows make them: not more (rows that share a draw), and not
                 less (systematic or antithetic rows); chi-square of sentences by call, two-sided
    neighbours   does a row depend on the next one, the next but one, the one half a call away, or the same row of the
                 next seed; chi-square of pairs of classes of sentences, two-sided (Bartlett 1951 for pairs that
                 overlap); rare classes are merged until every pair is expected `EXPECTED` times (Cochran 1954), since
                 otherwise a single pair of two rare classes could decide the statistic
    sizes        do calls of few rows have the law of calls of many; chi-square of the two samples

Classes are not merged in `spread` and `sizes`, which compare calls of given sizes.

Two further tests need no statistics: the same seed gives the same rows, and another seed gives other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.space import Enumerated, Noise, Space
from repro.certify.verdict import ALPHA, Check, Effort
from repro.core.errors import counted
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

STEPS = (1, 8)
ROWS = 500
"""Rows of each large call."""
SIZES = (99, 1, 99, 3, 99, 10, 99, 31)
"""Numbers of rows of the small calls, used in turn."""
SMALL_STEPS = 16
"""Steps of the small calls."""
BINS = 9
"""Number of classes of sentences, by the first two of their three tokens; pairs of classes are counted."""
EXPECTED = 5
"""Least expected number of each pair of classes."""
FIRST_SEED = 40_000


def row_checks(
    foreign: Foreign, noise: Noise, source: Enumerated, large: Tensor, effort: Effort
) -> list[Check]:
    """All checks that the rows of a sampler's calls are independent draws of one law, with the denoiser of the
    enumerated law `source`. `large` [S]: how often each sentence was drawn in large calls of 16 (SMALL_STEPS) steps,
    with which small calls are compared."""
    space = Space(noise, source, foreign.meaning)
    seeds = _seeds(foreign, space, noise)
    if not seeds.stands:
        return [seeds]
    checks = [seeds]
    for steps in STEPS:
        calls = [
            source.cell(foreign.ids(space, ROWS, steps, FIRST_SEED + i)) for i in range(effort.row_calls)
        ]
        checks += [_spread(noise, calls, steps), _neighbours(noise, calls, steps, len(source.law))]
    return [*checks, _sizes(foreign, space, noise, source, large, effort)]


def _seeds(foreign: Foreign, space: Space, noise: Noise) -> Check:
    one, again, other = (foreign.ids(space, 200, 8, FIRST_SEED + seed) for seed in (0, 0, 1))
    if not bool((one == again).all()):
        says, stands = (
            "the same seed gives other rows the second time: draws must come from `seed` alone",
            False,
        )
    elif bool((one == other).all()):
        says, stands = "two seeds give the same rows", False
    else:
        says, stands = "a seed gives the same rows again, another seed gives others", True
    return Check(name=f"seeds, {noise}", stands=stands, says=says, false_alarm=0.0)


def _two_sided(statistic: float, freedom: int) -> float:
    from scipy.stats import chi2

    return float(2 * min(chi2.sf(statistic, freedom), chi2.cdf(statistic, freedom)))


def _chi_square(table: Tensor) -> tuple[float, int]:
    """Statistic and degrees of freedom of the chi-square test that rows and columns of a table of counts are
    independent; empty rows and columns are left out."""
    table = table[table.sum(1) > 0][:, table.sum(0) > 0].double()
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    return ((table - expected) ** 2 / expected).sum().item(), (table.shape[0] - 1) * (table.shape[1] - 1)


def _spread(noise: Noise, calls: Sequence[Tensor], steps: int) -> Check:
    cells = max(int(call.max()) for call in calls) + 1
    statistic, freedom = _chi_square(torch.stack([torch.bincount(call, minlength=cells) for call in calls]))
    p = _two_sided(statistic, freedom) if freedom else 1.0
    less = "less" if statistic < freedom else "more"
    return Check(
        name=f"spread of calls, {counted(steps, 'step')}, {noise}",
        stands=p > ALPHA,
        says=f"{len(calls)} calls of {len(calls[0])} rows differ by chi-square {statistic:.0f} on {freedom} degrees"
        + ("" if p > ALPHA else f": {less} than independent rows do"),
        false_alarm=ALPHA,
    )


def _neighbours(noise: Noise, calls: Sequence[Tensor], steps: int, cells: int) -> Check:
    worst, where, tests = 1.0, "", 0
    for name, left, right in _pairs([call * BINS // cells for call in calls]):
        statistic, freedom = _chi_square(_merged(torch.bincount(left * BINS + right, minlength=BINS**2)))
        p = _two_sided(statistic, freedom) if freedom else 1.0
        tests += 1
        if p < worst:
            worst, where = p, f"rows {name}: chi-square {statistic:.0f} on {freedom} degrees"
    stands = worst > ALPHA / tests
    return Check(
        name=f"neighbours, {counted(steps, 'step')}, {noise}",
        stands=stands,
        says=f"{'no row depends on' if stands else 'rows depend on'} its neighbours ({where})",
        false_alarm=ALPHA,
    )


def _merged(counts: Tensor) -> Tensor:
    """Contingency table [classes, classes] of the counts [BINS^2] of pairs of sentence classes. The rarest classes are
    merged until independent rows would give every pair at least 5 (EXPECTED) times on average; what is merged depends
    on the table's row and column sums alone."""
    table = counts.view(BINS, BINS)
    while len(table) > 1:
        sizes = (table.sum(0) + table.sum(1)).argsort()
        table = table[sizes][:, sizes]
        if table.sum(1).min() * table.sum(0).min() >= EXPECTED * table.sum():
            break
        table = torch.cat([table[:2].sum(0, keepdim=True), table[2:]])
        table = torch.cat([table[:, :2].sum(1, keepdim=True), table[:, 2:]], 1)
    return table


def _pairs(calls: Sequence[Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of rows that should be independent, as triples: name of the relation of the two rows (such as `two apart`),
    classes of the first rows, classes of the second rows. `calls`: for each call the class of every row, which is the
    number of a group of sentences."""
    half = len(calls[0]) // 2
    for name, lag in (("next to each other", 1), ("two apart", 2), ("half a call apart", half)):
        yield name, torch.cat([call[:-lag] for call in calls]), torch.cat([call[lag:] for call in calls])
    for first, name in ((0, "of the next seed, after even ones"), (1, "of the next seed, after odd ones")):
        even, odd = calls[first:-1:2], calls[first + 1 :: 2]
        yield name, torch.cat(list(even)), torch.cat(list(odd))


def _sizes(
    foreign: Foreign, space: Space, noise: Noise, source: Enumerated, large: Tensor, effort: Effort
) -> Check:
    counts = torch.zeros_like(large)
    for i in range(effort.small_calls):
        ids = foreign.ids(space, SIZES[i % len(SIZES)], SMALL_STEPS, 2 * FIRST_SEED + i)
        counts += torch.bincount(source.cell(ids), minlength=len(large))
    statistic, freedom = _chi_square(torch.stack([counts, large]))
    from scipy.stats import chi2

    p = float(chi2.sf(statistic, freedom))
    return Check(
        name=f"sizes of calls, {noise}",
        stands=p > ALPHA,
        says=f"{int(counts.sum()):,} rows of calls of {min(SIZES)} to {max(SIZES)} rows against {int(large.sum()):,} of"
        f" large calls, {SMALL_STEPS} steps: chi-square {statistic:.0f} on {freedom} degrees",
        false_alarm=ALPHA,
    )
