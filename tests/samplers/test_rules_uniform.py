"""Rules for uniform noise, and psi for both noises: preserved marginals, and laws against reference implementations.

Symbols: x clean and z noisy tokens, V = 3 of them, L = 2 positions; N steps; a = alpha, K = V.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
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

from repro.core import registry, rng
from repro.core.parts import part
from repro.processes.absorbing import Absorbing
from repro.processes.process import Diffusion
from repro.processes.uniform import Uniform
from repro.samplers.ancestral import Ancestral
from repro.samplers.corrector import Anywhere, Choice, Corrected, Doubtful
from repro.samplers.decode import decode
from repro.samplers.law import law
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS, preset
from repro.samplers.psi import (
    ConstantKappa,
    ConstantSigma,
    Kappa,
    MaxCapped,
    MaxRescaled,
    Psi,
    PurePC,
    PurePosterior,
)
from repro.samplers.sampler import Capabilities, Claim, Sampler, State
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, HeldTimes, LinearTimes, Tail, Times

ABSORBING = Absorbing()
UNIFORM = Uniform(alpha_end=0.0, eps=1e-3)
NOISES = pytest.mark.parametrize("process", [ABSORBING, UNIFORM], ids=["absorbing", "uniform"])
MEANINGS = pytest.mark.parametrize("meaning", ["leave_one_out", "x0_mean"])
MASK = 3
FALSE_ALARM = 1e-6
"""False-alarm rate of each chi-square test; streams are keyed, so a test always gives the same result."""
MODES: list[Kappa] = [
    PurePosterior(),
    PurePC(),
    ConstantKappa(value=0.3),
    MaxCapped(eta=0.4),
    MaxRescaled(eta=0.7),
    ConstantSigma(eta=0.2),
]
KINDS = pytest.mark.parametrize("mode", MODES, ids=lambda mode: registry.part_name(type(mode)))


def plan(count: int) -> Plan:
    return Plan(gen_length=2, block_length=2, steps=count)


def whole(mode: Kappa) -> Psi:
    """Psi with one kind of kappa in all segments."""
    return Psi(high=mode, middle=mode, low=mode, high_frac=0.0, middle_frac=0.0)


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
    monkeypatch.setitem(registry.PARTS, "until", f"{__name__}:Until")


# --- marginals that psi preserves (docs/method.md#oracle-4) -------------------------------------------------


def knows(x: tuple[int, ...], process: Diffusion) -> Known:
    """A denoiser that predicts x with certainty."""
    answer = torch.nn.functional.one_hot(torch.tensor([x]), 3).double()
    return Known(SPACE.words, process, "leave_one_out", lambda ids, t: answer.expand(len(ids), -1, -1))


def noisy(x: tuple[int, ...], process: Diffusion, t: float) -> Law:
    """q(z_t | x) of a sentence x."""
    found = process.marginal(
        torch.tensor([x]), torch.tensor([t], dtype=torch.float64), SPACE.words.vocabulary()
    )[0]
    ids = range(found.shape[-1])
    return {
        (y, w): float(found[0, y] * found[1, w]) for y in ids for w in ids if found[0, y] * found[1, w] > 0
    }


@NOISES
@KINDS
@pytest.mark.parametrize("x", [(0, 0), (2, 1)])
def test_psi_keeps_the_marginal(process, mode, x):
    """With x known, the ids follow q(z_s | x) after every step, for any kappa."""
    for end in (0.7, 0.25):
        rule = Until(rule=whole(mode), times=LinearTimes(end=end))
        for count in (1, 3):
            found = law(knows(x, process), process, rule, plan(count))
            assert total_variation(found, noisy(x, process, end)) < 1e-12


def test_a_wrong_mixture_does_not_keep_the_marginal(monkeypatch):
    """Negative control: a step with another alpha."""
    right = Absorbing.alpha
    rule = Until(rule=whole(PurePC()), times=LinearTimes(end=0.5))
    monkeypatch.setattr(Absorbing, "alpha", lambda self, t: right(self, t) ** 1.01)
    found = law(knows((0, 1), ABSORBING), ABSORBING, rule, plan(2))
    assert total_variation(found, noisy((0, 1), ABSORBING, 0.5)) < 1e-12
    monkeypatch.setattr(Absorbing, "alpha", right)
    assert total_variation(found, noisy((0, 1), ABSORBING, 0.5)) > 1e-3


# --- laws against reference implementations -----------------------------------------------------------------

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


def kappas(kind: str, eta: float, times: list[float]) -> list[float]:
    """Duo's kappas for the times of a segment, as in its code, with a = 1 - t (docs/method.md#uniform-samplers)."""
    if kind in ("one", "zero", "constant"):
        return [{"one": 1.0, "zero": 0.0, "constant": eta}[kind]] * len(times)
    found = []
    for t, s in itertools.pairwise(times):
        a_t, a_s = 1 - t, 1 - s
        most = math.inf if a_t == 0 else (1 - a_s) / a_t
        rescaled = eta if a_t == 0 else eta * min(eta, most)
        sigma = {"cap": min(eta, most), "rescale": rescaled, "loop": eta}[kind]
        # at s = 0 both parts of the mixture are equal
        found.append(1.0 if a_s == 1 else min(max(1 - sigma / (1 - a_s), 0.0), 1.0))
    return [*found, 1.0][: len(times)]


