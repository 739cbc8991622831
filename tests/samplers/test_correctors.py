"""Tails and correctors under uniform noise; streams draw the enumerated laws.

Symbols: x clean and z noisy tokens, V = 3 of them, L = 2 positions; N steps; a = alpha, K = V.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
import torch
from helpers.spaces import (
    SPACE,
    Known,
    Law,
    Space,
    chi_square,
    exact,
    random_space,
    stranger,
    total_variation,
)
from helpers.uniform_rules import (
    ABSORBING,
    NOISES,
    UNIFORM,
    Until,
    after,
    even,
    follow,
    independent,
    noisy,
    plan,
    reverse,
    said,
)

from repro.core import registry, rng
from repro.core.parts import part
from repro.processes.process import Diffusion
from repro.samplers.ancestral import Ancestral
from repro.samplers.corrector import Anywhere, Choice, Corrected, Doubtful
from repro.samplers.decode import decode
from repro.samplers.law import law
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS, preset
from repro.samplers.sampler import Capabilities, Claim, Sampler, State
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, HeldTimes, LinearTimes, Tail, Times

MEANINGS = pytest.mark.parametrize("meaning", ["leave_one_out", "x0_mean"])


FALSE_ALARM = 1e-6
"""False-alarm rate of each chi-square test; streams are keyed, so a test always gives the same result."""


@part
class Marginal(Sampler):
    """Draws a sentence from a given law at the first step, and does nothing afterwards."""

    law: tuple[float, ...]
    capabilities = Capabilities(
        frozenset({"uniform"}), plan="steps", revises=frozenset({"uniform"}), looks_at_draws=False
    )

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> torch.Tensor:
        if state.step > 0:
            return state.ids
        first = torch.zeros_like(state.active)
        first[:, 0] = True
        weights = torch.tensor([self.law] * len(state.ids), dtype=torch.float64)
        code = state.draw(weights, rng.REVEAL, first)
        return torch.stack([code // 3, code % 3], 1)


@part
class Held(Times):
    """A constant time."""

    at: float

    def time(self, step: int, steps: int) -> float:
        return self.at


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The decoding loop reads a rule's registered name."""
    monkeypatch.setitem(registry.PARTS, "until", f"{Until.__module__}:Until")


# --- tails --------------------------------------------------------------------------------------------------


@NOISES
def test_a_tail_costs_one_forward(process):
    """N + 1 forwards; absorbing rows without masks need no extra one."""
    denoiser = stranger(SPACE, process)
    out = decode(denoiser, process, preset("drawn_tail"), plan(4), [[]] * 50, seed=0, names=range(50))
    bare = decode(denoiser, process, preset("ancestral"), plan(4), [[]] * 50, seed=0, names=range(50))
    assert (bare.cost.forwards <= 4).all()
    assert (
        (out.cost.forwards == 5).all()
        if process == UNIFORM
        else (out.cost.forwards == bare.cost.forwards).all()
    )


@MEANINGS
def test_the_greedy_tail_ignores_the_own_token(meaning):
    """It takes the argmax of p(x_l | z without l), for either meaning of the output."""
    space = Space(torch.tensor([0.0, 0, 0.3, 0, 0.3, 0, 0.4, 0, 0]).double(), 3, 2)  # x2 = 2 - x1
    truth = {}
    for z in itertools.product(range(3), repeat=2):
        truth[z] = (2 - z[1], 2 - z[0])
    rule = Tail(rule=Ancestral(), times=LinearTimes(end=0.02), removal=GreedyRemoval())
    found = law(exact(space, UNIFORM, meaning), UNIFORM, rule, plan(3))
    before = law(
        exact(space, UNIFORM, meaning),
        UNIFORM,
        Until(rule=Ancestral(), times=LinearTimes(end=0.02)),
        plan(3),
    )
    assert total_variation(found, after(before, lambda z, i: iter([(truth[z], 1.0)]))) < 1e-10


@MEANINGS
def test_the_law_of_tails(meaning):
    """The drawn tail converges to the law as steps to 0 do; the greedy one does not."""
    denoiser = exact(SPACE, UNIFORM, meaning)
    drawn, greedy = (
        [total_variation(law(denoiser, UNIFORM, preset(name), plan(n)), SPACE.as_law()) for n in (16, 64)]
        for name in ("drawn_tail", "greedy_tail")
    )
    assert drawn[1] < 0.3 * drawn[0] < 0.01
    assert min(greedy) > 0.05
    assert preset("drawn_tail").claim() == "law" and preset("greedy_tail").claim() == "biased"


def test_held_times_fall():
    shares = ((0.45, 0.5), (0.01, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0))
    for (high, middle), steps in itertools.product(shares, (1, 2, 3, 8, 256)):
        times = HeldTimes(level=0.1, high=high, middle=middle, end=1e-5)
        found = [times.time(i, steps) for i in range(steps + 1)]
        assert found[0] == 1 and found[-1] == pytest.approx(1e-5)
        assert all(later <= sooner for sooner, later in itertools.pairwise(found))


