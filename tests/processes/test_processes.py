"""Noise processes: laws against Bayes' rule by enumeration, bounds against log-likelihoods by quadrature.

Every registered process is tested; one with settings needs a line in `PINS`.

Symbols: K ids, x clean, z noisy, x_theta the network's prediction, loo a leave-one-out conditional.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from helpers.spaces import (
    SPACE,
    Known,
    Space,
    Words,
    channel,
    chi_square,
    exact,
    llama,
    predict,
    random_space,
    stranger,
)
from torch import Tensor

from repro.core import parts, registry, rng
from repro.core.parts import part
from repro.evals.likelihood.estimator_presets import default, estimator
from repro.processes import absorbing, blocks, gaussian
from repro.processes.absorbing import Absorbing
from repro.processes.bayes import leave_one_out, plug_in, x0_mean
from repro.processes.process import Diffusion, Process
from repro.processes.uniform import Uniform, integrand
from repro.recipes.scale import by_name
from repro.samplers.plan import Plan, check
from repro.samplers.presets import preset

PAIRS = [(0.1, 0.3), (0.0, 0.5), (0.4, 0.41), (0.2, 1.0), (0.65, 0.9)]  # (s, t)
PINS = {
    "uniform": {"alpha_end": 1e-3, "eps": 1e-3},
    "block_absorbing": {"block": 2},  # the whole row of `SPACE`; shorter blocks are in test_blocks.py
}
"""Settings with which a registered process is tested; none for one that has none."""


def registered() -> dict[str, Process]:
    """An example of each registered process, by name."""
    classes = {name: parts.part_class(name) for name in registry.PARTS}
    found = {name: cls for name, cls in classes.items() if issubclass(cls, Process)}
    for name, cls in found.items():
        lacking = {field.name for field in dataclasses.fields(cls)} - PINS.get(name, {}).keys()
        assert not lacking, f"process {name!r} has settings {lacking}: give values in PINS of {__file__}"
    return {name: cls(**PINS.get(name, {})) for name, cls in found.items()}


REGISTERED = registered()
ABSORBING, UNIFORM = REGISTERED["absorbing"], REGISTERED["uniform"]
DIFFUSIONS = {name: process for name, process in REGISTERED.items() if isinstance(process, Diffusion)}


def over(processes: dict[str, Process]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("process", processes.values(), ids=processes)


PROCESSES = over(DIFFUSIONS)
MASKING = over({name: process for name, process in DIFFUSIONS.items() if process.masks})
CAUSAL = over({name: process for name, process in REGISTERED.items() if process.causal})
DENOISERS = pytest.mark.parametrize("denoiser", [exact, stranger], ids=["exact", "stranger"])
FALSE_ALARM = 1e-6
"""Level of each chi-square test; its random keys are fixed, so its outcome never changes."""


def column(value: float, rows: int) -> Tensor:
    return torch.full((rows,), value, dtype=torch.float64)


def random_laws(rows: int, count: int, step: int = 0) -> Tensor:
    return (1.5 * rng.normal(rng.keys(0, rng.INIT, step, torch.arange(rows)), count)).softmax(-1)


def time_of(process: Diffusion, alpha: float) -> float:
    """The time at which a token is intact with probability `alpha`, by bisection (alpha falls with time)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        above = process.alpha(torch.tensor(middle, dtype=torch.float64)).item() > alpha
        low, high = (middle, high) if above else (low, middle)
    return low


def everywhere(ids: Tensor) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool)


def noisy_sentences(space: Space, process: Diffusion) -> Tensor:
    """Every noisy z [n, L] that the process can produce."""
    ids = range(space.size + process.masks)
    return torch.tensor(list(itertools.product(ids, repeat=space.length)))