def psi_reference(
    denoiser: Known, process: Diffusion, times: list[float], segments: list[tuple[str, float, int]]
) -> Step:
    """The mixture at each step; `segments`: (kind, eta, number of times) in order."""
    weights: list[float] = []
    for kind, eta, length in segments:
        weights += kappas(kind, eta, times[len(weights) : len(weights) + length])

    def step(z, i):
        t, s, kappa = times[i], times[i + 1], weights[i]
        a_t, a_s = 1 - t, 1 - s
        p, laws = said(denoiser, z, t), []
        for place, token in enumerate(z):
            if isinstance(process, Absorbing):
                stays = [float(y == token) for y in range(4)]
                clean = [*p[place], 0.0] if token == MASK else stays
                back = [v * (a_s - a_t) / (1 - a_t) for v in clean] if token == MASK else list(stays)
                back[MASK] += (1 - a_s) / (1 - a_t) if token == MASK else 0.0
                noise = [0.0, 0.0, 0.0, 1.0]
            else:
                back = reverse(p[place], token, a_t, a_s)
                clean = reverse(p[place], token, a_t, 1.0)
                noise = [1 / 3] * 3
            forth = [a_s * c + (1 - a_s) * n for c, n in zip(clean, noise, strict=True)]
            laws.append([kappa * b + (1 - kappa) * f for b, f in zip(back, forth, strict=True)])
        yield from independent(laws)

    return step


PAPER = {
    "pure_posterior": ("one", 0.0),
    "pure_pc": ("zero", 0.0),
    "constant_kappa": ("constant", 0.3),
    "max_capped": ("cap", 0.4),
    "max_rescaled": ("rescale", 0.7),
    "constant_sigma": ("loop", 0.2),
}


def cleaned(process: Diffusion, denoiser: Known, t: float, greedy: bool) -> Step:
    """Noise removal at time t."""

    def step(z, i):
        p, laws = said(denoiser, z, t), []
        for place, token in enumerate(z):
            if isinstance(process, Absorbing) and token != MASK:
                laws.append([float(y == token) for y in range(3)])
            elif greedy:
                laws.append([float(y == p[place].index(max(p[place]))) for y in range(3)])
            else:
                masked = isinstance(process, Absorbing)
                laws.append(p[place] if masked else reverse(p[place], token, 1 - t, 1.0))
        yield from independent(laws)

    return step


def after(first: Law, step: Step) -> Law:
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for z, weight in first.items():
        for new, chance in step(z, 0):
            found[new] += weight * chance
    return dict(found)


def even(count: int, end: float) -> list[float]:
    return torch.linspace(1, end, count + 1, dtype=torch.float64).tolist()


@NOISES
@KINDS
@pytest.mark.parametrize("count", [1, 2, 5])
def test_law_of_psi(process, mode, count):
    """Steps to s = 0, with conditionals of no joint law."""
    denoiser = stranger(SPACE, process)
    kind, eta = PAPER[registry.part_name(type(mode))]
    times = even(count, 0.0)
    truth = follow(psi_reference(denoiser, process, times, [(kind, eta, count + 1)]), count, process)
    assert total_variation(law(denoiser, process, whole(mode), plan(count)), truth) < 1e-10


@NOISES
@pytest.mark.parametrize("count", [7, 8])
@pytest.mark.parametrize("greedy", [False, True], ids=["drawn", "greedy"])
def test_law_of_segments_and_tails(process, count, greedy):
    """Three kinds of kappa, constant time, noise removal: Duo's loop with its rounding and its forced kappas of 1."""
    high, middle, end, level = 0.4, 0.3, 0.05, 0.3
    n = count + 1
    first, held = round(high * n), round(middle * n)
    times = [
        *torch.linspace(1, level, first, dtype=torch.float64).tolist(),
        *[level] * held,
        *torch.linspace(level, end, n - first - held, dtype=torch.float64).tolist(),
    ]
    segments = [("cap", 0.6, first), ("loop", 0.1, held), ("constant", 0.5, n - first - held)]
    denoiser = stranger(SPACE, process)
    rule = Tail(
        rule=Psi(
            high=MaxCapped(eta=0.6),
            middle=ConstantSigma(eta=0.1),
            low=ConstantKappa(value=0.5),
            high_frac=high,
            middle_frac=middle,
        ),
        times=HeldTimes(level=level, high=high, middle=middle, end=end),
        removal=GreedyRemoval() if greedy else DrawnRemoval(),
    )
    assert [rule.time(i, count) for i in range(n)] == pytest.approx(times, abs=1e-15)
    truth = follow(psi_reference(denoiser, process, times, segments), count, process)
    truth = after(truth, cleaned(process, denoiser, end, greedy))
    assert total_variation(law(denoiser, process, rule, plan(count)), truth) < 1e-10


