"""Tests on sentences too long to enumerate: the bigrams of the oracle language `strong` (32 tokens of 32 symbols).

The statistic is the unbiased squared distance between the bigram law of samples and that of the language
(`repro.evals.tasks.law`), which is 0 on average for true samples. For n true samples, n times the statistic is a
weighted sum of centred chi-squares; its limit comes from matching the first two moments (Satterthwaite 1946).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.oracle import oracle_denoiser
from repro.certify.space import HmmSource, Noise, Space, Spoil
from repro.certify.verdict import ALPHA, Check, Effort, Evidence
from repro.core import rng
from repro.core.lazy import torch
from repro.data.language import Language
from repro.evals.tasks.law import bigram_distance
from repro.samplers.ancestral import Ancestral
from repro.samplers.decode import decode
from repro.samplers.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.hmm import Hmm


@functools.lru_cache
def strong() -> Hmm:
    """The oracle language of the nano recipes."""
    from repro.recipes.scale import by_name

    data = by_name("mdlm@nano").data
    assert isinstance(data, Language)
    return data.hmm()


def true_rows(rows: int) -> Tensor:
    """Samples of `strong`, [rows, 32]."""
    return strong().sample(rng.keys(0, rng.SENTENCE, 4, torch.arange(rows)))


@functools.lru_cache
def limit(rows: int) -> float:
    """Squared bigram distance that `rows` true samples exceed with probability ALPHA."""
    from scipy.stats import chi2

    ids, law = true_rows(4_000), strong().bigram()
    pair = ids[:, :-1] * len(law) + ids[:, 1:]
    frequency = torch.zeros(len(ids), law.numel(), dtype=torch.float64)
    frequency.scatter_add_(1, pair, torch.full(pair.shape, 1 / pair.shape[1], dtype=torch.float64))
    d = frequency - law.reshape(-1)
    covariance = d.T @ d / len(d)
    trace = covariance.trace().item()
    square = (covariance**2).sum().item() - trace**2 / len(d)
    weight, freedom = square / trace, trace**2 / square
    return (weight * float(chi2.isf(ALPHA, freedom)) - trace) / rows


def ours(noise: Noise, steps: int, rows: int) -> float:
    """Squared distance between the bigram frequencies of `rows` samples of this suite's own ancestral sampling and
    those of the language."""
    denoiser = oracle_denoiser(noise, HmmSource(strong()))
    plan = Plan(gen_length=strong().length, block_length=strong().length, steps=steps)
    ids = decode(denoiser, denoiser.process, Ancestral(), plan, [[]] * rows, seed=0, names=range(rows)).ids
    return bigram_distance(ids, strong().bigram())[0]


def bigrams(foreign: Foreign, noise: Noise, effort: Effort, spoil: Spoil | None = None) -> list[Evidence]:
    """The squared bigram distance at every number of steps."""
    hmm = strong()
    true = bigram_distance(true_rows(effort.long_rows), hmm.bigram())[0]
    found = []
    for number, steps in enumerate(effort.long_steps):
        space = Space(noise, HmmSource(hmm), foreign.meaning, spoil)
        ids = foreign.ids(space, effort.long_rows, steps, 20_000 + number)
        value = bigram_distance(ids.clamp_max(hmm.vocab_size - 1), hmm.bigram())[0]
        found.append(
            Evidence(
                statistic="bigram distance squared",
                space="strong",
                noise=noise,
                oracle="exact",
                steps=steps,
                tokens_per_step=hmm.length / steps,
                value=value,
                true=true,
                best=None,
            )
        )
    return found


def long_check(foreign: Foreign, noise: Noise, effort: Effort, slack: float) -> tuple[Check, list[Evidence]]:
    """Whether, at the last number of steps, the distance is at most `slack` times that of ancestral sampling, up to
    sampling noise."""
    evidence = bigrams(foreign, noise, effort)
    best = ours(noise, effort.long_steps[-1], effort.long_rows)
    allowed = slack * max(best, 0.0) + limit(effort.long_rows)
    value = evidence[-1].value
    check = Check(
        name=f"long sentences, {noise}",
        stands=value <= allowed,
        says=f"squared bigram distance of {effort.long_rows:,} sentences sampled with {effort.long_steps[-1]} steps is "
        f"{value:.1e}, limit {allowed:.1e}",
        false_alarm=ALPHA,
    )
    return check, evidence