def kernel(process: Diffusion, count: int, s: float, t: float) -> Tensor:
    """q(z_t = j | z_s = i) [total, total]: intact with probability alpha_t / alpha_s, else noise."""
    ends = torch.tensor([s, t], dtype=torch.float64)
    alpha_s, alpha_t = process.alpha(ends).tolist()
    intact = alpha_t / alpha_s if alpha_s else 0.0
    total = count + 2
    noise = torch.zeros(total, total, dtype=torch.float64)
    if process.masks:
        noise[:, count] = 1.0
    else:
        noise[:count, :count] = 1 / count
    return intact * torch.eye(total, dtype=torch.float64) + (1 - intact) * noise


# --- corruption ---------------------------------------------------------------------------------------------


@PROCESSES
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_two_steps_of_corruption_are_one(process, s, t):
    """Chapman-Kolmogorov: q(t | x) = sum over z_s of q(s | x) q(t | z_s) (docs/method.md#oracle-1)."""
    words = Words(size=5, length=1)
    x = torch.arange(5)[:, None]
    early, late = (process.marginal(x, column(u, 5), words.vocabulary())[:, 0] for u in (s, t))
    assert (early @ kernel(process, 5, s, t) - late).abs().max() < 1e-12


@PROCESSES
def test_corruption_has_its_marginal_law(process, monkeypatch):
    """Every cell of a grid of uniform numbers is used once, so the frequencies equal the law."""
    cells, vocabulary = 60, SPACE.words.vocabulary()
    grid = (torch.tensor(list(itertools.product(range(cells), repeat=2))) + 0.5) / cells
    monkeypatch.setattr(rng, "uniform", lambda keys, *shape: grid[keys].double())
    x = torch.tensor([[2, 0]]).expand(len(grid), -1)
    t = column(time_of(process, 0.4), len(grid))
    z = process.corrupt(x, t, torch.arange(len(grid)), everywhere(x), vocabulary)
    counts = torch.zeros(vocabulary.total, vocabulary.total, dtype=torch.float64)
    counts.index_put_((z[:, 0], z[:, 1]), torch.ones(len(z)).double(), accumulate=True)
    one, two = process.marginal(x[:1], t[:1], vocabulary)[0]
    assert (counts / len(grid) - one[:, None] * two).abs().max() < 1e-12
    nowhere = torch.zeros_like(x, dtype=torch.bool)
    assert torch.equal(process.corrupt(x, t, torch.arange(len(grid)), nowhere, vocabulary), x)


@PROCESSES
def test_corruption_draws_its_marginal_law(process):
    """Chi-square of 60,000 keyed rows over all pairs of ids."""
    rows, vocabulary = 60_000, SPACE.words.vocabulary()
    x, t = torch.tensor([[2, 0]]).expand(rows, -1), column(0.35, rows)
    keys = rng.keys(1, rng.CORRUPT, 0, torch.arange(rows))
    z = process.corrupt(x, t, keys, everywhere(x), vocabulary)
    counts = torch.bincount(z[:, 0] * vocabulary.total + z[:, 1], minlength=vocabulary.total**2).double()
    one, two = process.marginal(x[:1], t[:1], vocabulary)[0]
    assert chi_square(counts, (one[:, None] * two).flatten()) > FALSE_ALARM


# --- the reverse step ---------------------------------------------------------------------------------------


def bayes(process: Diffusion, count: int, s: float, t: float) -> Tensor:
    """q(z_s | z_t = z, x) [x, z, z_s] by Bayes; rows of impossible (x, z) are zero."""
    x = torch.arange(count)[:, None]
    words = Words(size=count, length=1)
    early = process.marginal(x, column(s, count), words.vocabulary())[:, 0]
    joint = early[:, None, :] * kernel(process, count, s, t).T[None]
    return joint / joint.sum(-1, keepdim=True).clamp_min(1e-300)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_uniform_posterior_is_bayes(s, t):
    """The closed form of docs/method.md#uniform-process against enumeration, K = 5 (docs/method.md#oracle-1)."""
    alpha = UNIFORM.alpha(torch.tensor([s, t], dtype=torch.float64))
    x, z = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T
    law = plug_in(torch.nn.functional.one_hot(x, 5).double(), z, alpha[1].expand(25), alpha[0].expand(25))
    assert (law - bayes(UNIFORM, 5, s, t)[x, z, :5]).abs().max() < 1e-12


