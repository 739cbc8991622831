"""Certificate of a foreign loss: is it a bound on -log p, and a proper score?

If b(x) >= -log p(x) for the law p of some model, then the sum of exp(-b(x)) over all sentences is at most 1. So the sum
over an enumerated space must not exceed 1 for any denoiser, be it exact or consistent with no law. For a likelihood
(`claims = "law"`) the sum is 1.

A random loss is averaged, and exp(-mean of K draws) is too large on average (Jensen's inequality): by exp(-m) v / 2 for
a sentence of mean m with error variance v, which is subtracted. Standard errors are computed between calls, since rows
of one call may share a stratified t, and the limit is a one-sided Student quantile.

The score is the expected loss under the law, with the exact conditionals and with wrong ones (raised to a power, or
mixed with unigrams). It is proper if no wrong denoiser scores better.

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
)
from repro.certify.verdict import ALPHA, Check, Effort, Evidence, Findings
from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 2
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
    """Mean loss of each sentence in nats, over all calls [S] and of each call [C, S] (a single call if exact)."""

    mean: Tensor
    by_call: Tensor

    def of(self, weights: Tensor) -> tuple[float, float]:
        """Sum of weights [S] times means, and its standard error (0 if exact)."""
        totals = self.by_call @ weights
        calls = len(totals)
        return totals.mean().item(), totals.std().item() / math.sqrt(calls) if calls > 1 else 0.0


def certify_loss(foreign: Foreign, effort: Effort) -> Findings:
    """Checks and evidence of a loss under every noise that it supports."""
    checks: list[Check] = []
    evidence: list[Evidence] = []
    notes: list[str] = []
    for noise in foreign.noises:
        exact = _means(foreign, Space(noise, tiny(LENGTH), foreign.meaning), effort)
        found, numbers = _sums(foreign, noise, exact, effort)
        evidence += numbers
        better, gap, numbers = _score(foreign, noise, exact, effort)
        evidence += numbers
        notes.append(_score_note(noise, better, gap))
        if foreign.claims == "mode":
            sharper = any(name.startswith("sharper") for name in better)
            found = [_mode_check(noise, sharper, notes[-1])]
        checks += found
    return Findings(tuple(checks), tuple(evidence), tuple(notes))


def _means(foreign: Foreign, space: Space, effort: Effort) -> Means:
    """The mean loss of every sentence; rows of a call are shuffled, since a loss may stratify over them."""
    sentences = tiny(LENGTH).sentences
    count = len(sentences)
    if not foreign.draws:
        mean = foreign.nats(space, sentences, 0)
        return Means(mean, mean[None])
    calls = []
    for call in range(effort.loss_calls):
        which = rng.permutation(0, rng.ORDER, call, count * effort.loss_repeats) % count
        nats = foreign.nats(space, sentences[which], call)
        calls.append(torch.zeros(count, dtype=torch.float64).index_add(0, which, nats) / effort.loss_repeats)
    by_call = torch.stack(calls)
    return Means(by_call.mean(0), by_call)


def _sum(means: Means) -> tuple[float, float]:
    """Sum of exp(-mean) without its Jensen bias, and its standard error."""
    weights = (-means.mean).exp()
    _, error = means.of(weights)
    calls = len(means.by_call)
    variance = means.by_call.var(0) / calls if calls > 1 else torch.zeros_like(weights)
    return (weights * (1 - variance / 2)).sum().item(), error


def _sums(foreign: Foreign, noise: Noise, exact: Means, effort: Effort) -> tuple[list[Check], list[Evidence]]:
    from scipy.stats import t

    quantile = float(t.isf(ALPHA, effort.loss_calls - 1)) if foreign.draws else 0.0
    power = float(t.isf(0.05, effort.loss_calls - 1)) if foreign.draws else 0.0
    sources: dict[str, Source] = {
        f"inconsistent {seed}": RandomConditionals(3, LENGTH, seed) for seed in INCONSISTENT
    }
    means = {"exact": exact} | {
        name: _means(foreign, Space(noise, source, foreign.meaning), effort)
        for name, source in sources.items()
    }
    checks, evidence = [], []
    for name, found in means.items():
        total, error = _sum(found)
        evidence.append(_evidence("sum of exp(-loss)", noise, name, total, 1.0))
        excess = total - 1 - quantile * error
        stands = excess <= QUADRATURE
        says = f"sum of exp(-loss) over all sentences is {total:.5f}" + (
            f" (se {error:.5f})" if error else ""
        )
        if foreign.claims == "law":
            stands = stands and total - 1 + quantile * error >= -QUADRATURE
            says += "; it must be 1 for a law"
        else:
            says += "; it must be at most 1 for a bound"
        detectable = QUADRATURE + (quantile + power) * error
        checks.append(
            Check(
                name=f"{foreign.claims}, {noise}, {name} denoiser",
                stands=stands,
                says=says,
                false_alarm=ALPHA if foreign.draws else 0.0,
                minimum_detectable=(
                    f"A sum above {1 + detectable:.4f} is detected ({noise}, exact denoiser)."
                    if name == "exact"
                    else ""
                ),
            )
        )
    return checks, evidence


def _score(
    foreign: Foreign, noise: Noise, exact: Means, effort: Effort
) -> tuple[dict[str, float], float, list[Evidence]]:
    """Nats by which wrong denoisers score better than the exact one, the exact one's loss minus the entropy, and the
    evidence. All use the same seeds, so differences are paired."""
    from scipy.stats import t

    law = tiny(LENGTH)
    quantile = float(t.isf(ALPHA / len(PERTURBED), effort.loss_calls - 1)) if foreign.draws else 0.0
    gap = exact.of(law.law)[0] - law.entropy
    statistic = "expected loss - entropy"
    evidence = [_evidence(statistic, noise, "exact", gap, 0.0)]
    better: dict[str, float] = {}
    for name, spoil in PERTURBED.items():
        found = _means(foreign, Space(noise, law, foreign.meaning, spoil), effort)
        paired = Means(found.mean - exact.mean, found.by_call - exact.by_call)
        gain, error = paired.of(law.law)
        evidence.append(_evidence(statistic, noise, name, gap + gain, 0.0))
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
    """A loss that claims to seek modes must reward conditionals sharper than the true ones."""
    return Check(
        name=f"modes, {noise}",
        stands=sharper,
        says=says.partition(": ")[2],
        false_alarm=0.0,
    )


def _evidence(statistic: str, noise: Noise, oracle: str, value: float, best: float) -> Evidence:
    return Evidence(
        statistic=statistic,
        space=f"{3**LENGTH} sentences",
        noise=noise,
        oracle=oracle,
        steps=None,
        tokens_per_step=None,
        value=value,
        true=None,
        best=best,
    )
