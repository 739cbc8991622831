"""Sparse soft tokens have the law of dense ones: checked by draws of both, by quadrature and by enumeration.

"trap n" refers to docs/method.md#sparse-soft-tokens. K ids, k others, N = K - 1, S sharpness, x the clean id, z the
noisy one. All draws are keyed, so that results do not vary between runs.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.spaces import Words, chi_square, llama
from scipy.integrate import quad
from scipy.stats import beta, binomtest, kstest, norm
from torch import Tensor

from repro.core import rng
from repro.models.attention import Mask
from repro.models.denoiser import Soft
from repro.objectives.soft_tokens import (
    Dense,
    Drawn,
    Range,
    Sparse,
    dense,
    distinct,
    expected_mass,
    hold,
    order_statistics,
    others_for,
    sparse,
    tail,
)
from repro.processes import gaussian
from repro.processes.uniform import Uniform
from repro.recipes.scale import by_name

COUNT, ROWS, LENGTH = 200, 200, 100  # 20,000 tokens of 200 ids
X = 7
MASS = 0.9999
LEVELS = (0.9, 0.5, 0.1)  # T(A)
TEMPERATURES = (1e-3, 3e-2)
TABLE = rng.normal(rng.keys(0, rng.INIT, 0, 0), COUNT, 4)
TESTS = 7
FALSE_ALARM = 1e-4 / (TESTS * len(LEVELS) * len(TEMPERATURES))
"""Level of each test, so that the probability of any false alarm over all six settings is 1e-4."""


def draw(
    way: str, count: int, gamma: float, tau: float, others: int, rows: int = ROWS, first: int = 0
) -> Drawn:
    """`rows` x LENGTH tokens X; each way has its own random keys, starting at row `first`."""
    x0 = torch.full((rows, LENGTH), X)
    keys = rng.keys(("dense", "sparse").index(way), rng.NOISE, 0, first + torch.arange(rows))
    levels = torch.full((rows,), gamma, dtype=torch.float64)
    if way == "dense":
        return dense(x0, levels, tau, keys, count)
    return sparse(x0, levels, tau, keys, count, others)


def true_weight(soft: Soft) -> Tensor:
    return soft.weights[..., X if soft.ids is None else 0].flatten()


def embedded(soft: Soft) -> Tensor:
    """[tokens, 4]."""
    weights = soft.weights.double()
    if soft.ids is None:
        return (weights @ TABLE).flatten(0, 1)
    return (weights[..., None] * TABLE[soft.ids]).sum(-2).flatten(0, 1)


def noisy_law(gamma: float, count: int) -> Tensor:
    """Law of z: T(A) x + (1 - T(A))/K, [K]."""
    level = gaussian.transform(torch.tensor(gamma, dtype=torch.float64), count)[0].item()
    law = torch.full((count,), (1 - level) / count, dtype=torch.float64)
    law[X] += level
    return law


def p_value_of_z(z: Tensor, gamma: float) -> float:
    return chi_square(torch.bincount(z.flatten(), minlength=COUNT).double(), noisy_law(gamma, COUNT))


def setting(level: float, tau: float) -> tuple[float, int]:
    gamma = gaussian.invert(level, COUNT)
    return gamma, others_for(Range(COUNT, gamma, gamma, tau), MASS)


# --- one law ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("level", LEVELS)
def test_sparse_tokens_have_the_dense_law(level, tau):
    """20,000 draws of each: largest and true weight (Kolmogorov-Smirnov), z (chi-square over all ids), mean embedding.

    Weights are compared to .001, because dense ones have float32 rounding and the tail of sparse ones is a mean.
    """
    gamma, others = setting(level, tau)
    one, other = draw("dense", COUNT, gamma, tau, others), draw("sparse", COUNT, gamma, tau, others)
    found = {"z": p_value_of_z(other.z, gamma)}
    for name, weight in (("largest", lambda s: s.weights.amax(-1).flatten()), ("true", true_weight)):
        found[name] = kstest(*(weight(d.soft).round(decimals=3).numpy() for d in (one, other))).pvalue
    means = [embedded(drawn.soft) for drawn in (one, other)]
    error = torch.stack([e.var(0) / len(e) for e in means]).sum(0).sqrt()
    for place, score in enumerate((means[0].mean(0) - means[1].mean(0)) / error):
        found[f"embedding {place}"] = 2 * norm.sf(abs(score.item()))
    assert len(found) == TESTS and min(found.values()) > FALSE_ALARM, found


@pytest.mark.parametrize("level", LEVELS)
def test_the_test_of_z_detects_a_wrong_rule(level):
    """`z = x if among the k largest` is another law, and the test of z above rejects it (trap 1)."""
    tau = TEMPERATURES[1]
    gamma, others = setting(level, tau)
    drawn = draw("sparse", COUNT, gamma, tau, others)
    weights, ids = drawn.soft.weights, drawn.soft.ids
    assert others > 1 and ids is not None
    wrong = torch.where(weights[..., 0] > weights[..., -1], ids[..., 0], ids[..., 1])
    assert p_value_of_z(wrong, gamma) < FALSE_ALARM < p_value_of_z(drawn.z, gamma)


@pytest.mark.parametrize(("way", "others"), [("dense", 1), ("sparse", 1), ("sparse", 4)])
def test_the_noisy_token_is_the_largest_weight(way, others):
    drawn = draw(way, COUNT, gaussian.invert(0.5, COUNT), 1e-2, others)
    place = drawn.soft.weights.argmax(-1)
    ids = drawn.soft.ids
    assert torch.equal(drawn.z, place if ids is None else ids.gather(-1, place[..., None])[..., 0])


def test_means_agree_at_two_thousand_ids():
    """E p_x, E max and P(z = x) of 20,000 dense and 40,000 sparse tokens within .01 (docs/method.md#oracle-19)."""
    count, gamma, tau = 2000, gaussian.invert(0.5, 2000), 1e-2
    seen = []
    for way, rows in (("dense", 200), ("sparse", 400)):
        sums = torch.zeros(3, dtype=torch.float64)
        for first in range(0, rows, 10):  # blocks that fit the CPU's cache are twice as fast
            drawn = draw(way, count, gamma, tau, 10, 10, first)
            largest = drawn.soft.weights.amax(-1)
            sums += torch.stack([v.double().sum() for v in (true_weight(drawn.soft), largest, drawn.z == X)])
        seen.append(sums / (rows * LENGTH))
    assert (seen[0] - seen[1]).abs().max() < 0.01


@pytest.mark.parametrize(
    ("count", "gamma", "level"),
    [(11, -0.4, None), (30_522, -3.5, 0.94171), (30_522, -1.75, 0.04868), (50_257, -1.85, 0.04932)],
)
def test_flips_of_noisy_tokens_follow_the_transform(count, gamma, level):
    """P(z = x) = T(A) + (1 - T(A))/K over 40,000 tokens, at small and realistic K (docs/method.md#oracle-14,
    docs/method.md#oracle-16; level 1e-6 each)."""
    law = noisy_law(gamma, count)
    if level is not None:
        assert abs(law[X].item() - (level + (1 - level) / count)) < 1e-5
    hits = (draw("sparse", count, gamma, 1e-3, 2, rows=400).z == X).sum().item()
    assert binomtest(int(hits), 400 * LENGTH, law[X].item()).pvalue > 1e-6


# --- the parts of the draw ----------------------------------------------------------------------------------


def test_order_statistics_have_the_published_means():
    """N = 1000, 2e5 draws, within .02 (docs/method.md#oracle-18)."""
    y = order_statistics(rng.uniform(rng.keys(0, rng.NOISE, 0, 0), 200_000, 5), 1000)
    means = torch.tensor([3.240, 2.954, 2.799, 2.690, 2.607], dtype=torch.float64)
    assert (y.mean(0) - means).abs().max() < 0.02


@pytest.mark.parametrize("count", [3, 1000, 50_367])
def test_order_statistics_have_their_laws(count):
    """The j-th of N uniforms is Beta(N - j + 1, j), its ratio to the previous one Beta(N - j + 1, 1) (level 1e-6)."""
    y = order_statistics(rng.uniform(rng.keys(0, rng.NOISE, 0, 1), 20_000, 3), count).numpy()
    assert (np.diff(y, axis=1) < 0).all()
    above = norm.sf(y)
    for j in range(3):
        assert kstest(above[:, j], beta(j + 1, count - j).cdf).pvalue > 1e-6
    for j in range(2):
        ratio = (1 - above[:, j + 1]) / (1 - above[:, j])
        assert kstest(ratio, beta(count - j - 1, 1).cdf).pvalue > 1e-6


@pytest.mark.parametrize("first", range(5))
def test_all_orders_of_the_other_ids_are_equally_likely(first):
    """A grid of uniforms visits each cell once: 3 of 4 ids in 24 orders, 72 times each (trap 5)."""
    grid = (torch.tensor(list(itertools.product(range(12), repeat=3))) + 0.5) / 12
    ids = distinct(torch.full((len(grid),), first), grid.double(), 5)
    assert (ids[:, 0] == first).all()
    orders = Counter(map(tuple, ids[:, 1:].tolist()))
    others = [x for x in range(5) if x != first]
    assert orders == {order: 72 for order in itertools.permutations(others, 3)}


@pytest.mark.parametrize("edge", [-1.0, 0.3, 2.5])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 8.0, 30.0])
def test_the_tail_has_the_mean_of_a_truncated_normal(sharpness, edge):
    """log (n E[exp(S y) | y < c]) against quadrature."""
    area = quad(
        lambda y: math.exp(sharpness * (y - edge)) * norm.pdf(y), -14, edge, points=[edge - 1], limit=200
    )
    exact = math.log(9 * area[0] / norm.cdf(edge)) + sharpness * edge
    s, c = (torch.tensor(v, dtype=torch.float64) for v in (sharpness, edge))
    assert tail(s, c, torch.tensor(9)).item() == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_tokens_with_all_ids_have_all_mass():
    drawn = draw("sparse", 9, 0.5, 0.3, 8)
    assert drawn.soft.ids is not None
    assert (drawn.soft.ids.sort(-1).values == torch.arange(9)).all()
    assert (drawn.mass - 1).abs().max() < 1e-12