@PROCESSES
@pytest.mark.parametrize("meaning", ["x0_mean", "leave_one_out"])
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_posterior_is_the_reverse_of_corruption(process, meaning, s, t):
    """Exact denoiser: sum over x of p(x_l | z) q(z_s | z, x_l) at every possible z (docs/method.md#oracle-2,
    docs/method.md#oracle-11)."""
    z = noisy_sentences(SPACE, process)
    time = column(t, len(z))
    prediction = predict(exact(SPACE, process, meaning))(z, time)
    law = process.posterior(z, prediction, time, column(s, len(z)), everywhere(z)).view(len(z), 2, 5)
    mean = SPACE.conditionals(channel(SPACE, process, z, time), own=True)
    steps = bayes(process, 3, s, t)
    truth = torch.einsum("nlx,xnlj->nlj", mean.nan_to_num(), steps[:, z])
    possible = truth.sum(-1) > 0.5  # at t = 1 absorbing noise leaves no clean token
    assert possible.any() and (law - truth)[possible].abs().max() < 1e-12


def test_plug_in_of_a_soft_token_is_a_law():
    """Numerator and denominator both take x_theta, so the sum stays 1 (docs/method.md#oracle-3)."""
    soft, z = random_laws(40, 7), torch.arange(40) % 7
    for s, t in PAIRS:
        alpha_s, alpha_t = UNIFORM.alpha(torch.tensor([[s], [t]], dtype=torch.float64)).expand(2, 40)
        law = plug_in(soft, z, alpha_t, alpha_s)
        assert (law.sum(-1) - 1).abs().max() < 1e-12 and law.min() >= 0


