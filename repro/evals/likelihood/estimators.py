"""Estimators of the all-subsets bound, by what they forward (docs/method.md#llada-objective,
docs/method.md#llada-likelihood; docs/method.md#statistics).

    subsets       all 2^L - 1 masked sets: nothing is drawn
    levels        the end levels exactly, different sets of every level between (repro.evals.likelihood.levels)
    llada_mc      l uniform and stratified, a fresh l-subset each (Nie et al. 2025, Eq. 6), every l equally likely
    llada_round   the same as published, whose rounding makes some l likelier than others: biased
    elbo_t        the 1/t form: t uniform and stratified, every token masked with probability t

Symbols: L tokens of the continuation, l of them masked (the level), f(S) the summed loss of a masked set S.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.likelihood import (
    Design,
    Estimator,
    Likelihood,
    Masked,
    Request,
    pass_error,
    score_designs,
)
from repro.evals.likelihood.network import Network, batches
from repro.processes.uniform import Uniform

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=64)
def every_set(length: int) -> Tensor:
    """All masked sets but the empty one, [2^L - 1, L] bool."""
    code = torch.arange(1, 1 << length)
    return (code[:, None] >> torch.arange(length)) & 1 == 1


@lru_cache(maxsize=64)
def level_sets(length: int, level: int) -> Tensor:
    """All sets of `level` positions in lexicographic order, [C(L, l), L] bool."""
    rows = torch.tensor(list(itertools.combinations(range(length), level)))
    return torch.zeros(len(rows), length, dtype=torch.bool).scatter(1, rows, True)


def random_sets(keys: Tensor, levels: Tensor, length: int) -> Tensor:
    """A uniform set of levels [n] positions for each key [n]: [n, L] bool."""
    return rng.uniform(keys, length).argsort(-1).argsort(-1) < levels[:, None]


def draw_keys(seed: int, row: int, passes: int, batch: int) -> tuple[Tensor, Tensor]:
    """A request's uniforms, one a pass [R], and its keys, one a draw [R * batch]."""
    keys = rng.fold(rng.keys(seed, rng.LIKELIHOOD, 0, row), torch.arange(passes))
    return rng.uniform(rng.fold(keys, -1)), rng.fold(keys[:, None], torch.arange(batch)).flatten()


@part
class Subsets(Masked):
    """Every masked set, for continuations of at most `longest` tokens (2^L - 1 forwards)."""

    longest: int
    score_is = "bound"

    def most(self, length: int) -> int:
        if length > self.longest:
            raise ValueError(
                f"a continuation of {length} tokens has {2**length - 1} masked sets; 'subsets' is pinned to "
                f"{self.longest} tokens, use 'levels'"
            )
        return 2**length - 1

    def design(self, length: int, row: int, seed: int) -> Design:
        self.most(length)
        return all_sets(length)


def all_sets(length: int) -> Design:
    """The design that draws nothing: weight 1 / (l C(L, l)) a set."""
    masked = every_set(length)
    level = masked.sum(1)
    sets = torch.tensor([math.comb(length, int(k)) for k in level], dtype=torch.float64)

    def weigh(losses: Tensor) -> tuple[float, float, None]:
        return -float((losses.sum(1) / (level * sets)).sum()), 0.0, None

    return Design(masked, level / length, weigh)


# --- Monte Carlo over mask counts and over times --------------------------------------------------------------


def _whole_passes(draws: int, batch: int) -> None:
    if batch < 1 or draws < batch or draws % batch:
        raise ValueError(f"draws={draws} are no whole number of passes of batch={batch}")


def _counted(levels: Tensor, masked: Tensor, passes: int) -> Design:
    """The design that weighs a set of l by L / l and averages passes of equal size."""
    length = masked.shape[1]

    def weigh(losses: Tensor) -> tuple[float, float | None, float | None]:
        values = (losses.sum(1) * length / levels).view(passes, -1).mean(1)
        return -float(values.mean()), *pass_error(values)

    return Design(masked, levels / length, weigh)