# --- correctors ---------------------------------------------------------------------------------------------


def corrupted(space: Space, process: Diffusion, t: float) -> Law:
    """The marginal law of z at time t."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for x, weight in space.as_law().items():
        for z, chance in noisy(x, process, t).items():
            found[z] += weight * chance
    return dict(found)


def swept(denoiser: Known, start: Law, at: float, choice: Choice, sweeps: int, count: int) -> Law:
    """The law after sweeps at time `at` from a law of z, by enumeration."""
    weights = tuple(start[z] for z in itertools.product(range(3), repeat=2))
    rule = Corrected(rule=Marginal(law=weights), choice=choice, sweeps=1, count=count)
    return law(denoiser, UNIFORM, Until(rule=rule, times=Held(at=at)), plan(sweeps + 1))


SPACES = pytest.mark.parametrize("space", [SPACE, random_space(3, 2)], ids=["hidden", "random"])


@MEANINGS
@SPACES
@pytest.mark.parametrize("at", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("sweeps", [1, 3])
def test_a_corrector_keeps_the_marginal(meaning, space, at, sweeps):
    """One position, chosen independently of tokens, preserves p_s for an exact denoiser (arXiv 2605.22765)."""
    start = corrupted(space, UNIFORM, at)
    found = swept(exact(space, UNIFORM, meaning), start, at, Anywhere(), sweeps, 1)
    assert total_variation(found, start) < 1e-12


@pytest.mark.parametrize(
    ("choice", "count"), [(Anywhere(), 2), (Doubtful(temperature=1.0), 1)], ids=["both at once", "doubtful"]
)
def test_inexact_sweeps_change_the_marginal(choice, count):
    """Two positions at once, or a choice that depends on the tokens, change the marginal."""
    start = corrupted(SPACE, UNIFORM, 0.3)
    found = swept(exact(SPACE, UNIFORM), start, 0.3, choice, 1, count)
    assert total_variation(found, start) > 0.01
    assert Corrected(rule=Ancestral(), choice=choice, sweeps=1, count=count).claim() == "biased"


def test_exact_sweeps_claim_what_their_rule_claims():
    one = Corrected(rule=Ancestral(), choice=Anywhere(), sweeps=3, count=1)
    assert one.claim() == Ancestral().claim() == "law"
    tail = preset("greedy_tail")
    assert Corrected(rule=tail, choice=Anywhere(), sweeps=1, count=1).claim() == tail.claim() == "biased"


def test_a_wrong_output_meaning():
    """Negative control: leave-one-out outputs declared as posterior means change the marginal.

    The converse preserves it: drawing x0 given z and noising it again is a Gibbs step too, on the pair (x0, z).
    """
    start = corrupted(SPACE, UNIFORM, 0.3)
    wrong = Known(SPACE.words, UNIFORM, "x0_mean", exact(SPACE, UNIFORM, "leave_one_out").answer)
    assert total_variation(swept(wrong, start, 0.3, Anywhere(), 1, 1), start) > 0.01
    other = Known(SPACE.words, UNIFORM, "leave_one_out", exact(SPACE, UNIFORM, "x0_mean").answer)
    assert total_variation(swept(other, start, 0.3, Anywhere(), 1, 1), start) < 1e-12


@MEANINGS
def test_sweeps_converge_to_the_marginal(meaning):
    """Started from a single sentence, sweeps approach the marginal monotonically."""
    true = corrupted(SPACE, UNIFORM, 0.3)
    start = {z: float(z == (0, 2)) for z in itertools.product(range(3), repeat=2)}
    far = [
        total_variation(swept(exact(SPACE, UNIFORM, meaning), start, 0.3, Anywhere(), sweeps, 1), true)
        for sweeps in (0, 1, 2, 4, 16)
    ]
    assert all(later < 0.9 * sooner for sooner, later in itertools.pairwise(far))
    assert far[0] > 0.5 and far[-1] < 0.005


@MEANINGS
@pytest.mark.parametrize(
    ("choice", "sweeps"), [(Anywhere(), 2), (Doubtful(temperature=0.5), 1)], ids=["anywhere", "doubtful"]
)
@pytest.mark.parametrize("count", [1, 3])
def test_law_of_correctors(meaning, choice, sweeps, count):
    """Reference for ancestral steps and sweeps, with conditionals of no joint law and either meaning."""
    denoiser = stranger(SPACE, UNIFORM, meaning=meaning)
    times = even(count, 0.0)

    def loo(z, t):
        p = said(denoiser, z, t)
        if meaning == "leave_one_out":
            return p
        seen = [[(1 - t) * (v == token) + t / 3 for v in range(3)] for token in z]
        raw = [[a / b for a, b in zip(row, other, strict=True)] for row, other in zip(p, seen, strict=True)]
        return [[v / sum(row) for v in row] for row in raw]

    def sweep(z, s):
        laws = [[(1 - s) * v + s / 3 for v in row] for row in loo(z, s)]
        doubt = [1.0, 1.0]
        if isinstance(choice, Doubtful):
            for place, row in enumerate(laws):
                other = max(v for token, v in enumerate(row) if token != z[place])
                doubt[place] = (other / row[z[place]]) ** (1 / choice.temperature)
        for place, token in itertools.product(range(2), range(3)):
            new = tuple(token if here == place else old for here, old in enumerate(z))
            yield new, doubt[place] / sum(doubt) * laws[place][token]

    def step(z, i):
        t, s = times[i], times[i + 1]
        states = {z: 1.0}
        states = after(
            states,
            lambda z, _: independent(
                [reverse(p, token, 1 - t, 1 - s) for p, token in zip(loo(z, t), z, strict=True)]
            ),
        )
        for _ in range(sweeps if i + 1 < count else 0):
            states = after(states, lambda z, _: sweep(z, s))
        yield from states.items()

    rule = Corrected(rule=Ancestral(), choice=choice, sweeps=sweeps, count=1)
    assert total_variation(law(denoiser, UNIFORM, rule, plan(count)), follow(step, count, UNIFORM)) < 1e-10


@pytest.mark.parametrize("temperature", [1e-2, 1e-4, 1e-8])
def test_a_cold_choice_of_all_positions_redraws_each_once(temperature):
    """At a temperature at which all weights but the first underflow to 0, no position outside the block is chosen."""
    chosen = []
    rule = Corrected(rule=Ancestral(), choice=Doubtful(temperature=temperature), sweeps=1, count=4)
    space = random_space(3, 8)
    network = stranger(space, UNIFORM)
    with pytest.MonkeyPatch.context() as patched:
        inner = Corrected._chosen
        patched.setattr(Corrected, "_chosen", lambda *a: chosen.append(inner(*a)) or chosen[-1])
        made = Plan(gen_length=4, block_length=4, steps=6)
        decode(network, UNIFORM, rule, made, [[0, 1, 2, 1]], seed=0, names=[0])
    assert len(chosen) == 5 and all(each[0].tolist() == [False] * 4 + [True] * 4 for each in chosen)


def test_sweeps_are_counted():
    """N forwards of the predictor and N - 1 of each sweep; a tail adds one."""
    rule = Corrected(rule=Ancestral(), choice=Anywhere(), sweeps=3, count=1)
    tailed = Tail(rule=rule, times=LinearTimes(end=1e-3), removal=DrawnRemoval())
    for made, cost in ((rule, 5 + 4 * 3), (tailed, 5 + 4 * 3 + 1)):
        out = decode(exact(SPACE, UNIFORM), UNIFORM, made, plan(5), [[], []], seed=0, names=[0, 1])
        assert out.cost.forwards.tolist() == [cost] * 2 and out.cost.further.tolist() == [cost - 5] * 2


def test_correction_helps_at_equal_cost():
    """With an exact denoiser 16 steps with sweeps (31 forwards) have less than half the error of 32 plain steps."""
    denoiser = exact(SPACE, UNIFORM)

    def far(rule: Sampler, count: int) -> float:
        return total_variation(law(denoiser, UNIFORM, rule, plan(count)), SPACE.as_law())

    assert far(preset("corrector"), 16) < 0.5 * far(preset("ancestral"), 32)


def test_the_published_choice_of_positions_never_converges():
    """With doubtful positions first, as in diffusers, more steps increase the distance to the law."""
    denoiser = exact(SPACE, UNIFORM)
    far = [
        total_variation(law(denoiser, UNIFORM, preset("corrector_margin"), plan(n)), SPACE.as_law())
        for n in (8, 32)
    ]
    assert far[1] > far[0] > 0.05 and preset("corrector_margin").claim() == "biased"


# --- streams draw these laws --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("psi_loop", "uniform"),
        ("psi_loop", "absorbing"),
        ("psi_cap", "absorbing"),
        ("drawn_tail", "uniform"),
        ("greedy_tail", "uniform"),
        ("corrector", "uniform"),
        ("corrector_margin", "uniform"),
        ("renoise", "uniform"),
    ],
)
def test_streams_draw_the_enumerated_law(name, noise):
    """Chi-square of 50,000 decoded rows over the 9 sentences."""
    process: Any = {"uniform": UNIFORM, "absorbing": ABSORBING}[noise]
    denoiser, rule = stranger(SPACE, process), PRESETS[name]
    expected = law(denoiser, process, rule, plan(6))
    ids = decode(denoiser, process, rule, plan(6), [[]] * 50_000, seed=5, names=range(50_000)).ids
    counts = torch.bincount(ids @ torch.tensor([3, 1]), minlength=9).double()
    chances = torch.tensor([expected.get(x, 0.0) for x in itertools.product(range(3), repeat=2)])
    assert chi_square(counts, chances) > FALSE_ALARM
