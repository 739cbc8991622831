"""Tests of a sampler on sentences too long to enumerate: 32 tokens from a vocabulary of 32, whose law is the oracle
language `strong`, a hidden Markov model with known probabilities.

The first statistic is the unbiased squared distance between the bigram law of samples and that of the language
(`repro.evals.tasks.law`), which is 0 on average for true samples. For n true samples, n times the statistic is a
weighted sum of centred chi-squares; the quantile that limits it comes from matching the first two moments
(Satterthwaite 1946). The second statistic is the mean -log p of the samples.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from repro.certify.foreign import Foreign
from repro.certify.oracle import oracle_denoiser, process_of
from repro.certify.space import HmmSource, Noise, Space
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
    """The oracle language `strong`: a hidden Markov model with known probabilities, from which the recipes at scale
    nano draw their sentences."""
    from repro.recipes.scale import by_name

    data = by_name("mdlm@nano").data
    assert isinstance(data, Language)
    return data.hmm()


def true_rows(rows: int) -> Tensor:
    """Token ids [rows, 32] of sentences drawn from the oracle language `strong`."""
    return strong().sample(rng.keys(0, rng.SENTENCE, 4, torch.arange(rows)))


@functools.lru_cache
def limit(rows: int) -> float:
    """Squared bigram distance from the oracle language `strong` that `rows` true samples exceed with probability 1e-4
    (ALPHA)."""
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


@functools.lru_cache
def ours(noise: Noise, steps: int, rows: int) -> Tensor:
    """Sentences [rows, L] drawn by this suite's own ancestral sampling, in `steps` steps under `noise`, with the exact
    denoiser of `strong`."""
    process, length = process_of(noise), strong().length
    plan = Plan(gen_length=length, block_length=length, steps=steps)
    denoiser = oracle_denoiser(noise, HmmSource(strong()))
    return decode(denoiser, process, Ancestral(), plan, [[]] * rows, seed=0, names=range(rows)).ids


def long_bigrams(foreign: Foreign, noise: Noise, effort: Effort) -> list[Evidence]:
    """The squared distance between the bigram law of sentences that the sampler `foreign` draws and that of the oracle
    language `strong`, measured at every number of steps in `effort` (sample sizes), one `Evidence` each. The sampler
    gets the exact denoiser under `noise`."""
    return _bigrams(_sentences(foreign, noise, effort), noise)


def _sentences(foreign: Foreign, noise: Noise, effort: Effort) -> dict[int, Tensor]:
    """Sentences of the oracle language `strong` that the tested sampler `foreign` draws under `noise`: number of steps
    -> ids [effort.long_rows, L], for every number of steps in `effort` (sample sizes). The denoiser is exact; a
    [MASK] that is left is replaced by the last token of the vocabulary."""
    space = Space(noise, HmmSource(strong()), foreign.meaning)
    return {
        steps: foreign.ids(space, effort.long_rows, steps, 20_000 + i).clamp_max(strong().vocab_size - 1)
        for i, steps in enumerate(effort.long_steps)
    }


def _bigrams(sentences: dict[int, Tensor], noise: Noise) -> list[Evidence]:
    hmm = strong()
    return [
        Evidence(
            statistic="bigram distance squared",
            space="strong",
            noise=noise,
            oracle="exact",
            steps=steps,
            tokens_per_step=hmm.length / steps,
            value=bigram_distance(ids, hmm.bigram())[0],
            true=bigram_distance(true_rows(len(ids)), hmm.bigram())[0],
            best=None,
        )
        for steps, ids in sentences.items()
    ]


def _nll(ids: Tensor) -> tuple[float, float]:
    """Mean over sentences [n, L] of -log p(sentence) / L, and its standard error, both in nats per token; p: exact
    probability under the language `strong`."""
    values = -strong().log_likelihood(ids) / ids.shape[1]
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def long_checks(
    foreign: Foreign, noise: Noise, effort: Effort, slack: float
) -> tuple[list[Check], list[Evidence]]:
    """Two checks of the sentences of 32 tokens that the sampler `foreign` draws under `noise` in the largest number of
    steps in `effort` (sample sizes); and, as evidence, the squared bigram distance from the language of its sentences
    at every number of steps. First, this distance may be `slack` times that of ancestral sampling. Second, the mean
    -log p of the sentences may not be less than that of true ones, nor exceed it by more than sqrt(slack) times what
    ancestral sampling exceeds it by. Both allow for sampling error."""
    sentences = _sentences(foreign, noise, effort)
    evidence, steps, rows = _bigrams(sentences, noise), effort.long_steps[-1], effort.long_rows
    mine = ours(noise, steps, rows)
    allowed = slack * max(bigram_distance(mine, strong().bigram())[0], 0.0) + limit(rows)
    bigrams = Check(
        name=f"long sentences, {noise}",
        stands=evidence[-1].value <= allowed,
        says=f"squared bigram distance of {rows:,} sentences sampled with {steps} steps is "
        f"{evidence[-1].value:.1e}, limit {allowed:.1e}",
        false_alarm=ALPHA,
    )
    return [bigrams, _likelihood(noise, sentences[steps], mine, steps, slack)], evidence


def _likelihood(noise: Noise, ids: Tensor, mine: Tensor, steps: int, slack: float) -> Check:
    from scipy.stats import norm

    (value, error), (own, _), (true, true_error) = map(_nll, (ids, mine, true_rows(4_000)))
    noise_of_means = float(norm.isf(ALPHA / 2)) * math.hypot(error, true_error)
    low = true - noise_of_means
    high = true + math.sqrt(slack) * max(own - true, 0.0) + noise_of_means
    stands = low <= value <= high
    why = "" if stands else ": context is lost" if value > high else ": likelier than true sentences"
    return Check(
        name=f"likelihood of long sentences, {noise}",
        stands=stands,
        says=f"{len(ids):,} sentences of {ids.shape[1]} tokens and {steps} steps have {value:.3f} nats per token"
        f" (standard error {error:.4f}), true ones {true:.3f}; allowed {low:.3f} to {high:.3f}{why}",
        false_alarm=ALPHA,
    )