@pytest.mark.parametrize("tau", [1e-8, 1e-10])
@pytest.mark.parametrize("others", [1, 8])
def test_a_cold_soft_token_is_its_noisy_token(others, tau):
    """At tau = 1e-8, the end of the reference script's annealing, and 1e-10, that of Duo's curriculum, all weights but
    one underflow (traps 2, 3)."""
    drawn = draw("sparse", 50_368, gaussian.invert(0.5, 50_368), tau, others, rows=20)
    weights, ids = drawn.soft.weights, drawn.soft.ids
    assert ids is not None and torch.equal(ids.gather(-1, weights.argmax(-1, True))[..., 0], drawn.z)
    assert (weights.amax(-1) > 0.999).double().mean() > 0.999 and (drawn.mass > 0.9999).all()


# --- the number of ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["duo", "duo_nelbo"])
def test_full_recipes_reach_their_mass(name):
    """20,000 tokens at both ends and in the middle of the window, at the highest temperature; one id fewer has less."""
    objective = by_name(name).objective
    ends = {"duo": lambda o: gaussian.gamma_of(1 - torch.tensor([o.noise.low, o.noise.high])).tolist()}
    low, high = ends.get(name, lambda o: (o.window.low, o.window.high))(objective)
    limits = Range(50_368, low, high, objective.temperature.hottest())
    others = others_for(limits, objective.tokens.mass)
    assert expected_mass(limits)[others - 2] < objective.tokens.mass
    for gamma in (low, (low + high) / 2, high):
        mass = draw("sparse", 50_368, gamma, limits.hottest, others).mass
        assert mass.mean() > objective.tokens.mass


