"""Psi samplers: preserved marginals, and laws against reference implementations.

Symbols: x clean and z noisy tokens, V = 3 of them, L = 2 positions; N steps; a = alpha, K = V.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.spaces import (
    SPACE,
    Known,
    exact,
    stranger,
    total_variation,
)
from helpers.uniform_rules import (
    ABSORBING,
    MASK,
    NOISES,
    UNIFORM,
    Step,
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

from repro.core import parts, registry
from repro.processes.absorbing import Absorbing
from repro.processes.process import Diffusion
from repro.samplers.law import law
from repro.samplers.presets import preset
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
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, HeldTimes, LinearTimes, Tail

MODES: list[Kappa] = [
    PurePosterior(),
    PurePC(),
    ConstantKappa(value=0.3),
    MaxCapped(eta=0.4),
    MaxRescaled(eta=0.7),
    ConstantSigma(eta=0.2),
]


KINDS = pytest.mark.parametrize("mode", MODES, ids=lambda mode: parts.part_name(type(mode)))


def whole(mode: Kappa) -> Psi:
    """Psi with one kind of kappa in all segments."""
    return Psi(high=mode, middle=mode, low=mode, high_frac=0.0, middle_frac=0.0)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The decoding loop reads a rule's registered name."""
    monkeypatch.setitem(registry.PARTS, "until", f"{Until.__module__}:Until")


# --- marginals that psi preserves (docs/method.md#oracle-4) -------------------------------------------------


def knows(x: tuple[int, ...], process: Diffusion) -> Known:
    """A denoiser that predicts x with certainty."""
    answer = torch.nn.functional.one_hot(torch.tensor([x]), 3).double()
    return Known(SPACE.words, process, "leave_one_out", lambda ids, t: answer.expand(len(ids), -1, -1))


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


@NOISES
@KINDS
@pytest.mark.parametrize("count", [1, 2, 5])
def test_law_of_psi(process, mode, count):
    """Steps to s = 0, with conditionals of no joint law."""
    denoiser = stranger(SPACE, process)
    kind, eta = PAPER[parts.part_name(type(mode))]
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