@part
class LladaMC(Masked):
    """`draws` in passes of `batch`: l_j = 1 + floor(L frac(u + j / batch)) with one u a pass
    (docs/method.md#llada-likelihood)."""

    draws: int
    batch: int
    score_is = "bound"

    def __post_init__(self) -> None:
        _whole_passes(self.draws, self.batch)

    def most(self, length: int) -> int:
        return self.draws

    def design(self, length: int, row: int, seed: int) -> Design:
        u, keys = draw_keys(seed, row, self.draws // self.batch, self.batch)
        levels = even_levels(u, length, self.batch).flatten()
        return _counted(levels, random_sets(keys, levels, length), len(u))


@part
class LladaRound(Masked):
    """`draws` in passes of `batch`: l_j = round(k + j L / batch), wrapped into 1..L, k uniform, as LLaDA's code has it
    (get_log_likelihood.py:7-25). torch rounds half to even, so l is not uniform unless j L / batch avoids halves."""

    draws: int
    batch: int
    score_is = "biased bound"

    def __post_init__(self) -> None:
        _whole_passes(self.draws, self.batch)

    def most(self, length: int) -> int:
        return self.draws

    def design(self, length: int, row: int, seed: int) -> Design:
        u, keys = draw_keys(seed, row, self.draws // self.batch, self.batch)
        levels = rounded_levels(1 + (u * length).long(), length, self.batch).flatten()
        return _counted(levels, random_sets(keys, levels, length), len(u))


def even_levels(u: Tensor, length: int, batch: int) -> Tensor:
    """Mask counts [..., batch], each uniform on 1..L for u [...] uniform on (0, 1)
    (docs/method.md#llada-likelihood)."""
    shifted = (u[..., None] + torch.arange(batch, dtype=torch.float64) / batch) % 1
    return (1 + (length * shifted).long()).clamp_max(length)


def rounded_levels(k: Tensor, length: int, batch: int) -> Tensor:
    """Mask counts [..., batch] as published, k [...] in 1..L: half to even, then wrapped into 1..L."""
    steps = k[..., None] + torch.arange(batch, dtype=torch.float64) * length / batch
    return (steps.round().long() - 1) % length + 1


@part
class ElboT(Estimator):
    """The bound's time integral: `draws` times in (eps, 1) in passes of `batch` stratified ones, its integrand (1/t sum
    over masked tokens under absorbing noise), the reconstruction at t = eps for what is below, and the prior term.

    Two forwards a draw. Few draws land where t is small, and those weigh 1/t: a short sum's standard error is itself
    uncertain. With 1,024 draws of 4 tokens a 95 % interval covers 92 to 94 % at eps = 1e-3, 95 % at 1e-2. `eps` stands
    in for the process's own.
    """

    draws: int
    batch: int
    eps: float
    processes = frozenset({"absorbing", "uniform"})
    score_is = "bound"

    def __post_init__(self) -> None:
        _whole_passes(self.draws, self.batch)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps={self.eps} is no time strictly between 0 and 1")

    def most(self, length: int) -> int:
        return 2 * self.draws

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        if isinstance(network.process, Uniform):
            process = replace(network.process, eps=self.eps)
            return [self._uniform(network, process, request, seed) for request in requests]
        return score_designs(
            network,
            requests,
            self.most,
            lambda length, row: self._absorbing(length, row, seed),
        )

    def _draws(self, row: int, seed: int) -> tuple[Tensor, Tensor]:
        """Stratified uniforms [draws] and a key a draw [draws]."""
        shared, keys = draw_keys(seed, row, self.draws // self.batch, self.batch)
        return ((shared[:, None] + torch.arange(self.batch) / self.batch) % 1).flatten(), keys

    def _averaged(self, nll: Tensor) -> tuple[float, float | None, float | None]:
        values = nll.view(-1, self.batch).mean(1)
        return -float(values.mean()), *pass_error(values)

    def _absorbing(self, length: int, row: int, seed: int) -> Design:
        u, keys = self._draws(row, seed)
        t = self.eps + (1 - self.eps) * u
        middle = rng.uniform(rng.fold(keys, 0), length) < t[:, None]
        tail = rng.uniform(rng.fold(keys, 1), length) < self.eps

        def weigh(losses: Tensor) -> tuple[float, float | None, float | None]:
            above, below = losses.sum(1).chunk(2)
            return self._averaged((1 - self.eps) * above / t + below)

        return Design(torch.cat([middle, tail]), torch.cat([t, torch.full_like(t, self.eps)]), weigh)

    def _uniform(self, network: Network, process: Uniform, request: Request, seed: int) -> Likelihood:
        from repro.models.attention import Mask
        from repro.models.prediction import Prediction

        u, keys = (value.to(network.device) for value in self._draws(request.row, seed))
        ids = torch.tensor(request.ids, device=network.device).expand(self.draws, -1)
        scored = (torch.arange(ids.shape[1], device=network.device) >= len(request.prompt)).expand_as(ids)
        found = []
        with torch.no_grad():
            for some in batches(self.draws, network.batch):
                found.append(
                    process.bound(
                        lambda noisy, t: Prediction(network.denoiser, noisy, t, Mask()),
                        ids[some],
                        scored[some],
                        network.vocabulary,
                        u[some],
                        keys[some],
                    )
                )
        network.forwards += 2 * self.draws
        return Likelihood(*self._averaged(torch.cat(found).cpu()), 2 * self.draws)