def test_the_mass_is_that_of_dense_tokens():
    """True id and the k largest others, k = 1..5: the estimated missing mass is at least that of dense tokens, and at
    most a quarter more."""
    gamma, tau = gaussian.invert(0.5, COUNT), 3e-2
    weights = draw("dense", COUNT, gamma, tau, 0).soft.weights.flatten(0, 1).double()
    true = weights[:, X].clone()
    weights[:, X] = 0
    lost = 1 - (true[:, None] + weights.topk(5).values.cumsum(-1)).mean(0)
    expected = 1 - expected_mass(Range(COUNT, gamma, gamma, tau))[:5]
    drawn = torch.stack([1 - draw("sparse", COUNT, gamma, tau, k + 1).mass.mean() for k in range(5)])
    for claim in (expected, drawn):
        assert (claim / lost > 0.97).all() and (claim / lost < 1.25).all(), claim / lost


def test_too_little_mass_is_refused():
    """At high temperatures soft tokens spread over the vocabulary, and no small number of ids holds their mass."""
    limits = Range(50_368, -2.77, -0.96, 0.05)
    x0, gamma = torch.zeros(1, 2, dtype=torch.int64), torch.full((1,), -2.0, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"cover a probability mass of 0\.96.* at temperature 0\.05, not 0\.9999"
    ) as error:
        Sparse(mass=MASS).draw(limits, x0, gamma, 0.01, torch.zeros(1, dtype=torch.int64))
    assert "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"temperature 0\.06 is above 0\.05, the largest of .* `temperature`"
    ):
        Sparse(mass=0.9).draw(limits, x0, gamma, 0.06, torch.zeros(1, dtype=torch.int64))


