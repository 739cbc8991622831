"""Estimators of the all-subsets bound on the log-likelihood of masked diffusion models: minus the sum over all nonempty
masked sets S of f(S) / (l C(L, l)) (docs/method.md#llada-objective, docs/method.md#llada-likelihood).

    subsets       all 2^L - 1 masked sets, nothing drawn
    levels        all sets with l = 1, L - 1, L, distinct drawn sets for the l between (repro.evals.likelihood.levels)
    llada_mc      l uniform on 1..L and stratified, a new random set of l positions for each l (LLaDA, arXiv 2502.09992,
                  Eq. 6)
    llada_round   llada_mc with LLaDA's published rounding of l, which makes some l likelier than others: biased
    elbo_t        the bound as an integral over time t with weight 1/t: t uniform and stratified, each token masked with
                  probability t

Symbols: L tokens of the continuation, l of them masked (the level), f(S) the loss (-log p) of a masked set S summed
over its l tokens, C(L, l) sets of level l, n masked sets, R independent passes (groups of stratified draws).
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.batched import BatchedDenoiser, batches
from repro.evals.likelihood.likelihood import (
    Likelihood,
    LikelihoodRequest,
    Masked,
    SamplingDesign,
    pass_error,
)
from repro.processes.uniform import Uniform

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=64)
def level_sets(length: int, level: int) -> Tensor:
    """All masked sets of l = `level` out of L = `length` positions in lexicographic order, [C(L, l), L] bool."""
    rows = torch.tensor(list(itertools.combinations(range(length), level)))
    return torch.zeros(len(rows), length, dtype=torch.bool).scatter(1, rows, True)


def random_sets(keys: Tensor, levels: Tensor, length: int) -> Tensor:
    """n random masked sets out of L = `length` positions, [n, L] bool: set i is uniform among the sets of `levels[i]`
    masked positions and is drawn with the random key `keys[i]`; `keys` and `levels` are integers, [n] each."""
    return rng.uniform(keys, length).argsort(-1).argsort(-1) < levels[:, None]


def draw_keys(seed: int, row: int, passes: int, batch: int) -> tuple[Tensor, Tensor]:
    """Random numbers for one likelihood request, drawn with the keys `seed` and `row` (the request's integer): uniform
    variates on (0, 1), one per pass, [R], and random keys, one per draw, [R * batch]; R = `passes`, each of `batch`
    draws."""
    keys = rng.fold(rng.keys(seed, rng.LIKELIHOOD, 0, row), torch.arange(passes))
    return rng.uniform(rng.fold(keys, -1)), rng.fold(keys[:, None], torch.arange(batch)).flatten()


@part
class Subsets(Masked):
    """The all-subsets bound computed exactly from all masked sets (2^L - 1 forward passes). ValueError for a
    continuation of more than `longest` tokens."""

    longest: int
    score_is = "bound"

    def max_forwards(self, length: int) -> int:
        if length > self.longest:
            raise ValueError(
                f"estimator 'subsets' takes continuations of at most {self.longest} tokens; this one has {length} "
                f"tokens, thus {2**length - 1} masked sets; use 'levels'"
            )
        return 2**length - 1

    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        self.max_forwards(length)
        return all_sets(length)


@lru_cache(maxsize=64)
def all_sets(length: int) -> SamplingDesign:
    """The sampling design of all nonempty masked sets of L = `length` positions, where a set of l positions has weight
    1 / (l C(L, l)); its standard error is 0."""
    masked = (torch.arange(1, 1 << length)[:, None] >> torch.arange(length)) & 1 == 1
    level = masked.sum(1)
    sets = torch.tensor([math.comb(length, int(k)) for k in level], dtype=torch.float64)

    def estimate(losses: Tensor) -> tuple[float, float, None]:
        return -float((losses.sum(1) / (level * sets)).sum()), 0.0, None

    return SamplingDesign(masked, level / length, estimate)


# --- Monte Carlo over mask counts and over times --------------------------------------------------------------


def _check_passes(draws: int, batch: int) -> None:
    if batch < 1 or draws < batch or draws % batch:
        raise ValueError(f"draws={draws} is not a positive multiple of batch={batch}; change one of the two")


@part
class _MaskCounts(Masked):
    """Base class of Monte Carlo estimators that draw the number l of masked positions at random, then l of the L
    positions, and weight the set's summed loss by L / l. The `draws` sets come in passes of `batch`; a subclass
    supplies the numbers l of each pass (`levels`), stratified over 1..L. ValueError unless `draws` is a positive
    multiple of `batch`."""

    draws: int
    batch: int

    def __post_init__(self) -> None:
        _check_passes(self.draws, self.batch)

    def max_forwards(self, length: int) -> int:
        return self.draws

    @abstractmethod
    def levels(self, u: Tensor, length: int) -> Tensor:
        """Numbers of masked positions, [R, batch] integers in 1..L (L = `length`), from one uniform variate per pass,
        `u` [R] in (0, 1)."""

    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        u, keys = draw_keys(seed, row, self.draws // self.batch, self.batch)
        levels = self.levels(u, length).flatten()

        def estimate(losses: Tensor) -> tuple[float, float | None, float | None]:
            values = (losses.sum(1) * length / levels).view(len(u), -1).mean(1)
            return -float(values.mean()), *pass_error(values)

        return SamplingDesign(random_sets(keys, levels, length), levels / length, estimate)


@part
class LladaMC(_MaskCounts):
    """LLaDA's Monte Carlo estimator with unbiased rounding, from `draws` masked sets in passes of `batch`: draw j of a
    pass masks l_j = 1 + floor(L frac(u + j / batch)) of the L positions, with one u per pass, uniform on (0, 1)
    (docs/method.md#llada-likelihood)."""

    score_is = "bound"

    def levels(self, u: Tensor, length: int) -> Tensor:
        return even_levels(u, length, self.batch)


@part
class LladaRound(_MaskCounts):
    """LLaDA's Monte Carlo estimator as published, from `draws` masked sets in passes of `batch`: draw j of a pass masks
    l_j = round(k + j L / batch), wrapped into 1..L, of the L positions, with one k per pass, uniform on 1..L
    (`ML-GSAI/LLaDA@b7e6c35 get_log_likelihood.py:7-25`). torch rounds half to even, so l_j is uniform on 1..L only if
    no j L / batch has fractional part 1/2 (docs/method.md#llada-likelihood)."""

    score_is = "biased bound"

    def levels(self, u: Tensor, length: int) -> Tensor:
        return rounded_levels(1 + (u * length).long(), length, self.batch)


def even_levels(u: Tensor, length: int, batch: int) -> Tensor:
    """Stratified numbers of masked positions, 1 + floor(L frac(u + j / batch)) for j = 0..batch - 1, [..., batch]
    integers; L = `length`. For `u` [...] uniform on (0, 1) each is uniform on 1..L
    (docs/method.md#llada-likelihood)."""
    shifted = (u[..., None] + torch.arange(batch, dtype=torch.float64) / batch) % 1
    return (1 + (length * shifted).long()).clamp_max(length)


def rounded_levels(k: Tensor, length: int, batch: int) -> Tensor:
    """Numbers of masked positions as LLaDA's code computes them, [..., batch] integers: k + j L / batch for j =
    0..batch - 1 in float32, rounded half to even, then wrapped into 1..L; L = `length`, and `k` [...] in 1..L is the
    number for j = 0. With a batch that is no power of two, float32 decides where k + j L / batch is halfway, so the
    numbers are made by the call of `ML-GSAI/LLaDA@b7e6c35 get_log_likelihood.py:13`."""
    spread = (batch - 1) * (length / batch)
    rows = [torch.linspace(float(each), each + spread, batch, dtype=torch.float32) for each in k.flatten()]
    return (torch.stack(rows).view(*k.shape, batch).round().long() - 1) % length + 1


@part
class ElboT(Masked):
    """The likelihood bound (ELBO) as an integral over diffusion time, by Monte Carlo: at `draws` random times t in
    (eps, 1), drawn in passes of `batch` stratified times. The estimate is the integral over (eps, 1) (its integrand
    under absorbing noise: 1/t times the summed loss of the masked tokens), plus the reconstruction term (the loss at
    t = eps, in place of the times below eps), plus the prior term (0 under absorbing noise). This `eps` replaces the
    one of the noise process.

    Each draw takes two forward passes. Few draws land at small t, where the weight 1/t is large, so the standard error
    for a short continuation is itself uncertain: with 1,024 draws for 4 tokens a 95 % interval covers the bound in 92
    to 94 % of cases at eps = 1e-3 and in 95 % at 1e-2. ValueError unless `draws` is a positive multiple of `batch` and
    0 < eps < 1.
    """

    draws: int
    batch: int
    eps: float
    processes = frozenset({"absorbing", "uniform"})
    score_is = "bound"

    def __post_init__(self) -> None:
        _check_passes(self.draws, self.batch)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps={self.eps} is out of range; give a diffusion time with 0 < eps < 1")

    def max_forwards(self, length: int) -> int:
        return 2 * self.draws

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        if not isinstance(denoiser.process, Uniform):
            return super().score_group(denoiser, requests, seed)
        process = replace(denoiser.process, eps=self.eps)
        return [self._uniform(denoiser, process, request, seed) for request in requests]

    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        u, keys = self._draws(row, seed)
        t = self.eps + (1 - self.eps) * u
        middle = rng.uniform(rng.fold(keys, 0), length) < t[:, None]
        tail = rng.uniform(rng.fold(keys, 1), length) < self.eps

        def estimate(losses: Tensor) -> tuple[float, float | None, float | None]:
            above, below = losses.sum(1).chunk(2)
            return self._average((1 - self.eps) * above / t + below)

        return SamplingDesign(
            torch.cat([middle, tail]), torch.cat([t, torch.full_like(t, self.eps)]), estimate
        )

    def _draws(self, row: int, seed: int) -> tuple[Tensor, Tensor]:
        """Random numbers for one likelihood request, drawn with the keys `seed` and `row` (the request's integer):
        uniform variates on (0, 1), stratified in each pass of `batch`, [draws], and a random key for each draw,
        [draws]."""
        shared, keys = draw_keys(seed, row, self.draws // self.batch, self.batch)
        return ((shared[:, None] + torch.arange(self.batch) / self.batch) % 1).flatten(), keys

    def _average(self, nll: Tensor) -> tuple[float, float | None, float | None]:
        values = nll.view(-1, self.batch).mean(1)
        return -float(values.mean()), *pass_error(values)

    def _uniform(
        self, denoiser: BatchedDenoiser, process: Uniform, request: LikelihoodRequest, seed: int
    ) -> Likelihood:
        from repro.models.attention import Mask
        from repro.models.prediction import Prediction

        if (
            max(request.continuation) >= denoiser.vocabulary.size
        ):  # a special id, which is never a clean token
            return Likelihood(-math.inf, 0.0, None, 0)
        u, keys = (value.to(denoiser.device) for value in self._draws(request.row, seed))
        ids = torch.tensor(request.ids, device=denoiser.device).expand(self.draws, -1)
        columns = torch.arange(ids.shape[1], device=denoiser.device)
        scored = (columns >= len(request.prompt)).expand_as(ids)

        def predict(noisy: Tensor, t: Tensor) -> Prediction:
            return Prediction(denoiser.denoiser, noisy, t, Mask())

        with torch.no_grad():
            nll = [
                process.bound(predict, ids[rows], scored[rows], denoiser.vocabulary, u[rows], keys[rows])
                for rows in batches(self.draws, denoiser.batch)
            ]
        denoiser.forwards += 2 * self.draws
        return Likelihood(*self._average(torch.cat(nll).cpu()), 2 * self.draws)
