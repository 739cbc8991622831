"""Reference implementations of samplers: a step yields every next state with its probability.

Three tokens, mask id 3. A state is a tuple of ids, or a larger tuple for rules with memory.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from helpers.spaces import Known, Law

Step = Callable[[tuple[int, ...], int, int], Iterator[tuple[tuple[int, ...], float]]]
"""(state, step, steps) -> pairs of (next state, probability)."""
MASK = 3


def said(denoiser: Known, z: tuple[int, ...], t: float = 0.5) -> list[list[float]]:
    """The network's probabilities, [L][V], for noisy ids z at time t."""
    return denoiser.answer(torch.tensor([z]), torch.tensor([t], dtype=torch.float64))[0].tolist()


def follow(step: Step, start: Law, count: int) -> Law:
    """The law of the state after `count` steps from `start`."""
    states = start
    for i in range(count):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for z, weight in states.items():
            for new, chance in step(z, i, count):
                after[new] += weight * chance
        states = dict(after)
    return states


def written(z: tuple[int, ...], tokens: dict[int, int]) -> tuple[int, ...]:
    return tuple(tokens.get(place, token) for place, token in enumerate(z))


def masked(z: tuple[int, ...]) -> list[int]:
    return [place for place, token in enumerate(z) if token == MASK]


def tempered(p: list[float], temperature: float) -> list[float]:
    powers = [v ** (1 / temperature) for v in p]
    return [v / sum(powers) for v in powers]


def token_draws(
    p: list[list[float]], places: list[int], temperature: float
) -> Iterator[tuple[dict[int, int], float]]:
    """Every assignment of drawn tokens to `places`, with its probability."""
    sharp = {place: tempered(p[place], temperature) for place in places}
    for tokens in itertools.product(range(3), repeat=len(places)):
        yield (
            dict(zip(places, tokens, strict=True)),
            math.prod(sharp[i][v] for i, v in zip(places, tokens, strict=True)),
        )


def best(scores: dict[int, float], count: int) -> list[int]:
    return sorted(scores, key=lambda place: (-scores[place], place))[:count]


def quota(length: int, i: int, count: int) -> int:
    return length // count + (i < length % count)