def test_small_vocabularies_are_dense_and_large_ones_sparse():
    for name in ("duo", "duo_script", "duo_nelbo"):
        assert by_name(name).objective.tokens == Sparse(mass=MASS)
        assert by_name(f"{name}@nano.text").objective.tokens == Dense()


# --- in a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [Dense(), Sparse(mass=0.99)], ids=["dense", "sparse"])
def test_a_draw_depends_only_on_its_row_and_column(tokens):
    """Not on the rest of the batch, nor on the length of the row."""
    limits = Range(50, -3.0, 1.0, 1e-2)
    x0 = torch.arange(24).view(4, 6) % 50
    gamma, keys = torch.linspace(-3, 1, 4, dtype=torch.float64), rng.keys(0, rng.NOISE, 3, torch.arange(4))
    whole = tokens.draw(limits, x0, gamma, 1e-2, keys)
    some = tokens.draw(limits, x0[2:3, :4], gamma[2:3], 1e-2, keys[2:3])
    assert torch.equal(some.soft.weights, whole.soft.weights[2:3, :4])
    assert torch.equal(some.z, whole.z[2:3, :4]) and torch.equal(some.mass, whole.mass[2:3, :4])
    if whole.soft.ids is not None:
        assert torch.equal(some.soft.ids, whole.soft.ids[2:3, :4])


def spread(soft: Soft, count: int) -> Tensor:
    """Weights over all ids [B, L, K] of either form."""
    if soft.ids is None:
        return soft.weights
    return torch.zeros(*soft.ids.shape[:2], count).scatter_add(-1, soft.ids, soft.weights)


@pytest.mark.parametrize("way", ["dense", "sparse"])
def test_other_positions_stay_clean(way):
    drawn = draw(way, COUNT, gaussian.invert(0.1, COUNT), 3e-2, 8, rows=2)
    x0, where = torch.full((2, LENGTH), X), torch.arange(LENGTH).expand(2, -1) % 3 == 0
    before, after = spread(drawn.soft, COUNT), spread(hold(drawn.soft, x0, where), COUNT)
    assert torch.equal(after[where], before[where])
    assert torch.equal(after[~where], torch.nn.functional.one_hot(x0, COUNT)[~where].float())


def test_networks_read_both_forms_identically():
    """Features and the gradient of the embedding table, for a sparse soft token and the same one over all ids."""
    network = llama("bidirectional", Uniform(alpha_end=1e-3, eps=1e-3), Words(size=COUNT, length=LENGTH))
    soft = draw("sparse", COUNT, gaussian.invert(0.5, COUNT), 3e-2, 8, rows=3).soft
    table = next(p for name, p in network.named_parameters() if "embed_tokens" in name)
    weight = rng.normal(rng.keys(0, rng.INIT, 1, torch.arange(3)), LENGTH, 32)
    seen = []
    for form in (soft, Soft(None, spread(soft, COUNT))):
        features = network.encode(form, t=None, attention=Mask())
        gradient = torch.autograd.grad((features * weight).sum(), table)[0]
        seen.append((features.detach(), gradient))
    for one, other in zip(*seen, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
