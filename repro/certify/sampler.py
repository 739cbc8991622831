"""Certificate of a foreign sampler: tests of the law that it draws from, given an exact denoiser.

A sampler that only *converges* to the law differs from it at any number of steps, so a test of equality would reject it
given enough rows. The null hypothesis is therefore

    chi-square distance to the law at the last number of steps  <=  4 x that of ancestral sampling with as many steps

(which is at most twice as far in total variation). On its boundary the statistic has a noncentral chi-square law, so
the false-alarm rate holds for every sampler that converges at least as well as ancestral sampling, with any schedule. A
bias that steps do not remove is rejected given enough rows. By Cauchy-Schwarz, chi-square distance >= 4 TV^2, so from
some total variation on *any* bias is detected; the certificate prints it.

Further tests: whether the rows of a call are independent, whether long sentences have the right bigrams, and whether
tokens of probability 1e-8 are drawn (docs/method.md#oracle-34).

Symbols: n rows, L positions, S sentences, C calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.long import bigrams, long_check
from repro.certify.reference import ancestral
from repro.certify.space import (
    Enumerated,
    Noise,
    NoisyLogits,
    RareTokens,
    Space,
    Spoil,
    UnigramMixture,
    tiny,
    total_variation,
)
from repro.certify.verdict import ALPHA, POWER, Check, Effort, Evidence, Findings
from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 4.0
LENGTH = 3
SPOILED: dict[str, Spoil] = {
    **{f"mixed {weight}": UnigramMixture(weight) for weight in (0.05, 0.1, 0.2)},
    **{f"noisy {deviation}": NoisyLogits(deviation) for deviation in (0.25, 0.5, 1.0)},
}
"""Wrong denoisers, three levels of each kind: only these show errors that remasking and correctors can repair."""
CHANCE = 1e-8
RARE = 50_000
FEW = 1
"""Number of rare tokens that is too few: a correct sampler draws about 12, and at most one with probability 8e-5."""


def certify_sampler(foreign: Foreign, effort: Effort) -> Findings:
    """Checks and evidence of a sampler under every noise that it supports."""
    checks: list[Check] = []
    evidence: list[Evidence] = []
    for noise in foreign.noises:
        found, numbers = _listed(foreign, noise, effort)
        evidence += numbers
        checks += found
        if not all(check.stands for check in found if check.name.startswith("noise")):
            continue
        if foreign.claims == "law":
            check, numbers = long_check(foreign, noise, effort, SLACK)
            checks.append(check)
            evidence += numbers
            checks.append(_rare(foreign, noise, effort))
        else:
            evidence += bigrams(foreign, noise, effort)
    return Findings(tuple(checks), tuple(evidence), ())


def _listed(foreign: Foreign, noise: Noise, effort: Effort) -> tuple[list[Check], list[Evidence]]:
    """Checks and evidence from an enumerated space."""
    source = tiny(LENGTH)
    evidence: list[Evidence] = []
    by_call: Tensor | None = None
    far: list[float] = []
    for number, steps in enumerate(effort.steps):
        rows = effort.last_rows if steps == effort.steps[-1] else effort.rows
        space = Space(noise, source, foreign.meaning)
        ids = _calls(foreign, space, steps, rows, effort.call_rows, 1000 * number)
        masked = sum(int((call == source.vocab).any(1).sum()) for call in ids)
        if masked:
            says = f"{masked / rows:.1%} of the sentences sampled with {steps} steps still contain [MASK]"
            name = f"noise left, {noise}"
            check = Check(name=name, stands=False, says=says, false_alarm=0)
            return [check], evidence
        by_call = torch.stack([torch.bincount(source.cell(call), minlength=len(source.law)) for call in ids])
        far.append(total_variation(by_call.sum(0) / rows, source.law))
        evidence += _distance(source, noise, "exact", steps, by_call.sum(0))
    assert by_call is not None
    last = effort.steps[-1]
    for name, spoil in SPOILED.items():
        space = Space(noise, source, foreign.meaning, spoil)
        ids = _calls(foreign, space, effort.spoiled_steps, effort.spoiled_rows, effort.call_rows, 7)
        cells = source.cell(torch.cat(ids).clamp_max(source.vocab - 1))
        counts = torch.bincount(cells, minlength=len(source.law))
        evidence += _distance(source, noise, name, effort.spoiled_steps, counts)
    if foreign.claims == "mode":
        return [_modes(source, noise, by_call.sum(0), last)], evidence
    return [_law(source, noise, by_call.sum(0), far, effort), _independent(noise, by_call)], evidence


def _calls(foreign: Foreign, space: Space, steps: int, rows: int, size: int, seed: int) -> list[Tensor]:
    sizes = [min(size, rows - done) for done in range(0, rows, size)]
    return [foreign.ids(space, n, steps, seed + number) for number, n in enumerate(sizes)]


def _distance(source: Enumerated, noise: Noise, oracle: str, steps: int, counts: Tensor) -> list[Evidence]:
    """Total variation and KL(law || output) estimated from counts [S], with those of as many true samples and, for the
    exact denoiser, the exact total variation and path KL of ancestral sampling."""
    rows = int(counts.sum())
    u = rng.uniform(rng.keys(0, rng.SENTENCE, 3, torch.arange(rows)))
    true = torch.bincount(rng.choose(source.law.expand(rows, -1), u), minlength=len(source.law))
    best = ancestral(source, noise, steps) if oracle == "exact" else None

    def evidence(statistic: str, of: Callable[[Tensor], float], best: float | None) -> Evidence:
        return Evidence(
            statistic=statistic,
            space=f"{len(source.law)} sentences",
            noise=noise,
            oracle=oracle,
            steps=steps,
            tokens_per_step=source.length / steps,
            value=of(counts),
            true=of(true),
            best=best,
        )

    def apart(drawn: Tensor) -> float:
        return total_variation(drawn / rows, source.law)

    def divergence(drawn: Tensor) -> float:
        """KL(law || drawn) in nats, where a sentence that was never drawn counts as half a draw."""
        return (source.law * (source.law * rows / drawn.double().clamp_min(0.5)).log()).sum().item()

    return [
        evidence("total variation", apart, None if best is None else total_variation(best.law, source.law)),
        evidence("KL, path KL", divergence, None if best is None else best.path_kl),
    ]


# --- checks -------------------------------------------------------------------------------------------------


def chi_square(counts: Tensor, law: Tensor) -> float:
    """Chi-square statistic of counts [S] under a law [S]."""
    expected = law * counts.sum()
    return ((counts - expected) ** 2 / expected).sum().item()


def _law(source: Enumerated, noise: Noise, counts: Tensor, far: list[float], effort: Effort) -> Check:
    from scipy.optimize import brentq
    from scipy.stats import ncx2

    steps, rows, freedom = effort.steps[-1], int(counts.sum()), len(source.law) - 1
    best = ancestral(source, noise, steps).law
    allowed = SLACK * rows * ((best - source.law) ** 2 / source.law).sum().item()
    limit = float(ncx2.ppf(1 - ALPHA, freedom, allowed))
    found = chi_square(counts, source.law)
    seen = float(brentq(lambda nc: ncx2.sf(limit, freedom, nc) - POWER, allowed, 1e6))
    what = (
        f"{rows:,} sentences sampled with {steps} steps: chi-square {found:.0f} with {freedom} degrees of freedom,"
        f" limit {limit:.0f}"
    )
    if found > limit:
        falls = far[-1] < 0.7 * far[-2]
        what += f"; total variation {far[-1]:.3f}, {far[-2]:.3f} at {effort.steps[-2]} steps: " + (
            "still falling, so repeat with more --steps" if falls else "more steps do not remove it"
        )
    return Check(
        name=f"law, {noise}",
        stands=found <= limit,
        says=what,
        false_alarm=ALPHA,
        minimum_detectable=f"Any bias with a total variation of {math.sqrt(seen / rows) / 2:.3f} or more at {steps} "
        f"steps is detected with probability {POWER:.0%} ({noise}).",
    )


def _independent(noise: Noise, by_call: Tensor) -> Check:
    """Whether the counts of calls [C, S] differ no more than with independent rows; rows that share draws make calls
    differ more."""
    from scipy.stats import chi2

    used = by_call[:, by_call.sum(0) > 0].double()
    sizes = used.sum(1)
    expected = sizes[:, None] * used.sum(0) / used.sum()
    statistic = ((used - expected) ** 2 / expected).sum().item()
    freedom = (used.shape[0] - 1) * (used.shape[1] - 1)
    same = used.shape[0] > 1 and bool((by_call == by_call[0]).all())
    p = float(chi2.sf(statistic, freedom)) if freedom else 1.0
    says = f"chi-square between {len(by_call)} calls is {statistic:.0f} with {freedom} degrees of freedom"
    return Check(
        name=f"independent rows, {noise}",
        stands=p > ALPHA and not same,
        says="every seed gives the same sentences" if same else says,
        false_alarm=ALPHA,
    )


def _modes(source: Enumerated, noise: Noise, counts: Tensor, steps: int) -> Check:
    """Whether sentences are on average at least as likely as true ones, as a mode-seeking sampler's must be."""
    from scipy.stats import norm

    rows, nll = int(counts.sum()), -source.law.log()
    mean = (counts * nll).sum().item() / rows
    spread = ((counts * (nll - mean) ** 2).sum().item() / rows / rows) ** 0.5
    return Check(
        name=f"modes, {noise}",
        stands=mean <= source.entropy + float(norm.isf(ALPHA)) * spread,
        says=f"mean -log p is {mean:.3f} nats over {rows:,} sentences sampled with {steps} steps, and "
        f"{source.entropy:.3f} over true ones",
        false_alarm=ALPHA,
    )


def _rare(foreign: Foreign, noise: Noise, effort: Effort) -> Check:
    """Whether rare tokens are drawn: sentences of one token, with 50,000 ids of probability 1e-8; stops once enough of
    them have been drawn."""
    source, at_once = RareTokens(RARE, CHANCE), 20
    seen = rows = 0
    for number in range(-(-effort.rare_rows // at_once)):
        space = Space(noise, source, foreign.meaning)
        seen += int((foreign.ids(space, at_once, 1, 10_000 + number) > 0).sum())
        rows += at_once
        if seen > FEW:
            break
    expected = effort.rare_rows * source.mass
    return Check(
        name=f"rare tokens, {noise}",
        stands=seen > FEW,
        says=f"{seen} of {rows:,} draws are one of the {RARE:,} ids of probability {CHANCE:g}"
        + (
            "" if seen > FEW else f", {expected:.0f} are expected; draws in float32 lose them, so use float64"
        ),
        false_alarm=math.exp(-expected) * (1 + expected),
    )