def test_kappas_at_pure_noise():
    """At alpha_t = 0 kappa does not matter, but it equals Duo's: sigma = eta for both cap and rescale."""
    zero, later = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.25, dtype=torch.float64)
    for mode in (MaxCapped(eta=0.5), MaxRescaled(eta=0.5)):
        assert mode.kappa(zero, later, False).item() == pytest.approx(1 - 0.5 / 0.75)
    assert MaxRescaled(eta=0.5).kappa(later, later, False).item() == pytest.approx(1 - 0.25 / 0.75)


@pytest.mark.parametrize("eta", [0.05, 0.4])
@pytest.mark.parametrize("count", [2, 5])
def test_psi_of_absorbing_noise_is_remdm(eta, count):
    """kappa = 1 - sigma/(1 - a_s) is ReMDM with that sigma (docs/method.md#remdm, docs/method.md#oracle-4)."""
    denoiser = stranger(SPACE, ABSORBING)
    times = even(count, 0.0)

    def step(z, i):
        a_t, a_s = 1 - times[i], 1 - times[i + 1]
        sigma = min(eta, 1 - a_s)  # ReMDM allows up to (1 - a_s)/a_t, which no kappa gives
        p, laws = said(denoiser, z, times[i]), []
        for place, token in enumerate(z):
            if token == MASK:
                shown = (a_s - (1 - sigma) * a_t) / (1 - a_t)
                laws.append([*[shown * v for v in p[place]], (1 - a_s - sigma * a_t) / (1 - a_t)])
            else:
                laws.append([(1 - sigma) * (y == token) + sigma * (y == MASK) for y in range(4)])
        yield from independent(laws)

    found = law(denoiser, ABSORBING, whole(MaxCapped(eta=eta)), plan(count))
    assert total_variation(found, follow(step, count, ABSORBING)) < 1e-10


@pytest.mark.parametrize(
    ("name", "process"),
    [("psi_loop", UNIFORM), ("psi_loop", ABSORBING), ("corrector", UNIFORM), ("greedy_tail", UNIFORM)],
    ids=["psi", "psi absorbing", "corrector", "tail"],
)
def test_truncation_comes_before_the_rule(name, process):
    """Duo's p_nucleus: x_theta is truncated before the rule uses it, in every forward of a step."""
    rule = preset(name)
    denoiser = stranger(SPACE, process)

    def cut(ids: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        p = denoiser.answer(ids, t)
        ordered, order = p.sort(-1, descending=True)
        stays = ordered.cumsum(-1) - ordered <= 0.7
        p = p * torch.zeros_like(stays).scatter(-1, order, stays)
        return p / p.sum(-1, keepdim=True)

    known = Known(SPACE.words, process, "leave_one_out", cut)
    found = law(denoiser, process, preset(f"{name}+top_p:p=0.7"), plan(5))
    assert total_variation(found, law(known, process, rule, plan(5))) < 1e-10
    assert total_variation(found, law(denoiser, process, rule, plan(5))) > 0.01


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
    times = HeldTimes(level=0.1, high=0.45, middle=0.5, end=1e-5)
    for steps in (1, 2, 3, 8, 256):
        found = [times.time(i, steps) for i in range(steps + 1)]
        assert found[0] == 1 and found[-1] == pytest.approx(1e-5)
        assert all(later <= sooner for sooner, later in itertools.pairwise(found))


# --- claims of psi ------------------------------------------------------------------------------------------


def test_psi_claims_the_law_where_it_converges():
    """kappa = 1 is ancestral, with error 1/N; for smaller kappa the error halves when N quadruples."""
    denoiser = exact(SPACE, UNIFORM)
    for mode, claim, low, high in (
        (PurePosterior(), "law", 0.2, 0.3),
        (MaxCapped(eta=0.2), "biased", 0.4, 0.6),
        (PurePC(), "biased", 0.4, 0.6),
    ):
        far = [
            total_variation(law(denoiser, UNIFORM, whole(mode), plan(n)), SPACE.as_law()) for n in (32, 128)
        ]
        assert whole(mode).claim() == claim and low < far[1] / far[0] < high


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
