"""Certificate of a foreign loss: is it a bound on -log p, and a proper score?

If b(x) >= -log p(x) for the law p of some model, then the sum of exp(-b(x)) over all sentences is at most 1. So the sum
over an enumerated space must not exceed 1 for any denoiser, whether its conditionals are exact or belong to no law. For
a likelihood (`claims = "law"`) the sum is 1.

A random loss is averaged, and exp(-mean of K draws) is too large on average (Jensen's inequality): by exp(-m) v / 2 for
a sentence of mean m with error variance v, which is subtracted. Standard errors are computed between calls, since rows
of one call may share a stratified t, and the limit is a one-sided Student quantile.

Sums are taken over sentences of two and of four tokens, since some defects need four. A random sum on the wrong side of
1 by two to six standard errors is drawn again with four times as many calls, which then decide. A row's loss may not
depend on the other rows of its call: the loss of each sentence is compared with that in calls of the sentence alone,
and in calls of one to three rows.

The score is the expected loss under the law, with the exact conditionals and with wrong ones (raised to a power, or
mixed with unigrams). A score is proper if no wrong denoiser scores better.

Symbols: n rows, S sentences, C calls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from repro.certify.foreign import Foreign
from repro.certify.space import (
    Noise,
    PoweredConditionals,
    RandomConditionals,
    Source,
    Space,
    Spoil,
    UnigramMixture,
    tiny,
    words,
)
from repro.certify.verdict import ALPHA, POWER, Check, Effort, Evidence, Findings, Told, silent
from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

LENGTH, LONGER = 2, 4
LONGER_REPEATS = 50
"""Factor by which a sentence of LONGER tokens occurs less often in a call than one of LENGTH tokens, since there are
nine times as many sentences."""
UNCLEAR, CLEAR, AGAIN = 2.0, 6.0, 4
"""A random sum on the wrong side of 1 by UNCLEAR to CLEAR standard errors is drawn again, with AGAIN times as many
calls."""
FRESH = 1_000_000
"""First seed of calls that are drawn again."""
EQUAL = 1e-5
"""Nats by which the loss of a row may depend on the other rows of its call, beside chance: rounding of float32."""
FEW_BLOCKS, FEW_CALLS = 24, 54
"""Number of blocks of calls of one to three rows, and calls per block; the blocks' spread gives the standard error."""
QUADRATURE = 3e-4
"""Tolerance of exact losses for their quadrature error; a missing tail term at eps = 1e-3 is four times as large."""
INCONSISTENT = (1, 2, 3)
PERTURBED: dict[str, Spoil] = {
    "flatter, power 0.8": PoweredConditionals(0.8),
    "sharper, power 1.25": PoweredConditionals(1.25),
    "sharper, power 2": PoweredConditionals(2.0),
    "mixed with unigrams, 0.1": UnigramMixture(0.1),
}


class Means(NamedTuple):
    """Mean loss of each sentence in nats: `mean` [S] over all calls, and `by_call` [C, S] within each call (C = 1 for
    an exact loss)."""

    mean: Tensor
    by_call: Tensor

    def of(self, weights: Tensor) -> tuple[float, float]:
        """Sum over sentences of `weights` [S] times the mean losses, and its standard error (0 for an exact loss)."""
        totals = self.by_call @ weights
        calls = len(totals)
        return totals.mean().item(), totals.std().item() / math.sqrt(calls) if calls > 1 else 0.0


def certify_loss(foreign: Foreign, effort: Effort, told: Told = silent) -> Findings:
    """Test a loss under every noise that it supports, with the sample sizes `effort`: pass-or-fail checks, the numbers
    that were measured (evidence), and notes. `told` is called with a line of text as each test begins."""
    checks: list[Check] = []
    evidence: list[Evidence] = []
    notes: list[str] = []
    for noise in foreign.noises:
        told(f"{noise} noise: loss of every sentence of {LENGTH} tokens")
        exact = _means(foreign, Space(noise, tiny(LENGTH), foreign.meaning), effort)
        found: list[Check] = []
        for length in (LENGTH, LONGER):
            told(f"{noise} noise: sum of exp(-loss) over all sentences of {length} tokens")
            sums, numbers = _sums(foreign, noise, length, effort)
            found += sums
            evidence += numbers
        told(f"{noise} noise: independence of the rows of a call")
        found.append(_batches(foreign, noise, exact, effort))
        told(f"{noise} noise: expected loss with wrong denoisers")
        better, gap, numbers = _score(foreign, noise, exact, effort)
        evidence += numbers
        notes.append(_score_note(noise, better, gap))
        if foreign.claims == "mode":
            sharper = any(name.startswith("sharper") for name in better)
            found = [_mode_check(noise, sharper, notes[-1])]
        checks += found
    return Findings(tuple(checks), tuple(evidence), tuple(notes))