@pytest.mark.parametrize("alpha", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_both_meanings_are_one_law(alpha):
    """Each converts to the other; the plug-in of `loo` is the mixture by `x0_mean` (docs/method.md#oracle-11)."""
    count, level = 7, column(alpha, 40)
    mean, z = random_laws(40, count), torch.arange(40) % count
    loo = leave_one_out(mean, z, level)
    assert (x0_mean(loo, z, level) - mean).abs().max() < 1e-12
    earlier = (1 + level) / 2
    each = torch.stack(
        [
            plug_in(torch.nn.functional.one_hot(torch.full((40,), x), count).double(), z, level, earlier)
            for x in range(count)
        ]
    )
    mixture = torch.einsum("nx,xnj->nj", mean, each)
    assert (plug_in(loo, z, level, earlier) - mixture).abs().max() < 1e-12


# --- the integrand of uniform noise -------------------------------------------------------------------------


def rate_form(loo: Tensor, x: Tensor, z: Tensor, alpha: Tensor, slope: Tensor) -> Tensor:
    """KL of jump rates: -a'/(K a) sum over y != z of [r log(r/rt) - r + rt], r = q(y | x) / q(z | x)."""
    count = loo.shape[-1]
    true = count * alpha[:, None] * torch.nn.functional.one_hot(x, count) + 1 - alpha[:, None]
    predicted = count * alpha[:, None] * loo + 1 - alpha[:, None]
    r, rt = (v / v.gather(1, z[:, None]) for v in (true, predicted))
    terms = (r * (r / rt).log() - r + rt).scatter(1, z[:, None], 0.0)
    return -slope / (count * alpha) * terms.sum(-1)


def test_integrand_is_the_divergence_of_jump_rates():
    """The closed form of docs/method.md#duo-nelbo equals the rate form, so it is never negative
    (docs/method.md#oracle-5, docs/method.md#oracle-6)."""
    count = 6
    x, z, guess = torch.cartesian_prod(*[torch.arange(n) for n in (count, count, 20)]).T
    loo, slope = random_laws(20, count)[guess], column(-0.999, len(x))
    for alpha in (1e-3, 0.05, 0.3, 0.5, 0.9, 0.99, 0.999):
        level = column(alpha, len(x))
        f, rate = integrand(loo, x, z, level, slope), rate_form(loo, x, z, level, slope)
        assert ((f - rate).abs() / (1 + rate)).max() < 1e-10
        assert f.min() > -1e-12


def test_integrand_vanishes_when_the_token_is_known():
    """f -> 0 as x_theta -> x (docs/method.md#oracle-6)."""
    x, z = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T
    clean, level, slope = torch.nn.functional.one_hot(x, 5).double(), column(0.4, 25), column(-1.0, 25)
    worst = [
        integrand((1 - d) * clean + d / 5, x, z, level, slope).abs().max().item() for d in (1e-2, 1e-4, 1e-6)
    ]
    assert worst[0] < 1 and worst[1] < 1e-3 * worst[0] and worst[2] < 1e-9


# --- bounds -------------------------------------------------------------------------------------------------


def expected_bound(
    process: Diffusion,
    denoiser: Known,
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
    tail: bool = True,
) -> Tensor:
    """E[`process.bound`] of every sentence, [S]: Gauss-Legendre in log t times all pairs of corruptions.

    For absorbing noise: the sum over all subsets of positions, which needs no quadrature and has no tail. For uniform
    noise `bound` corrupts twice, at t and at eps; each draw is replaced by every possible noisy sentence. Without
    `tail` the second is the clean sentence, whose reconstruction term is 0.
    """
    if process.masks:
        return all_subsets(process, denoiser, space, monkeypatch)
    assert process.noise == "uniform", (
        f"no expected bound is written out for {process.noise} noise; add one here"
    )
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    reach = -math.log(process.eps)
    t = (reach * (nodes - 1) / 2).exp()
    du = weights * reach / 2 * t / (1 - process.eps)
    u = (t - process.eps) / (1 - process.eps)
    x, z = space.sentences, noisy_sentences(space, process)
    sentence, node, middle, end = torch.cartesian_prod(
        *[torch.arange(n) for n in (len(x), len(t), len(z), len(z))]
    ).T

    def chance(time: Tensor) -> Tensor:
        """q(z | x) of all (time, x, z): [T, S, Z]."""
        vocabulary = space.words.vocabulary()
        laws = torch.stack([process.marginal(x, column(v, len(x)), vocabulary) for v in time.tolist()])
        return laws[:, :, torch.arange(space.length), z].prod(-1)

    weight = du[node] * chance(t)[node, sentence, middle] * chance(column(process.eps, 1))[0, sentence, end]
    used = weight > 0
    sentence, node, weight = sentence[used], node[used], weight[used]
    clean = x[sentence]
    draws_z = iter([z[middle[used]], z[end[used]] if tail else clean])
    with monkeypatch.context() as patched:
        patched.setattr(type(process), "corrupt", lambda *_: next(draws_z))
        draws = process.bound(
            predict(denoiser), clean, everywhere(clean), space.words.vocabulary(), u[node], sentence
        )
    assert next(draws_z, None) is None
    return torch.zeros(len(x), dtype=torch.float64).index_add(0, sentence, weight * draws)


def all_subsets(process: Diffusion, denoiser: Known, space: Space, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """E[`process.bound`] [S]: l uniform on 1..L, then each of the C(L, l) subsets with equal probability."""
    hidden = torch.tensor(list(itertools.product([False, True], repeat=space.length))[1:])
    sentence, which = torch.cartesian_prod(torch.arange(len(space.sentences)), torch.arange(len(hidden))).T
    clean, masked = space.sentences[sentence], hidden[which]
    count = masked.sum(1)
    ways = torch.tensor([math.comb(space.length, int(c)) for c in count], dtype=torch.float64)

    def chosen(keys: Tensor, drawn: Tensor, *candidates: Tensor | int) -> Tensor:
        assert (drawn.flatten() == count).all(), "u must give every count the same probability"
        return masked

    with monkeypatch.context() as patched:
        patched.setattr(absorbing, "subset", chosen)
        patched.setattr(blocks, "block_subsets", chosen)
        u = (count - 0.5) / space.length
        vocabulary = space.words.vocabulary()
        draws = process.bound(predict(denoiser), clean, everywhere(clean), vocabulary, u.double(), sentence)
    weight = 1 / (space.length * ways)
    return torch.zeros(len(space.sentences), dtype=torch.float64).index_add(0, sentence, weight * draws)


def test_subsets_are_uniform():
    """Each 2 of 3 candidates equally often, the fourth position never (chi-square, level 1e-6)."""
    n = 30_000
    candidates = torch.tensor([[True, True, False, True]]).expand(n, -1)
    found = absorbing.subset(rng.keys(0, rng.CORRUPT, 0, torch.arange(n)), torch.full((n,), 2), candidates)
    assert (found.sum(1) == 2).all() and not found[:, 2].any()
    left_out = torch.bincount((~found[:, [0, 1, 3]]).int().argmax(1), minlength=3)
    assert chi_square(left_out, torch.full((3,), 1 / 3)) > FALSE_ALARM


@DENOISERS
@over({**DIFFUSIONS, "uniform_coarse": Uniform(alpha_end=0.2, eps=0.2)})
def test_a_bound_is_a_bound(process, denoiser, monkeypatch):
    """For any network exp(-bound) sums to at most 1 over sentences, as probabilities do."""
    total = (-expected_bound(process, denoiser(SPACE, process), SPACE, monkeypatch)).exp().sum().item()
    print(f"{process}, {denoiser.__name__}: sum of exp(-bound) = {total:.8f}")
    assert total <= 1 + 1e-6


@PROCESSES
def test_the_bound_of_the_exact_denoiser_is_tight(process, monkeypatch):
    """Bound = -log p(x) for each sentence, up to the ends at eps and alpha(1) (docs/method.md#oracle-8,
    docs/method.md#oracle-9)."""
    bound = expected_bound(process, exact(SPACE, process), SPACE, monkeypatch)
    assert (bound + SPACE.law.log()).abs().max() < 1e-4
    assert (SPACE.law * bound).sum() > SPACE.entropy - 1e-7


def test_without_tail_or_prior_it_is_no_bound(monkeypatch):
    """Without either end term the exact denoiser would be better than the entropy (docs/method.md#mdlm)."""
    uniform = Uniform(alpha_end=0.2, eps=0.2)

    def total(process: Uniform, tail: bool = True) -> float:
        return (-expected_bound(process, exact(SPACE, process), SPACE, monkeypatch, tail)).exp().sum().item()

    assert total(uniform) <= 1 < 1.02 < total(uniform, tail=False)
    monkeypatch.setattr(Uniform, "prior_term", lambda self, candidates, vocabulary: 0.0)
    assert total(uniform) > 1.02


@pytest.mark.parametrize("meaning", ["x0_mean", "leave_one_out"])
def test_at_eps_0_there_is_no_tail(meaning):
    """The noisy ids at time 0 are the clean ones, and the bound is finite; it had been NaN for E[x0 | xt]."""
    process, ids = Uniform(alpha_end=1e-3, eps=0.0), SPACE.sentences
    run, where, words = predict(exact(SPACE, process, meaning)), everywhere(ids), SPACE.words.vocabulary()
    keys, u = rng.keys(0, rng.BOUND, 0, torch.arange(len(ids))), torch.full((len(ids),), 0.3).double()
    assert (process.tail(run, ids, where, words, keys) == 0).all()
    assert process.bound(run, ids, where, words, u, keys).isfinite().all()


def test_duo_bound_of_one_token_is_the_entropy(monkeypatch):
    """L = 1, K = 5: the leave-one-out conditional is the law itself, and the bound equals the entropy
    (docs/method.md#oracle-7)."""
    space = random_space(5, 1)
    bound = expected_bound(UNIFORM, exact(space, UNIFORM), space, monkeypatch)
    assert abs((space.law * bound).sum().item() - space.entropy) < 1e-4


def test_the_posterior_mean_in_place_of_the_conditional_is_worse(monkeypatch):
    """E[x0 | xt] used as if it were leave-one-out loosens the bound; converted, the bound is tight
    (docs/method.md#oracle-8)."""
    mean = exact(SPACE, UNIFORM, "x0_mean")
    converted = expected_bound(UNIFORM, mean, SPACE, monkeypatch)
    plugged = expected_bound(
        UNIFORM, Known(SPACE.words, UNIFORM, "leave_one_out", mean.answer), SPACE, monkeypatch
    )
    assert abs((SPACE.law * converted).sum().item() - SPACE.entropy) < 1e-4
    assert (SPACE.law * plugged).sum().item() > SPACE.entropy + 0.5


def test_absorbing_bound_is_the_mean_over_orders(monkeypatch):
    """For any conditionals: E over orders of -log p, so at least -log of the mean p (docs/method.md#oracle-10)."""
    denoiser = stranger(SPACE, ABSORBING)
    mask = SPACE.size

    def conditionals(z: list[int]) -> Tensor:
        return denoiser.answer(torch.tensor([z]), torch.zeros(1))[0]

    orders = []
    for x in SPACE.sentences.tolist():
        left_first = conditionals([mask, mask])[0, x[0]] * conditionals([x[0], mask])[1, x[1]]
        right_first = conditionals([mask, mask])[1, x[1]] * conditionals([mask, x[1]])[0, x[0]]
        orders.append(torch.stack([left_first, right_first]))
    law = torch.stack(orders)
    bound = expected_bound(ABSORBING, denoiser, SPACE, monkeypatch)
    assert (bound + law.log().mean(-1)).abs().max() < 1e-6
    assert (bound + law.mean(-1).log()).min() > -1e-6
    assert abs(law.mean(-1).sum().item() - 1) < 1e-12


@DENOISERS
@MASKING
def test_mask_rates_and_mask_counts_give_the_same_bound(process, denoiser, monkeypatch):
    """E_t[(-alpha'/(1 - alpha)) sum over masked] = E_l[(L/l) sum over an l-subset] for each sentence
    (docs/method.md#llada-objective, docs/method.md#oracle-25), 40 nodes in t."""
    made = denoiser(SPACE, process)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    t, dt = (nodes + 1) / 2, weights / 2
    hidden = torch.tensor(list(itertools.product([False, True], repeat=SPACE.length))[1:])
    sentence, node, which = torch.cartesian_prod(
        *[torch.arange(n) for n in (len(SPACE.sentences), len(t), len(hidden))]
    ).T
    clean, masked, time = SPACE.sentences[sentence], hidden[which], t[node]
    alpha = process.alpha(time)[:, None]
    chance = torch.where(masked, 1 - alpha, alpha).prod(-1)
    noisy = clean.masked_fill(masked, SPACE.size)
    prediction = predict(made)(noisy, time)
    nll = process.nll(prediction, clean, noisy, time, everywhere(clean), SPACE.words.vocabulary())
    by_rate = torch.zeros(len(SPACE.sentences)).double().index_add(0, sentence, dt[node] * chance * nll)
    assert (by_rate - expected_bound(process, made, SPACE, monkeypatch)).abs().max() < 1e-9


@CAUSAL
def test_autoregression_is_a_law(process):
    """exp(-nll) of a random causal network sums to 1 over all sentences, K = 3, L = 4 (docs/method.md#oracle-31;
    float32)."""
    words = Words(size=3, length=4)
    x = torch.tensor(list(itertools.product(range(3), repeat=4)))
    with torch.no_grad():
        nll = process.bound(
            predict(llama("causal", process, words)),
            x,
            everywhere(x),
            words.vocabulary(),
            torch.zeros(len(x)),
            torch.arange(len(x)),
        )
    assert nll.std() > 0.3
    assert abs((-nll).exp().sum().item() - 1) < 1e-6


# --- families of noise --------------------------------------------------------------------------------------


@part
class Squared(Absorbing):
    """Absorbing noise with alpha(t) = 1 - t^2."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t**2


def test_a_subclass_fits_what_is_for_its_family():
    """Objectives, samplers and estimators, although the class has no registered name of its own."""
    recipe = dataclasses.replace(by_name("mdlm"), process=Squared())
    check(preset("ancestral+nucleus"), recipe.process, Plan(gen_length=4, block_length=4, steps=2))
    estimator(default(recipe.process)).check(recipe.process)


# --- the Gaussian relaxation --------------------------------------------------------------------------------

FLIPS = {  # t: P(flip) at V = 50,368, A = 1 - t (docs/method.md#flip-probability)
    0.03: 0.59117,
    0.04: 0.78025,
    0.05: 0.87429,
    0.06: 0.92298,
    0.07: 0.94988,
    0.08: 0.96571,
    0.09: 0.97555,
    0.10: 0.98196,
    0.12: 0.98934,
    0.15: 0.99438,
}


def flip(t: Tensor, count: int) -> Tensor:
    mu = (-gaussian.gamma_of(1 - t) / 2).exp()
    return 1 - gaussian.argmax_probability(mu, count)[0]


def test_flips_of_the_reference_scripts_window():
    """P(argmax is another id) over the window of the reference script, and its mean
    (docs/method.md#flip-probability, docs/method.md#oracle-17)."""
    t = torch.tensor(list(FLIPS), dtype=torch.float64)
    assert (flip(t, 50_368) - torch.tensor(list(FLIPS.values()))).abs().max() < 6e-6
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(20))
    mean = (weights * flip(0.09 + 0.06 * nodes, 50_368)).sum().item() / 2
    assert abs(mean - 0.93544) < 1e-5


@pytest.mark.parametrize(
    ("count", "gamma", "level"),
    [(30_522, -3.5, 0.94171), (30_522, -1.75, 0.04868), (50_257, -3.55, 0.94547), (50_257, -1.85, 0.04932)],
)
def test_ends_of_duos_windows(count, gamma, level):
    """T(A) at the ends of the papers' gamma windows, and back (docs/method.md#oracle-16)."""
    assert abs(gaussian.transform(torch.tensor(gamma), count)[0].item() - level) < 1e-5
    assert abs(gaussian.invert(level, count) - gamma) < 1e-4


@pytest.mark.parametrize("count", [2, 11, 1000, 50_368])
def test_quadrature_has_converged(count):
    """1,001 points against 16,001 (docs/method.md#transformation-operator)."""
    mu = torch.tensor([0.0, 0.05, 0.7, 1.6, 2.7, 4.0, 6.0], dtype=torch.float64)
    for few, many in zip(
        gaussian.argmax_probability(mu, count), gaussian.argmax_probability(mu, count, 16_001), strict=True
    ):
        assert (few - many).abs().max() < 1e-12


@pytest.mark.parametrize("count", [11, 1000, 50_368])
def test_slope_of_the_transform(count):
    """dT/dgamma against central differences (docs/method.md#oracle-15)."""
    gamma, step = torch.linspace(-5, 3, 33, dtype=torch.float64), 1e-4
    above, below = (gaussian.transform(gamma + side, count)[0] for side in (step, -step))
    assert ((above - below) / (2 * step) - gaussian.transform(gamma, count)[1]).abs().max() < 1e-6


def test_argmax_of_the_relaxation_is_uniform_noise():
    """argmax w has law T(A) x + (1 - T)/K, chi-square over K = 11 ids of 40,000 draws (docs/method.md#oracle-14)."""
    count, rows, gamma = 11, 40_000, torch.tensor([-0.4], dtype=torch.float64)
    noise = rng.normal(rng.keys(0, rng.NOISE, 0, torch.arange(1)), rows, count)
    z = gaussian.relax(torch.full((1, rows), 4), gamma, noise, count).argmax(-1)[0]
    level = gaussian.transform(gamma, count)[0]
    law = ((1 - level) / count).expand(count).clone()
    law[4] += level[0]
    assert chi_square(torch.bincount(z, minlength=count).double(), law) > FALSE_ALARM
