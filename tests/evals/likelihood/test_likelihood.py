"""Likelihood estimators against enumeration, under the exact denoiser and under conditionals of no joint law.

Symbols: L continuation tokens, c(S) [L] their losses when S is masked, f(S) the sum of c(S) over S. Every expectation
is computed from a table of all masked sets (`Table`), which one plain forward fills, not the code under test.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import pytest
import torch
from helpers.spaces import Known, Space, exact, hidden_markov, llama, predict, random_space, stranger

from repro import load
from repro.core import rng
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.estimator_presets import ESTIMATORS, estimator
from repro.evals.likelihood.estimators import (
    ElboT,
    LladaMC,
    LladaRound,
    Subsets,
    even_levels,
    rounded_levels,
)
from repro.evals.likelihood.guided import GuidedLikelihood
from repro.evals.likelihood.levels import Levels
from repro.evals.likelihood.likelihood import Likelihood, LikelihoodRequest
from repro.evals.likelihood.orders import Confidence, Duel, NextToken, greedy
from repro.models.attention import Mask
from repro.models.prediction import Prediction
from repro.processes.absorbing import Absorbing, weighted_ce
from repro.processes.blocks import BlockAbsorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform

ABSORBING = Absorbing()
UNIFORM = Uniform(alpha_end=1e-3, eps=1e-3)
HMM = hidden_markov()
PROMPT = 2
KINDS = ("exact", "stranger")


class Untimed(Known):
    """A known denoiser that does not read the time, so that equal masked inputs share a forward."""

    time_conditioned = False

    def encode(self, tokens, *, t, attention, positions=None, kv_cache=None):
        assert t is None and attention.valid is None
        return super().encode(tokens, t=torch.zeros(len(tokens)), attention=attention)


@lru_cache
def toy(kind: str, length: int) -> Known:
    """A denoiser over PROMPT + `length` tokens of 3 ids: the posterior of a hidden Markov model, or conditionals of no
    joint law."""
    space = Space(torch.empty(0), 3, PROMPT + length)
    if kind == "exact":
        return Untimed(
            space.words, ABSORBING, "leave_one_out", lambda ids, t: HMM.posterior_absorbing(ids, 3)
        )
    known = stranger(space, ABSORBING)
    return Untimed(space.words, ABSORBING, "leave_one_out", known.answer)


def batched(denoiser, process=ABSORBING, batch=16) -> BatchedDenoiser:
    return BatchedDenoiser(denoiser, process, batch)


def requests(length: int, count: int) -> list[LikelihoodRequest]:
    """Random sentences, each with its own row; beyond 3^(2 + L) of them sentences repeat with other rows."""
    draws = (
        (rng.uniform(rng.keys(5, rng.SENTENCE, length, torch.arange(count)), PROMPT + length) * 3)
        .long()
        .tolist()
    )
    return [LikelihoodRequest(tuple(x[:PROMPT]), tuple(x[PROMPT:]), row) for row, x in enumerate(draws)]


class Table:
    """c(S) of every masked set of one request, {frozenset: [L]}."""

    def __init__(self, denoiser, request: LikelihoodRequest, scale: float = 0.0) -> None:
        self.length = len(request.continuation)
        sets = [
            c for size in range(1, self.length + 1) for c in itertools.combinations(range(self.length), size)
        ]
        ids = torch.tensor([request.ids]).expand(len(sets), -1)
        where = torch.zeros_like(ids, dtype=torch.bool)
        for row, chosen in enumerate(sets):
            where[row, [len(request.prompt) + i for i in chosen]] = True
        t = where.sum(1).double() / self.length
        noisy = ids.masked_fill(where, denoiser.vocabulary.mask)
        size = denoiser.vocabulary.size
        conditional = Prediction(denoiser, noisy, t, Mask()).logits(where).double()[:, :size]
        noisy[:, : len(request.prompt)] = denoiser.vocabulary.mask
        unconditional = Prediction(denoiser, noisy, t, Mask()).logits(where).double()[:, :size]
        guided = unconditional + (scale + 1) * (conditional - unconditional) if scale else conditional
        logp = guided.log_softmax(-1)
        found = torch.zeros(where.shape, dtype=torch.float64)
        found[where] = -logp.gather(1, ids[where][:, None])[:, 0]
        self.losses = {frozenset(c): row[len(request.prompt) :] for c, row in zip(sets, found, strict=True)}

    def level(self, size: int) -> list[float]:
        return [float(c.sum()) for s, c in self.losses.items() if len(s) == size]

    def bound(self) -> float:
        """-E over l uniform of L / l times the mean of f over l-subsets."""
        means = [math.fsum(self.level(k)) / math.comb(self.length, k) / k for k in range(1, self.length + 1)]
        return -math.fsum(means)

    def over_orders(self) -> list[float]:
        """log p of the continuation under each of the L! orders of revealing its tokens."""
        found = []
        for order in itertools.permutations(range(self.length)):
            left, total = frozenset(range(self.length)), 0.0
            for place in order:
                total -= float(self.losses[left][place])
                left -= {place}
            found.append(total)
        return found


# --- exact estimators ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_exact_estimators_are_the_enumeration(kind):
    """`subsets`, and `levels` where its draws reach every set, equal the all-subsets bound to 1e-10."""
    for length in (1, 2, 3, 5):
        scored = requests(length, 6)
        want = [Table(toy(kind, length), r).bound() for r in scored]
        for rule in (Subsets(longest=5), Levels(draws=31)):
            found = rule.score(batched(toy(kind, length)), scored, seed=0)
            assert [r.value for r in found] == pytest.approx(want, abs=1e-10)
            assert all(r.se == 0 and r.interval(0.95) == (r.value, r.value) for r in found)
            assert {r.forwards for r in found} == {2**length - 1}


def test_the_bound_is_the_mean_over_orders_and_below_log_p():
    """The bound is the mean over orders of log p_order, at most the log of the mean of p_order, for conditionals of no
    joint law (docs/method.md#oracle-10)."""
    scored = requests(4, 20)
    found = Subsets(longest=4).score(batched(toy("stranger", 4)), scored, seed=0)
    for request, likelihood in zip(scored, found, strict=True):
        orders = torch.tensor(Table(toy("stranger", 4), request).over_orders(), dtype=torch.float64)
        assert likelihood.value == pytest.approx(float(orders.mean()), abs=1e-10)
        assert likelihood.value < float(orders.logsumexp(0)) - math.log(len(orders)) - 1e-3


def test_with_the_exact_denoiser_every_estimator_is_log_p():
    """The bound and the chain rule along any order equal log p(continuation | prompt): there is no gap."""
    space = random_space(3, PROMPT + 4)
    scored = requests(4, 10)
    law = {tuple(x): w for x, w in zip(space.sentences.tolist(), space.law.tolist(), strict=True)}
    want = []
    for r in scored:
        prompt = sum(w for x, w in law.items() if x[:PROMPT] == r.prompt)
        want.append(math.log(law[r.ids] / prompt))
    orders = [Duel(order=o) for o in ("left_to_right", "low_confidence", "margin", "entropy")]
    for rule in (Subsets(longest=4), Confidence(), *orders):
        found = rule.score(batched(exact(space, ABSORBING)), scored, seed=0)
        assert [r.value for r in found] == pytest.approx(want, abs=1e-10)


def test_duel_is_the_law_of_its_sampler():
    """Along its own order the probabilities of all answers sum to 1, and left to right they match the table."""
    denoiser = toy("stranger", 3)
    for order in ("left_to_right", "low_confidence", "margin", "entropy"):
        answers = [LikelihoodRequest.of((1, 0), x) for x in itertools.product(range(3), repeat=3)]
        found = Duel(order=order).score(batched(denoiser), answers, seed=0)
        assert math.fsum(math.exp(r.value) for r in found) == pytest.approx(1, abs=1e-10)
        assert {r.forwards for r in found} == {3}
    want = []
    for answer in answers:
        table, left, total = Table(denoiser, answer), [0, 1, 2], 0.0
        for place in (0, 1, 2):
            total -= float(table.losses[frozenset(left)][place])
            left.remove(place)
        want.append(total)
    found = Duel(order="left_to_right").score(batched(denoiser), answers, seed=0)
    assert [r.value for r in found] == pytest.approx(want, abs=1e-10)


def test_confidence_ranks_and_is_no_likelihood():
    """Its order follows the answer's own tokens, the likeliest first; the probabilities of all answers do not sum to
    1."""
    denoiser = toy("stranger", 3)
    answers = [LikelihoodRequest.of((1, 0), x) for x in itertools.product(range(3), repeat=3)]
    found = Confidence().score(batched(denoiser), answers, seed=0)
    for answer, likelihood in zip(answers, found, strict=True):
        table, left, total = Table(denoiser, answer), [0, 1, 2], 0.0
        while left:
            losses = table.losses[frozenset(left)]
            place = min(left, key=lambda i: float(losses[i]))
            total -= float(losses[place])
            left.remove(place)
        assert likelihood.value == pytest.approx(total, abs=1e-10)
    assert abs(math.fsum(math.exp(r.value) for r in found) - 1) > 0.1
    assert Confidence.score_is == "score"


def test_the_two_forms_of_the_bound_have_one_expectation():
    """The mean over t of the 1/t form (process.nll) equals the mean over l of the L/l form, by 40-point quadrature over
    t (docs/method.md#oracle-25)."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(40)
    for length in (2, 4, 6):
        request = requests(length, 1)[0]
        denoiser = toy("stranger", length)
        table = Table(denoiser, request)
        ids = torch.tensor([request.ids]).expand(len(table.losses), -1)
        xt = ids.clone()
        for row, chosen in enumerate(table.losses):
            xt[row, [PROMPT + i for i in chosen]] = denoiser.vocabulary.mask
        candidates = (torch.arange(ids.shape[1]) >= PROMPT).expand_as(ids)
        masked = torch.tensor([len(chosen) for chosen in table.losses]).double()
        total = 0.0
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            t = torch.full((len(ids),), node, dtype=torch.float64)
            chance = node**masked * (1 - node) ** (length - masked)
            nll = ABSORBING.nll(predict(denoiser)(xt, t), ids, xt, t, candidates, denoiser.vocabulary)
            total += weight * float((chance * nll).sum())
        assert -total == pytest.approx(table.bound(), abs=1e-9)
    assert float(weighted_ce(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0.5]))) == pytest.approx(
        2 * math.log(4)
    )


def test_an_impossible_token_makes_the_likelihood_minus_infinity():
    """Its priority is -inf too, and every position is still revealed."""
    law = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    words = Space(torch.empty(0), 3, 4).words
    denoiser = Untimed(words, ABSORBING, "leave_one_out", lambda ids, t: law.expand(*ids.shape, 3))
    (found,) = Confidence().score(batched(denoiser), [LikelihoodRequest.of((1, 0), (2, 2))], seed=0)
    assert found.value < -500 and found.forwards == 2


# --- Monte Carlo ----------------------------------------------------------------------------------------------


def test_mask_counts_are_uniform_and_the_published_rounding_is_not():
    """The corrected law has uniform marginals; with LLaDA's rounding the total variation distance is .222 at
    (L, b) = (9, 2) (docs/method.md#oracle-24)."""

    def off(law, points, length):
        counts = torch.zeros(length, dtype=torch.float64)
        for point in points:
            levels = law(point)
            assert levels.min() >= 1 and levels.max() <= length
            counts += torch.bincount(levels - 1, minlength=length)
        return float((counts / counts.sum() - 1 / length).abs().sum() / 2)

    for length, batch in ((9, 2), (3, 2), (20, 8), (5, 3), (12, 16)):
        grid = (torch.arange(720, dtype=torch.float64) + 0.5) / 720
        assert off(lambda u, s=(length, batch): even_levels(u, *s), grid, length) < 1e-3
    published = {
        (9, 2): 0.222,
        (3, 2): 0.17,
        (20, 8): 0.25,
        (12, 16): 0.125,
        (100, 16): 0.125,
        (5, 3): 0,
        (8, 4): 0,
    }
    for (length, batch), distance in published.items():
        found = off(lambda k, s=(length, batch): rounded_levels(k, *s), torch.arange(1, length + 1), length)
        assert found == pytest.approx(distance, abs=5e-3), (length, batch)


def test_published_rounding_is_that_of_float32():
    """The lines of ML-GSAI/LLaDA@b7e6c35 get_log_likelihood.py:13-14, whose halves float32 decides if the batch is no
    power of two."""
    for batch, length in itertools.product((1, 6, 12, 16, 28), (1, 5, 7, 12, 31, 100)):
        for k in torch.arange(1, length + 1):
            x = torch.round(torch.linspace(float(k), k + (batch - 1) * (length / batch), steps=batch)).long()
            assert torch.equal(rounded_levels(k, length, batch), (x - 1) % length + 1), (batch, length, k)


DRAWN = {
    "levels": (Levels(draws=32), 6),
    "levels, strata of several": (Levels(draws=8), 6),
    "llada_mc": (LladaMC(draws=128, batch=16), 5),
    "elbo_t": (ElboT(draws=1024, batch=256, eps=1e-2), 4),
}


@lru_cache
def drawn(name: str, kind: str) -> tuple[list[Likelihood], list[float]]:
    """Likelihoods of 400 requests with independent draws, and the bound of each."""
    rule, length = DRAWN[name]
    scored = requests(length, 400)
    target = {r.ids: r for r in scored}
    exact_ones = Subsets(longest=6).score(batched(toy(kind, length)), list(target.values()), seed=0)
    bounds = {ids: found.value for ids, found in zip(target, exact_ones, strict=True)}
    return rule.score(batched(toy(kind, length), batch=256), scored, seed=3), [bounds[r.ids] for r in scored]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("kind", KINDS)
def test_drawn_estimators_are_unbiased(name, kind):
    """The mean error over 400 requests is within 3 standard errors of 0, by the spread of the errors."""
    found, bounds = drawn(name, kind)
    errors = torch.tensor([f.value - b for f, b in zip(found, bounds, strict=True)], dtype=torch.float64)
    assert abs(float(errors.mean())) < 3 * float(errors.std()) / math.sqrt(len(errors))
    assert float(errors.std()) > 1e-3


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("kind", KINDS)
def test_printed_intervals_cover(name, kind):
    """The 95 % interval contains the bound for 92 to 98 % of 400 requests; the mean squared error is that of `se`."""
    found, bounds = drawn(name, kind)
    squares = math.fsum((f.value - b) ** 2 for f, b in zip(found, bounds, strict=True))
    assert 0.8 < squares / math.fsum(f.se**2 for f in found) < 1.25
    inside = [
        low <= b <= high for (low, high), b in zip((f.interval(0.95) for f in found), bounds, strict=True)
    ]
    assert 0.92 <= sum(inside) / len(inside) <= 0.98, sum(inside) / len(inside)


def test_forwards_are_at_most_max_forwards():
    """`max_forwards` bounds the forwards that `score` counts, for every preset, guided or not."""
    for name, rule in ESTIMATORS.items():
        if "absorbing" in rule.processes:
            for each in (rule, guided(rule)):
                found = score_guided(each, toy("exact", 5), requests(5, 2))
                assert all(f.forwards <= each.max_forwards(5) for f in found), name


@pytest.mark.parametrize("kind", KINDS)
def test_published_rounding_has_the_bias_of_its_law(kind):
    """Its errors against the bound regress on the bias, enumerated over k, with slope 1."""
    rule, length = LladaRound(draws=64, batch=2), 3
    scored = requests(length, 200)
    found = torch.tensor([r.value for r in rule.score(batched(toy(kind, length), batch=256), scored, seed=1)])
    levels = rounded_levels(torch.arange(1, length + 1), length, 2).flatten().tolist()
    bounds, biases = [], []
    for request in scored:
        table = Table(toy(kind, length), request)
        means = [math.fsum(table.level(k)) / math.comb(length, k) * length / k for k in levels]
        bounds.append(table.bound())
        biases.append(-math.fsum(means) / len(means) - table.bound())
    bias = torch.tensor(biases, dtype=torch.float64)
    error = found.double() - torch.tensor(bounds, dtype=torch.float64)
    spread = float((error - bias).std() / bias.norm())
    slope = float(error @ bias / (bias @ bias))
    assert abs(slope - 1) < 3 * spread < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_levels_vary_less_than_published_draws_at_equal_cost(kind):
    """L = 5, 16 forwards each: squared errors of `levels` against those of LLaDA's law with the rounding corrected."""
    scored = requests(5, 300)
    truth = [r.value for r in Subsets(longest=5).score(batched(toy(kind, 5)), scored, seed=0)]

    def squares(rule):
        found = rule.score(batched(toy(kind, 5), batch=256), scored, seed=2)
        return math.fsum((f.value - b) ** 2 for f, b in zip(found, truth, strict=True))

    gain = {"exact": 2, "stranger": 1.2}[kind]
    assert squares(LladaMC(draws=16, batch=16)) > gain * squares(Levels(draws=16))


# --- guidance -------------------------------------------------------------------------------------------------


def guided(rule, scale: float = 0.5):
    return GuidedLikelihood(scale=scale, rule=rule)


def score_guided(rule, denoiser, scored, seed=0, batch=16):
    return rule.score(rule.batched(denoiser, ABSORBING, batch), scored, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_guided_scores_mix_conditional_and_unconditional_logits(kind):
    """un + (w + 1)(cond - un) at every masked set, by a table of plain forwards; two forwards per input
    (docs/method.md#peer-defect-8)."""
    for scale in (0.5, 2.0):
        for length in (1, 3, 5):
            scored = requests(length, 5)
            tables = [Table(toy(kind, length), r, scale) for r in scored]
            for rule in (Subsets(longest=5), Levels(draws=31)):
                found = score_guided(guided(rule, scale), toy(kind, length), scored)
                assert [f.value for f in found] == pytest.approx([t.bound() for t in tables], abs=1e-10)
                assert {f.forwards for f in found} == {2 * (2**length - 1)}
            found = score_guided(guided(Duel(order="left_to_right"), scale), toy(kind, length), scored)
            want = [
                -sum(float(t.losses[frozenset(range(i, length))][i]) for i in range(length)) for t in tables
            ]
            assert [f.value for f in found] == pytest.approx(want, abs=1e-10)
            assert {f.forwards for f in found} == {2 * length}
            plain = Subsets(longest=5).score(batched(toy(kind, length)), scored, seed=0)
            assert max(abs(f.value - t.bound()) for f, t in zip(plain, tables, strict=True)) > 1e-2


def test_guided_draws_are_those_of_the_rule_and_share_forwards():
    """Masked sets are those of the unguided rule; unbiased for the guided table; equal inputs are forwarded once."""
    scored = requests(5, 200)
    rule = guided(LladaMC(draws=64, batch=16))
    net = rule.batched(toy("stranger", 5), ABSORBING, 64)
    found = rule.score(net, [*scored, scored[0]], seed=1)
    bounds = score_guided(guided(Subsets(longest=5)), toy("stranger", 5), scored, batch=256)
    errors = torch.tensor([f.value - b.value for f, b in zip(found, bounds, strict=False)]).double()
    assert abs(float(errors.mean())) < 3 * float(errors.std()) / math.sqrt(len(errors))
    plain = LladaMC(draws=64, batch=16).score(batched(toy("stranger", 5)), scored, seed=1)
    assert [f.forwards for f in found[:-1]] == [2 * f.forwards for f in plain]
    assert found[0] == found[-1] and net.forwards < sum(f.forwards for f in found)
    alone = rule.score(rule.batched(toy("stranger", 5), ABSORBING, 3), scored[:1], seed=1)
    assert alone[0].value == pytest.approx(found[0].value, abs=1e-10)


def test_equal_inputs_with_different_prompts_are_separate_forwards():
    """(a b | c d) and (a b c | d) with d masked share the conditional input, but not the unconditional one."""
    ids, denoiser = (0, 1, 2, 1, 0), toy("stranger", 3)
    scored = [LikelihoodRequest.of(ids[:2], ids[2:]), LikelihoodRequest.of(ids[:4], ids[4:])]
    found = score_guided(guided(Subsets(longest=3)), denoiser, scored)
    want = [Table(denoiser, r, 0.5).bound() for r in scored]
    assert [f.value for f in found] == pytest.approx(want, abs=1e-10)


def test_meaningless_guidance_raises():
    with pytest.raises(ValueError, match="'next_token_likelihood' is for models without a mask token"):
        estimator("next_token+guided")
    with pytest.raises(ValueError, match="changes nothing"):
        estimator("levels+guided:scale=0")
    with pytest.raises(ValueError, match="given twice"):
        estimator("levels+guided+guided")
    with pytest.raises(ValueError, match="takes 'guided' only"):
        estimator("levels+nucleus:p=0.9")
    with pytest.raises(ValueError, match="nearest is 'scale'"):
        estimator("levels+guided:scal=1.0")
    with pytest.raises(ValueError, match="for absorbing models, not uniform"):
        estimator("elbo_t+guided").check(UNIFORM)
    assert estimator("llada_mc:draws=32+guided:scale=2.0") == guided(LladaMC(draws=32, batch=16), 2.0)
    assert estimator("llada_mc+guided").score_is == "guided score"


# --- how it is computed ---------------------------------------------------------------------------------------


def test_values_depend_on_neither_batch_size_nor_other_requests():
    """The same values for a request alone, in another order, and in batches of 1, 3 and 256 rows."""
    scored = [*requests(5, 6), *requests(3, 4), *requests(1, 2)]
    denoiser = llama("bidirectional", ABSORBING, random_space(3, 7).words)
    for rule in (
        Levels(draws=16),
        LladaMC(draws=32, batch=8),
        ElboT(draws=32, batch=8, eps=1e-3),
        Confidence(),
    ):
        whole = rule.score(batched(denoiser, batch=256), scored, seed=4)
        for batch in (1, 3):
            turned = rule.score(batched(denoiser, batch=batch), scored[::-1], seed=4)[::-1]
            for one, other in zip(whole, turned, strict=True):
                assert other.value == pytest.approx(one.value, abs=2e-5) and other.forwards == one.forwards
        alone = rule.score(batched(denoiser), scored[:1], seed=4)[0]
        assert alone.value == pytest.approx(whole[0].value, abs=2e-5)
    for rule in (LladaMC(draws=8, batch=2), ElboT(draws=8, batch=2, eps=1e-2), Levels(draws=9)):
        named = [LikelihoodRequest(scored[0].prompt, scored[0].continuation, row) for row in range(4)]
        of_rows = [r.value for r in rule.score(batched(denoiser), named, seed=4)]
        of_seeds = [rule.score(batched(denoiser), named[:1], seed=s)[0].value for s in range(4)]
        assert len({round(v, 4) for v in of_rows}) == len({round(v, 4) for v in of_seeds}) == 4


class Counting(Untimed):
    """Records the inputs that it forwards and counts the positions that its head reads."""

    def __init__(self, known: Known) -> None:
        super().__init__(known_words(known), ABSORBING, "leave_one_out", known.answer)
        self.inputs: list[tuple[int, ...]] = []
        self.positions = 0

    def encode(self, tokens, *, t, attention, positions=None, kv_cache=None):
        self.inputs += [tuple(row) for row in tokens.tolist()]
        return super().encode(tokens, t=t, attention=attention)

    def logits(self, features):
        self.positions += len(features)
        return super().logits(features)


def known_words(known: Known):
    return Space(torch.empty(0), 3, 7).words


def test_equal_inputs_are_forwarded_once_and_the_head_reads_masked_positions_only():
    denoiser = Counting(toy("stranger", 4))
    net = batched(denoiser, batch=5)
    choices = [
        LikelihoodRequest.of((0, 1), x) for x in ((0, 1, 2, 0), (0, 1, 2, 1), (2, 2, 0, 0), (0, 1, 2, 0))
    ]
    found = LladaMC(draws=64, batch=16).score(net, choices, seed=0)
    assert len(set(denoiser.inputs)) == len(denoiser.inputs) == net.forwards
    assert net.forwards < sum(f.forwards for f in found[:3]) and found[0].value == found[3].value
    assert denoiser.positions == sum(row.count(3) for row in denoiser.inputs)
    assert all(row[:2] == (0, 1) for row in denoiser.inputs), "prompts are never masked"


def test_one_pass_has_no_standard_error():
    """Stratified draws are not independent, so one pass gives a value and no interval (docs/method.md#statistics)."""
    (found,) = LladaMC(draws=16, batch=16).score(batched(toy("exact", 3)), requests(3, 1), seed=0)
    assert found.se is None
    with pytest.raises(ValueError, match="is from one pass"):
        found.interval(0.95)


def test_requests_that_cannot_be_scored_raise():
    with pytest.raises(
        ValueError, match=r"this model reads it in blocks of 4 tokens; use --corpus or a perplexity task"
    ):
        estimator("levels").check(BlockAbsorbing(block=4))
    with pytest.raises(ValueError, match="'levels' is for absorbing models, not uniform"):
        Levels(draws=16).score(batched(toy("exact", 3), UNIFORM), requests(3, 1), seed=0)
    with pytest.raises(ValueError, match="for left_to_right models, not absorbing"):
        NextToken().score(batched(toy("exact", 3)), requests(3, 1), seed=0)
    with pytest.raises(ValueError, match="use 'levels'"):
        Subsets(longest=2).score(batched(toy("exact", 3)), requests(3, 1), seed=0)
    with pytest.raises(ValueError, match="is not a positive multiple of batch=16"):
        LladaMC(draws=100, batch=16)
    with pytest.raises(ValueError, match="holds the mask id 3"):
        Levels(draws=16).score(batched(toy("exact", 1)), [LikelihoodRequest.of((1, 0), (3,))], seed=0)
    with pytest.raises(ValueError, match="empty continuation"):
        LikelihoodRequest.of((1,), ())
    with pytest.raises(ValueError, match="nearest is 'levels'"):
        estimator("level")
    assert estimator("llada_mc:draws=32") == LladaMC(draws=32, batch=16)
    assert {type(rule) for rule in ESTIMATORS.values()} >= {Subsets, Levels, LladaMC, LladaRound, ElboT, Duel}


# --- other processes ------------------------------------------------------------------------------------------


def test_next_token_is_normalised_and_marks_the_greedy_answer():
    """The probabilities of all answers sum to 1; exactly one answer is greedy at every token
    (docs/method.md#oracle-31)."""
    process = LeftToRight()
    words = random_space(3, 5).words
    denoiser = llama("causal", process, words)
    answers = [
        LikelihoodRequest.of((words.vocabulary().bos, 1), x) for x in itertools.product(range(3), repeat=3)
    ]
    found = NextToken().score(batched(denoiser, process), answers, seed=0)
    assert math.fsum(math.exp(f.value) for f in found) == pytest.approx(1, abs=1e-5)
    assert sum(f.greedy for f in found) == 1
    prompt = list(answers[0].prompt)
    for _ in range(3):
        ids = torch.tensor([[*prompt, 0]])
        where = torch.zeros_like(ids, dtype=torch.bool)
        where[0, -2] = True
        prompt.append(int(Prediction(denoiser, ids, torch.zeros(1), Mask()).logits(where).argmax()))
    (best,) = [a for a, f in zip(answers, found, strict=True) if f.greedy]
    assert list(best.ids) == prompt
    with pytest.raises(ValueError, match="BOS"):
        NextToken().score(batched(denoiser, process), [LikelihoodRequest.of((), (1,))], seed=0)


def test_greedy_is_what_low_confidence_decoding_writes():
    """Exactly one answer is greedy: the one that `low_confidence` decodes at temperature 0, one token per step."""
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    denoiser = toy("stranger", 4)
    net = batched(denoiser)
    answers = [LikelihoodRequest.of((2, 1), x) for x in itertools.product(range(3), repeat=4)]
    found = greedy(net, answers)
    plan = Plan(gen_length=4, block_length=4, steps=4)
    written = decode(denoiser, ABSORBING, preset("low_confidence"), plan, [[2, 1]], seed=0, names=[0]).ids[0]
    assert [a.continuation for a, f in zip(answers, found, strict=True) if f.greedy] == [
        tuple(written.tolist())
    ]
    assert sum(f.forwards for f in found) < 4 * len(answers), (
        "a request stops at its first token that is not greedy"
    )


def test_uniform_noise_is_scored_by_its_own_bound():
    """`elbo_t` with the exact denoiser estimates log p(continuation | prompt), within 4 standard errors over 60
    requests."""
    model = load("oracle:duo_nelbo@nano")
    hmm = model.data.hmm()
    ids = hmm.sample(rng.keys(7, rng.SENTENCE, 0, torch.arange(60)))[:, :8]
    want = hmm.log_likelihood(ids) - hmm.log_likelihood(ids[:, :4])
    scored = [LikelihoodRequest(tuple(x[:4]), tuple(x[4:]), i) for i, x in enumerate(ids.tolist())]
    net = BatchedDenoiser(model.denoiser, model.recipe.process, 128)
    found = ElboT(draws=64, batch=16, eps=1e-3).score(net, scored, seed=0)
    errors = torch.tensor([f.value for f in found], dtype=torch.float64) - want
    assert abs(float(errors.mean())) < 4 * float(errors.std()) / math.sqrt(len(errors))
    assert all(f.forwards == 128 and f.se > 0 for f in found)