def _means(foreign: Foreign, space: Space, effort: Effort, first: int = 0, times: int = 1) -> Means:
    """The mean loss of every sentence of a space. A random loss is called `times` x `effort.loss_calls` times, with the
    seeds from `first` on; the rows of a call are shuffled, since the loss may stratify over them. An exact loss is
    called once.
    """
    sentences = words(space.vocab, space.length)
    count = len(sentences)
    if not foreign.draws:
        mean = foreign.nats(space, sentences, 0)
        return Means(mean, mean[None])
    repeats = effort.loss_repeats // (LONGER_REPEATS if space.length == LONGER else 1)
    calls = []
    for call in range(first, first + times * effort.loss_calls):
        which = rng.permutation(0, rng.ORDER, call, count * repeats) % count
        nats = foreign.nats(space, sentences[which], call)
        calls.append(torch.zeros(count, dtype=torch.float64).index_add(0, which, nats) / repeats)
    by_call = torch.stack(calls)
    return Means(by_call.mean(0), by_call)


def _sum(means: Means) -> tuple[float, float]:
    """Sum over sentences of exp(-mean loss), corrected for its Jensen bias, and its standard error."""
    weights = (-means.mean).exp()
    _, error = means.of(weights)
    calls = len(means.by_call)
    variance = means.by_call.var(0) / calls if calls > 1 else torch.zeros_like(weights)
    return (weights * (1 - variance / 2)).sum().item(), error


def _unclear(foreign: Foreign, total: float, error: float) -> bool:
    """Whether `total`, the sum of exp(-loss) over all sentences, lies above 1 (or on either side, if the loss claims to
    be -log p) by 2 to 6 (UNCLEAR to CLEAR) times its standard error `error`, so that it may be chance; False for an
    exact loss."""
    off = (abs(total - 1) if foreign.claims == "law" else total - 1) - QUADRATURE
    return foreign.draws and UNCLEAR * error < off < CLEAR * error


def _sums(foreign: Foreign, noise: Noise, length: int, effort: Effort) -> tuple[list[Check], list[Evidence]]:
    """Test that the sum of exp(-loss) over all sentences of `length` tokens is at most 1 (exactly 1 for a loss that
    claims to be -log p): a check and the measured sum for each denoiser, the exact one and inconsistent ones, whose
    conditionals belong to no law."""
    from scipy.stats import t

    sources: dict[str, Source] = {"exact": tiny(length)} | {
        f"inconsistent {seed}": RandomConditionals(3, length, seed) for seed in INCONSISTENT
    }
    checks, evidence = [], []
    for name, source in sources.items():
        space = Space(noise, source, foreign.meaning)
        means = _means(foreign, space, effort)
        total, error = _sum(means)
        if _unclear(foreign, total, error):
            means = _means(foreign, space, effort, FRESH, AGAIN)
            total, error = _sum(means)
        evidence.append(_evidence("sum of exp(-loss)", noise, name, total, 1.0, length))
        freedom = max(1, len(means.by_call) - 1)
        quantile = float(t.isf(ALPHA, freedom)) if foreign.draws else 0.0
        stands = total - 1 - quantile * error <= QUADRATURE
        says = f"sum of exp(-loss) over all sentences is {total:.5f}" + (
            f" (se {error:.5f})" if error else ""
        )
        if foreign.claims == "law":
            stands = stands and total - 1 + quantile * error >= -QUADRATURE
            says += "; it must be 1 for a law"
        else:
            says += "; it must be at most 1 for a bound"
        power = float(t.isf(1 - POWER, freedom)) if foreign.draws else 0.0
        detectable = QUADRATURE + (quantile + power) * error
        checks.append(
            Check(
                name=f"{foreign.claims}, {noise}, {length} tokens, {name} denoiser",
                stands=stands,
                says=says,
                false_alarm=ALPHA if foreign.draws else 0.0,
                minimum_detectable=(
                    f"A sum above {1 + detectable:.4f} is detected ({noise}, {length} tokens, exact denoiser)."
                    if name == "exact"
                    else ""
                ),
            )
        )
    return checks, evidence


def _batches(foreign: Foreign, noise: Noise, exact: Means, effort: Effort) -> Check:
    """Check that a row's loss does not depend on the other rows of its call. `exact`: the mean loss of each sentence
    with the exact denoiser, in calls with all sentences, with which smaller or reordered calls are compared."""
    space = Space(noise, tiny(LENGTH), foreign.meaning)
    sentences = tiny(LENGTH).sentences
    if foreign.draws:
        worst, allowed, where = _random_batches(foreign, space, exact, effort)
    else:
        alone = torch.cat([foreign.nats(space, row[None], 0) for row in sentences])
        turned = foreign.nats(space, sentences.flip(0), 1).flip(0)
        apart = {"alone": (alone - exact.mean).abs(), "in another order": (turned - exact.mean).abs()}
        where = max(apart, key=lambda name: apart[name].max().item())
        worst, allowed = apart[where].max().item(), EQUAL
    unit = "standard errors" if foreign.draws else "nats"
    stands = worst <= allowed
    return Check(
        name=f"batches, {noise}",
        stands=stands,
        says=f"a sentence {where} has another loss than among all others by at most {worst:.2g} {unit},"
        f" limit {allowed:.2g}" + ("" if stands else ": a row depends on the other rows of its call"),
        false_alarm=ALPHA if foreign.draws else 0.0,
    )


