"""Certificate of a foreign sampler: the law that it draws from, with an exact denoiser.

A law that only *converges* differs from the true one at any number of steps, and every chi-square rejects it once rows
are many enough. So the null hypothesis is not equality. It is

    chi-square distance to the law at the last number of steps  <=  4 x that of ancestral sampling of as many steps

(at most twice as far in total variation), whose boundary has a noncentral chi-square law: the false-alarm rate holds
for every sampler that converges like ancestral sampling or better, whatever its schedule. A bias that steps do not
remove stays outside once rows are many enough; by Cauchy-Schwarz, chi-square distance >= 4 TV^2, so there is a total
variation from which on *any* bias is seen, and it is printed.

Beside it: are rows of one call independent, does a longer sentence keep its bigrams, and is a token of probability 1e-8
ever drawn (docs/method.md#oracle-34)?
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.long import bigrams, long_check
from repro.certify.reference import ancestral
from repro.certify.space import Enumerated, Mixed, Noise, Noisy, Rare, Space, Spoil, tiny, total_variation
from repro.certify.verdict import ALPHA, POWER, Check, Effort, Evidence, Findings
from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 4.0
LENGTH = 3
SPOILED: dict[str, Spoil] = {
    **{f"mixed {weight}": Mixed(weight) for weight in (0.05, 0.1, 0.2)},
    **{f"noisy {deviation}": Noisy(deviation) for deviation in (0.25, 0.5, 1.0)},
}
"""Wrong denoisers, three levels each: what remasking and correctors can mend shows only under these."""
CHANCE = 1e-8
RARE = 50_000
FEW = 1
"""Rare tokens that are too few: a right sampler draws about 12, and at most one with probability 8e-5."""


def certify_sampler(foreign: Foreign, effort: Effort) -> Findings:
    """Checks and evidence of a sampler under every noise that it is for."""
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
    """All that a listed space shows."""
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
            says = f"{masked / rows:.1%} of the sentences of {steps} steps still hold [MASK]"
            return [
                Check(name=f"noise left, {noise}", stands=False, says=says, false_alarm=0, sees="")
            ], evidence
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
    """Total variation and KL(law || output) of counts [S], plug-in, each beside that of as many true samples and what
    ancestral sampling has with the exact denoiser: its exact total variation, and its path KL."""
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
        """A sentence that was never drawn counts as half a draw."""
        return (source.law * (source.law * rows / drawn.double().clamp_min(0.5)).log()).sum().item()

    return [
        evidence("total variation", apart, None if best is None else total_variation(best.law, source.law)),
        evidence("KL, path KL", divergence, None if best is None else best.path_kl),
    ]


# --- checks -------------------------------------------------------------------------------------------------


def chi_square(counts: Tensor, law: Tensor) -> float:
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
        f"{rows:,} sentences of {steps} steps, chi-square {found:.0f} on {freedom} degrees, limit {limit:.0f}"
    )
    if found > limit:
        falls = far[-1] < 0.7 * far[-2]
        what += f"; total variation {far[-1]:.3f}, {far[-2]:.3f} at {effort.steps[-2]} steps: " + (
            "still falling, so certify at more steps" if falls else "more steps do not remove it"
        )
    return Check(
        name=f"law, {noise}",
        stands=found <= limit,
        says=what,
        false_alarm=ALPHA,
        sees=f"Any law off by a total variation of {math.sqrt(seen / rows) / 2:.3f} at {steps} steps is seen "
        f"({POWER:.0%}, {noise}).",
    )


def _independent(noise: Noise, by_call: Tensor) -> Check:
    """Are calls as alike as independent rows make them? Rows that share a draw make calls differ more."""
    from scipy.stats import chi2

    used = by_call[:, by_call.sum(0) > 0].double()
    sizes = used.sum(1)
    expected = sizes[:, None] * used.sum(0) / used.sum()
    statistic = ((used - expected) ** 2 / expected).sum().item()
    freedom = (used.shape[0] - 1) * (used.shape[1] - 1)
    same = used.shape[0] > 1 and bool((by_call == by_call[0]).all())
    p = float(chi2.sf(statistic, freedom)) if freedom else 1.0
    says = f"{len(by_call)} calls differ by chi-square {statistic:.0f} on {freedom} degrees"
    return Check(
        name=f"independent rows, {noise}",
        stands=p > ALPHA and not same,
        says="every seed gives the same sentences" if same else says,
        false_alarm=ALPHA,
        sees="",
    )


def _modes(source: Enumerated, noise: Noise, counts: Tensor, steps: int) -> Check:
    """Sentences that seek modes are at least as likely, on average, as true ones."""
    from scipy.stats import norm

    rows, nll = int(counts.sum()), -source.law.log()
    mean = (counts * nll).sum().item() / rows
    spread = ((counts * (nll - mean) ** 2).sum().item() / rows / rows) ** 0.5
    return Check(
        name=f"modes, {noise}",
        stands=mean <= source.entropy + float(norm.isf(ALPHA)) * spread,
        says=f"mean -log p of {rows:,} sentences of {steps} steps is {mean:.3f} nats, of true ones "
        f"{source.entropy:.3f}",
        false_alarm=ALPHA,
        sees="",
    )


def _rare(foreign: Foreign, noise: Noise, effort: Effort) -> Check:
    """50,000 ids of 1e-8 in one draw of one token; stops as soon as enough were seen."""
    source, at_once = Rare(RARE, CHANCE), 20
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
        + ("" if seen > FEW else f", {expected:.0f} expected: are draws made in float32? (use float64)"),
        false_alarm=math.exp(-expected) * (1 + expected),
        sees="",
    )
