"""Rules under uniform noise, their plans and laws."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
import torch

from helpers.spaces import (
    SPACE,
    Known,
    Law,
)
from repro.core.parts import part
from repro.processes.absorbing import Absorbing
from repro.processes.process import Diffusion
from repro.processes.uniform import Uniform
from repro.samplers.plan import Plan
from repro.samplers.sampler import Capabilities, Claim, Sampler, State
from repro.samplers.tail import Times

ABSORBING = Absorbing()


UNIFORM = Uniform(alpha_end=0.0, eps=1e-3)


NOISES = pytest.mark.parametrize("process", [ABSORBING, UNIFORM], ids=["absorbing", "uniform"])


MASK = 3


def plan(count: int) -> Plan:
    return Plan(gen_length=2, block_length=2, steps=count)


@part
class Until(Sampler):
    """A rule over other times, which may leave noise at the end."""

    rule: Sampler
    times: Times

    @property
    def capabilities(self) -> Capabilities:
        return self.rule.capabilities

    def claim(self) -> Claim:
        return "biased"

    def time(self, step: int, steps: int) -> float:
        return self.times.time(step, steps)

    def step(self, state: State) -> torch.Tensor:
        return self.rule.step(state)


def noisy(x: tuple[int, ...], process: Diffusion, t: float) -> Law:
    """q(z_t | x) of a sentence x."""
    found = process.marginal(
        torch.tensor([x]), torch.tensor([t], dtype=torch.float64), SPACE.words.vocabulary()
    )[0]
    ids = range(found.shape[-1])
    return {
        (y, w): float(found[0, y] * found[1, w]) for y in ids for w in ids if found[0, y] * found[1, w] > 0
    }


Step = Callable[[tuple[int, ...], int], Iterator[tuple[tuple[int, ...], float]]]
"""(ids, step) -> pairs of (next ids, probability)."""


Places = list[list[float]]
"""Probabilities of each id at each of two positions."""


def said(denoiser: Known, z: tuple[int, ...], t: float) -> Places:
    return denoiser.answer(torch.tensor([z]), torch.tensor([t], dtype=torch.float64))[0].tolist()


def follow(step: Step, count: int, process: Diffusion) -> Law:
    ids = [(MASK, MASK)] if isinstance(process, Absorbing) else list(itertools.product(range(3), repeat=2))
    states = {z: 1 / len(ids) for z in ids}
    for i in range(count):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for z, weight in states.items():
            for new, chance in step(z, i):
                after[new] += weight * chance
        states = dict(after)
    return states


def independent(laws: Places) -> Iterator[tuple[tuple[int, ...], float]]:
    for y, w in itertools.product(range(len(laws[0])), range(len(laws[1]))):
        if laws[0][y] * laws[1][w] > 0:
            yield (y, w), laws[0][y] * laws[1][w]


def reverse(p: list[float], z: int, a_t: float, a_s: float) -> list[float]:
    """Duo's plug-in posterior of one token, by its equation (docs/method.md#uniform-process)."""
    ratio, k = a_t / a_s, 3
    return [
        (
            k * a_t * p[z] * (y == z)
            + (ratio - a_t) * (y == z)
            + (a_s - a_t) * p[y]
            + (1 - ratio) * (1 - a_s) / k
        )
        / (k * a_t * p[z] + 1 - a_t)
        for y in range(3)
    ]


def after(first: Law, step: Step) -> Law:
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for z, weight in first.items():
        for new, chance in step(z, 0):
            found[new] += weight * chance
    return dict(found)


def even(count: int, end: float) -> list[float]:
    return torch.linspace(1, end, count + 1, dtype=torch.float64).tolist()