def _random_batches(foreign: Foreign, space: Space, exact: Means, effort: Effort) -> tuple[float, float, str]:
    """Three results for a random loss in small calls (of one sentence alone, or of one to three rows): the largest
    difference of a sentence's mean loss from its mean loss in large calls (`exact`), in standard errors; the limit for
    this difference; and a text that says in which calls it was seen."""
    from scipy.stats import t

    sentences = tiny(LENGTH).sentences
    calls, rows = effort.loss_calls // 2, effort.loss_repeats // 4
    alone = [
        [foreign.nats(space, row.expand(rows, -1), FRESH // 2 + call).mean() for row in sentences]
        for call in range(calls)
    ]
    found = {"alone": torch.tensor(alone, dtype=torch.float64)}
    chosen = [(torch.arange(1 + call % 3) * 5 + call) % len(sentences) for call in range(FEW_CALLS)]
    few = torch.zeros(FEW_BLOCKS, len(sentences), dtype=torch.float64)
    for block in range(FEW_BLOCKS):
        for call, which in enumerate(chosen):
            nats = foreign.nats(space, sentences[which], FRESH // 4 + block * FEW_CALLS + call)
            few[block] += torch.zeros(len(sentences), dtype=torch.float64).index_add(0, which, nats)
    found["in calls of one to three rows"] = few / torch.bincount(torch.cat(chosen), minlength=len(sentences))
    limit = float(t.isf(ALPHA / 4 / len(sentences), min(calls, FEW_BLOCKS, effort.loss_calls) - 1))
    off = {name: _standard_errors(means, exact.by_call).max().item() for name, means in found.items()}
    where = max(off, key=lambda name: off[name])
    return off[where], limit, where


def _standard_errors(one: Tensor, other: Tensor) -> Tensor:
    """Absolute difference, [S], of the column means of `one` [A, S] and `other` [B, S], without the 1e-5 (EQUAL) that
    rounding may make, in units of its standard error; all rows are independent draws."""
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    return ((one.mean(0) - other.mean(0)).abs() - EQUAL).clamp_min(0) / error.clamp_min(1e-300)


def _score(
    foreign: Foreign, noise: Noise, exact: Means, effort: Effort
) -> tuple[dict[str, float], float, list[Evidence]]:
    """Whether the loss is a proper score. Three results: name of each wrong denoiser whose expected loss is lower than
    that of the exact one -> difference in nats; the expected loss with the exact denoiser (`exact`: its mean losses)
    minus the entropy, in nats; and, as evidence, this difference from the entropy for every denoiser. All use the same
    seeds, so comparisons are paired."""
    from scipy.stats import t

    law = tiny(LENGTH)
    quantile = float(t.isf(ALPHA / len(PERTURBED), effort.loss_calls - 1)) if foreign.draws else 0.0
    gap = exact.of(law.law)[0] - law.entropy
    statistic = "expected loss - entropy"
    evidence = [_evidence(statistic, noise, "exact", gap, 0.0, LENGTH)]
    better: dict[str, float] = {}
    for name, spoil in PERTURBED.items():
        found = _means(foreign, Space(noise, law, foreign.meaning, spoil), effort)
        paired = Means(found.mean - exact.mean, found.by_call - exact.by_call)
        gain, error = paired.of(law.law)
        evidence.append(_evidence(statistic, noise, name, gap + gain, 0.0, LENGTH))
        if gain + quantile * error < -QUADRATURE:
            better[name] = -gain
    return better, gap, evidence


def _score_note(noise: Noise, better: dict[str, float], gap: float) -> str:
    if not better:
        return (
            f"score, {noise}: proper, no wrong denoiser tried scores better (loss - entropy {gap:+.4f} nats)"
        )
    best = max(better, key=lambda name: better[name])
    return f"score, {noise}: improper, conditionals {best} score {better[best]:.3f} nats better than the exact ones"


def _mode_check(noise: Noise, sharper: bool, says: str) -> Check:
    """Check of a loss that claims to seek modes: some conditionals sharper than the true ones must have a lower
    expected loss. `sharper`: whether any have; `says`: the sentence of `_score_note` on the wrong conditionals that
    score best, which the check repeats without its beginning `score, NOISE: `."""
    return Check(
        name=f"modes, {noise}",
        stands=sharper,
        says=says.partition(": ")[2],
        false_alarm=0.0,
    )


def _evidence(statistic: str, noise: Noise, oracle: str, value: float, best: float, length: int) -> Evidence:
    return Evidence(
        statistic=statistic,
        space=f"{3**length} sentences",
        noise=noise,
        oracle=oracle,
        steps=None,
        tokens_per_step=None,
        value=value,
        true=None,
        best=best,
    )
