"""Certificate of a foreign sampler: tests of the law that it draws from, given an exact denoiser.

A sampler that only *converges* to the law differs from it at any number of steps, so a test of equality would reject it
given enough rows. The null hypothesis is therefore

    chi-square distance to the law at the last number of steps  <=  4 x that of ancestral sampling with as many steps

(twice the total variation, for a deviation of the same shape). On its boundary the statistic has a noncentral
chi-square law, so the false-alarm rate holds for every sampler that converges at least as well as ancestral sampling,
with any schedule. A bias that steps do not remove is rejected given enough rows. By Cauchy-Schwarz, chi-square distance
>= 4 TV^2, so *any* bias above some total variation (TV) is detected; the certificate states that value.

Further tests: whether the rows of a call are independent, whether long sentences have the right bigrams, and whether
tokens of probability 1e-8 are drawn (docs/method.md#oracle-34).

Symbols: n rows, L positions, S sentences, C calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.reference import ancestral
from repro.certify.rows import SMALL_STEPS, row_checks
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
from repro.certify.verdict import ALPHA, POWER, Check, Effort, Evidence, Findings, Told, silent
from repro.core import rng
from repro.core.errors import counted
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 4.0
LENGTH = 3
MODE_GAIN = 0.1
"""Nats per sentence by which the mean -log p of a sampler that claims modes must lie below the entropy of the law."""
SPOILED: dict[str, Spoil] = {
    **{f"mixed {weight}": UnigramMixture(weight) for weight in (0.05, 0.1, 0.2)},
    **{f"noisy {deviation}": NoisyLogits(deviation) for deviation in (0.25, 0.5, 1.0)},
}
"""Wrong denoisers, three levels of each kind: only these show errors that remasking and correctors can repair."""
CHANCE = 1.4e-8
"""Probability of each rare id: an exponential race in float32, whose times are multiples of 6e-8, draws such an id far
too seldom (2 times instead of 16.8 in a certificate)."""
RARE, RARE_AT_ONCE = 250, 1000
"""Number of rare ids, and rows per call: few enough ids for a sampler that makes a matrix of all pairs of ids, and
arrays of 2 MB, since memory of larger arrays is mapped anew at each call, which would take most of the time."""


def certify_sampler(foreign: Foreign, effort: Effort, told: Told = silent) -> Findings:
    """Test a sampler under every noise that it supports, with the sample sizes `effort`: pass-or-fail checks, the
    numbers that were measured (evidence), and notes. `told` is called with a line of text as each test begins."""
    checks: list[Check] = []
    evidence: list[Evidence] = []
    for noise in foreign.noises:
        found, numbers = _listed(foreign, noise, effort, told)
        evidence += numbers
        checks += found
        if not all(check.stands for check in found if check.name.startswith("noise")):
            continue
        if effort.long_rows:
            told(f"{noise} noise: {effort.long_rows:,} long sentences at each number of steps")
            found, numbers = _long(foreign, noise, effort)
            checks += found
            evidence += numbers
        if foreign.claims == "law" and effort.rare_rows:
            told(f"{noise} noise: rare tokens, up to {effort.rare_rows:,} draws")
            checks.append(_rare(foreign, noise, effort))
    left_out = {"long sentences": effort.long_rows, "rare tokens": effort.rare_rows}
    notes = [f"{what} were not tested" for what, rows in left_out.items() if not rows]
    return Findings(tuple(checks), tuple(evidence), tuple(notes))


def _long(foreign: Foreign, noise: Noise, effort: Effort) -> tuple[list[Check], list[Evidence]]:
    """Test a sampler on sentences of 32 tokens: the measured distances from the language (evidence), and, if the
    sampler claims the law, checks of them. `repro.certify.long` is imported only here, since it needs packages that
    `pytest --certify` at its smoke level does not require."""
    from repro.certify.long import long_bigrams, long_checks

    if foreign.claims == "law":
        return long_checks(foreign, noise, effort, SLACK)
    return [], list(long_bigrams(foreign, noise, effort))


def _listed(
    foreign: Foreign, noise: Noise, effort: Effort, told: Told = silent
) -> tuple[list[Check], list[Evidence]]:
    """Test a sampler on the 27 sentences whose law is enumerated: checks (pass or fail) and measured distances from the
    law (evidence), from sentences that it draws. `told` is called with a line of text as each test begins."""
    source = tiny(LENGTH)
    evidence: list[Evidence] = []
    counts_at: dict[int, Tensor] = {}
    for number, steps in enumerate(effort.steps):
        rows = effort.last_rows if steps == effort.steps[-1] else effort.rows
        space = Space(noise, source, foreign.meaning)
        told(f"{noise} noise: {rows:,} sentences, steps {steps}")
        ids = _calls(foreign, space, steps, rows, effort.call_rows, 1000 * number)
        masked = sum(int((call == source.vocab).any(1).sum()) for call in ids)
        if masked:
            says = f"{masked / rows:.1%} of the sentences sampled with {counted(steps, 'step')} still contain [MASK]"
            name = f"noise left, {noise}"
            check = Check(name=name, stands=False, says=says, false_alarm=0)
            return [check], evidence
        counts_at[steps] = torch.bincount(source.cell(torch.cat(ids)), minlength=len(source.law))
        evidence += _distance(source, noise, "exact", steps, counts_at[steps])
    last = effort.steps[-1]
    for name, spoil in SPOILED.items() if effort.spoiled_rows else ():
        space = Space(noise, source, foreign.meaning, spoil)
        told(f"{noise} noise: {effort.spoiled_rows:,} sentences with a wrong denoiser ({name})")
        ids = _calls(foreign, space, effort.spoiled_steps, effort.spoiled_rows, effort.call_rows, 7)
        cells = source.cell(torch.cat(ids).clamp_max(source.vocab - 1))
        counts = torch.bincount(cells, minlength=len(source.law))
        evidence += _distance(source, noise, name, effort.spoiled_steps, counts)
    if foreign.claims == "mode":
        return [_modes(source, noise, counts_at[last], last)], evidence
    told(f"{noise} noise: independence of the rows of a call")
    laws = [_law(source, noise, counts_at, steps) for steps in effort.steps if steps > 1]
    return [*laws, *row_checks(foreign, noise, source, counts_at[SMALL_STEPS], effort)], evidence


def _calls(foreign: Foreign, space: Space, steps: int, rows: int, size: int, seed: int) -> list[Tensor]:
    sizes = [min(size, rows - done) for done in range(0, rows, size)]
    return [foreign.ids(space, n, steps, seed + number) for number, n in enumerate(sizes)]


def _distance(source: Enumerated, noise: Noise, oracle: str, steps: int, counts: Tensor) -> list[Evidence]:
    """Two measured distances of a sampler's output from the law `source`, total variation and KL(law || output), from
    `counts` [S], how often it drew each sentence. Each is compared with its value for equally many true samples and,
    under the exact denoiser (`oracle`: name of the denoiser), with the exact total variation or path KL of ancestral
    sampling."""
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
        """KL(law || output) in nats, from `drawn` [S], how often the sampler drew each sentence; a sentence that it
        never drew counts as drawn half a time."""
        return (source.law * (source.law * rows / drawn.double().clamp_min(0.5)).log()).sum().item()

    return [
        evidence("total variation", apart, None if best is None else total_variation(best.law, source.law)),
        evidence("KL, path KL", divergence, None if best is None else best.path_kl),
    ]


# --- checks -------------------------------------------------------------------------------------------------


def chi_square(counts: Tensor, law: Tensor) -> float:
    """Chi-square statistic of the counts [S] of drawn sentences against the counts expected under a law, [S]
    probabilities."""
    expected = law * counts.sum()
    return ((counts - expected) ** 2 / expected).sum().item()


def _law(source: Enumerated, noise: Noise, counts_at: dict[int, Tensor], steps: int) -> Check:
    """Check that a sampler's output at a number of steps has at most 4 times (SLACK) the chi-square distance from the
    true law that ancestral sampling has. `counts_at`: number of steps -> how often each sentence was drawn, [S]."""
    from scipy.optimize import brentq
    from scipy.stats import ncx2

    counts, freedom = counts_at[steps], len(source.law) - 1
    rows = int(counts.sum())
    best = ancestral(source, noise, steps).law
    allowed = SLACK * rows * ((best - source.law) ** 2 / source.law).sum().item()
    limit = float(ncx2.ppf(1 - ALPHA, freedom, allowed))
    found = chi_square(counts, source.law)
    seen = float(brentq(lambda nc: ncx2.sf(limit, freedom, nc) - POWER, allowed, 1e7))
    at = counted(steps, "step")
    what = f"{rows:,} sentences of {at}, chi-square {found:.0f} on {freedom} degrees, limit {limit:.0f}"
    if found > limit:
        far = {n: total_variation(c / c.sum(), source.law) for n, c in sorted(counts_at.items())}
        trend = ", ".join(f"{value:.3f} at {n}" for n, value in far.items())
        falls = far[max(far)] < 0.7 * far[sorted(far)[-2]]
        what += f"; total variation by steps: {trend}: " + (
            "still falling, so certify at more steps" if falls else "more steps do not remove it"
        )
    return Check(
        name=f"law at {at}, {noise}",
        stands=found <= limit,
        says=what,
        false_alarm=ALPHA,
        minimum_detectable=f"Any law off by a total variation of {math.sqrt(seen / rows) / 2:.3f} at {at} is "
        f"seen ({POWER:.0%}, {noise}).",
    )


def _modes(source: Enumerated, noise: Noise, counts: Tensor, steps: int) -> Check:
    """Check of a sampler that claims modes: its sentences must be more likely, on average, than true ones; draws from
    the law itself fail it."""
    from scipy.stats import norm

    rows, nll = int(counts.sum()), -source.law.log()
    mean = (counts * nll).sum().item() / rows
    spread = ((counts * (nll - mean) ** 2).sum().item() / rows / rows) ** 0.5
    limit = source.entropy - max(MODE_GAIN, float(norm.isf(ALPHA)) * spread)
    return Check(
        name=f"modes, {noise}",
        stands=mean < limit,
        says=f"mean -log p of {rows:,} sentences of {counted(steps, 'step')} is {mean:.3f} nats, of true ones "
        f"{source.entropy:.3f}; a claim of modes needs less than {limit:.3f}",
        false_alarm=ALPHA,
    )


def _rare(foreign: Foreign, noise: Noise, effort: Effort) -> Check:
    """Check that rare ids, of probability 1.4e-8 (CHANCE) each, are drawn as often as they should be: not less often,
    as by draws in float32, and not more often, as by code that raises small probabilities to a minimum."""
    from scipy.stats import poisson

    source = RareTokens(RARE, CHANCE)
    space = Space(noise, source, foreign.meaning)
    seen = rows = 0
    expected = effort.rare_rows * source.mass
    low, high = int(poisson.ppf(ALPHA / 2, expected)), int(poisson.isf(ALPHA / 2, expected))
    while rows < effort.rare_rows and seen <= high:
        ids = foreign.ids(space, RARE_AT_ONCE, 1, 10_000 + rows // RARE_AT_ONCE)
        seen += int((ids > 0).sum())
        rows += RARE_AT_ONCE
    why = ": are draws made in float32? (use float64)" if seen < low else ": are small probabilities raised?"
    stands = low <= seen <= high
    return Check(
        name=f"rare tokens, {noise}",
        stands=stands,
        says=f"{seen} of {rows:,} draws are one of the {RARE:,} ids of probability {CHANCE:g},"
        f" {rows * source.mass:.3g} expected" + ("" if stands else why),
        false_alarm=ALPHA,
        minimum_detectable=f"Ids of probability {CHANCE:g} that are never drawn, or drawn {high / expected:.1f} times"
        f" too often, are seen ({noise}).",
    )
