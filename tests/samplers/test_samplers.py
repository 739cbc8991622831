"""Laws of samplers against theory and reference implementations; quotas and cost.

Laws are enumerated by `repro.samplers.law`, from the code that decodes. N steps, V = 3 tokens; z noisy ids with mask id
3, p the network's probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.decodings import ABSORBING, CAUSAL, FALSE_ALARM, plan
from helpers.paper import (
    MASK,
    Step,
    best,
    follow,
    masked,
    quota,
    said,
    token_draws,
    written,
)
from helpers.spaces import (
    SPACE,
    Known,
    Words,
    chi_square,
    exact,
    llama,
    random_space,
    stranger,
    total_variation,
)

from repro.core import rng
from repro.models.attention import Mask
from repro.models.denoiser import Denoiser
from repro.processes.process import Process
from repro.processes.uniform import Uniform
from repro.samplers.ancestral import Ancestral
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.decode import decode, steps
from repro.samplers.decoded import Decoded
from repro.samplers.draws import Stream
from repro.samplers.law import law
from repro.samplers.ordered import Entropy, LowConfidence, Margin, Random
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS, preset
from repro.samplers.sampler import Sampler, State
from repro.samplers.threshold import Threshold

UNIFORM = Uniform(
    alpha_end=1e-9, eps=1e-3
)  # with alpha(1) > 0 the uniform start itself is off by O(alpha(1))


WIDE = random_space(3, 3)


# --- laws against theory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_absorbing_ancestral_mixes_the_law_with_its_marginals(count):
    """For L = 2 both tokens are revealed at the same step with probability 1/N, and are then independent
    (docs/method.md#oracle-12)."""
    found = law(exact(SPACE, ABSORBING), ABSORBING, Ancestral(), plan(2, count))
    true, independent = SPACE.as_law(), SPACE.independent()
    mixture = {x: (1 - 1 / count) * true[x] + independent[x] / count for x in true}
    assert total_variation(found, mixture) < 1e-10
    assert total_variation(mixture, true) > 0.1 / count


@pytest.mark.parametrize("meaning", ["leave_one_out", "x0_mean"])
def test_uniform_ancestral_converges_to_the_law(meaning):
    """The distance falls as 1/N or faster, and is small at N = 256 (docs/method.md#oracle-13)."""
    denoiser = exact(SPACE, UNIFORM, meaning)
    far = [
        total_variation(law(denoiser, UNIFORM, Ancestral(), plan(2, n)), SPACE.as_law())
        for n in (4, 16, 64, 256)
    ]
    assert all(later < 0.3 * sooner for sooner, later in itertools.pairwise(far))
    assert far[-1] < 0.002


@pytest.mark.parametrize("count", [1, 4, 9])
def test_both_meanings_sample_one_law(count):
    """After conversion a cross-entropy network samples like a NELBO network (docs/method.md#uniform-samplers)."""
    one, two = (
        law(exact(SPACE, UNIFORM, meaning), UNIFORM, Ancestral(), plan(2, count))
        for meaning in ("leave_one_out", "x0_mean")
    )
    assert total_variation(one, two) < 1e-12


def test_the_posterior_mean_plugged_in_never_converges():
    """Negative control: with E[x0 | xt] as leave-one-out, more steps do not help (docs/method.md#oracle-13,
    docs/method.md#uniform-samplers).

    The remaining distance depends on the space: .098 in docs/method.md#uniform-samplers, .140 in this one.
    """
    wrong = Known(SPACE.words, UNIFORM, "leave_one_out", exact(SPACE, UNIFORM, "x0_mean").answer)
    far = [
        total_variation(law(wrong, UNIFORM, Ancestral(), plan(2, n)), SPACE.as_law()) for n in (16, 64, 256)
    ]
    assert min(far) > 0.09 and far[2] > 0.95 * far[1]


@pytest.mark.parametrize("rule", [Random, Margin, Entropy])
@pytest.mark.parametrize("space", [SPACE, WIDE], ids=["L2", "L3"])
def test_one_at_a_time_is_exact(rule, space):
    """Positions chosen independently of the drawn tokens: the chain rule in some order (docs/method.md#oracle-10)."""
    assert not rule.capabilities.looks_at_draws
    found = law(exact(space, ABSORBING), ABSORBING, rule(temperature=1.0), plan(space.length, space.length))
    assert total_variation(found, space.as_law()) < 1e-12


def test_looking_at_the_draws_is_biased():
    """Committing the more probable of the drawn tokens sharpens the law, even one at a time."""
    assert LowConfidence.capabilities.looks_at_draws
    found = law(exact(SPACE, ABSORBING), ABSORBING, LowConfidence(temperature=1.0), plan(2, 2))
    assert total_variation(found, SPACE.as_law()) > 0.05


# --- laws against reference implementations -----------------------------------------------------------------


def ancestral_absorbing(denoiser: Known, temperature: float) -> Step:
    def step(z, i, count):
        t, s = 1 - i / count, 1 - (i + 1) / count
        p, here = said(denoiser, z), masked(z)
        for shown in itertools.product([False, True], repeat=len(here)):
            coins = math.prod((t - s) / t if coin else s / t for coin in shown)
            places = [place for place, coin in zip(here, shown, strict=True) if coin]
            for tokens, chance in token_draws(p, places, 1.0):
                yield written(z, tokens), coins * chance

    return step


def by_score(score: Callable[[list[float], int], float]) -> Callable[[Known, float], Step]:
    """Draws a token at every mask and commits the quota's best by score(probabilities, token)."""

    def rule(denoiser: Known, temperature: float) -> Step:
        def step(z, i, count):
            p, here = said(denoiser, z), masked(z)
            for tokens, chance in token_draws(p, here, temperature):
                kept = best(
                    {place: score(p[place], tokens[place]) for place in here}, quota(len(z), i, count)
                )
                yield written(z, {place: tokens[place] for place in kept}), chance

        return step

    return rule


def random_order(denoiser: Known, temperature: float) -> Step:
    def step(z, i, count):
        p, here = said(denoiser, z), masked(z)
        subsets = list(itertools.combinations(here, quota(len(z), i, count)))
        for subset in subsets:
            for tokens, chance in token_draws(p, list(subset), temperature):
                yield written(z, tokens), chance / len(subsets)

    return step


def threshold(denoiser: Known, temperature: float) -> Step:
    def step(z, i, count):
        p, here = said(denoiser, z), masked(z)
        for tokens, chance in token_draws(p, here, temperature):
            confidence = {place: p[place][tokens[place]] for place in here}
            kept = {*best(confidence, 1), *(place for place in here if confidence[place] >= 0.5)}
            yield written(z, {place: tokens[place] for place in kept}), chance

    return step


LITERAL = {
    "ancestral": (lambda temperature: Ancestral(), ancestral_absorbing),
    "low_confidence": (
        lambda temperature: LowConfidence(temperature=temperature),
        by_score(lambda p, v: p[v]),
    ),
    "margin": (
        lambda temperature: Margin(temperature=temperature),
        by_score(lambda p, v: sorted(p)[-1] - sorted(p)[-2]),
    ),
    "entropy": (
        lambda temperature: Entropy(temperature=temperature),
        by_score(lambda p, v: sum(q * math.log(q) for q in p)),
    ),
    "random": (lambda temperature: Random(temperature=temperature), random_order),
    "threshold": (lambda temperature: Threshold(threshold=0.5, temperature=temperature), threshold),
}
"""name: (sampler, reference implementation)."""


RULES = pytest.mark.parametrize("name", LITERAL)


@RULES
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_laws_of_absorbing_samplers(name, count, temperature):
    """Three positions and conditionals of no joint law, so that order, quota and temperature all matter."""
    made, reference = LITERAL[name]
    sampler, denoiser = made(temperature), stranger(WIDE, ABSORBING)
    given, count = (None, 3) if sampler.capabilities.plan == "adaptive" else (count, count)
    found = law(denoiser, ABSORBING, sampler, plan(3, given))
    truth = follow(reference(denoiser, temperature), {(MASK,) * 3: 1.0}, count)
    assert sum(truth.values()) == pytest.approx(1.0)
    assert total_variation(found, truth) < 1e-12


@pytest.mark.parametrize("meaning", ["leave_one_out", "x0_mean"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_law_of_uniform_ancestral(meaning, count):
    """Each token moves to s by Bayes' rule, averaged over the predicted x0 (docs/method.md#uniform-samplers)."""
    denoiser = exact(SPACE, UNIFORM, meaning)
    mean = exact(SPACE, UNIFORM, "x0_mean")

    def channel(alpha: float, x: int, z: int) -> float:
        return alpha * (x == z) + (1 - alpha) / 3

    def step(z, i, count):
        t, s = 1 - i / count, 1 - (i + 1) / count
        a_t, a_s = (1 - (1 - UNIFORM.alpha_end) * u for u in (t, s))
        p = said(mean, z, t)
        reverse = [
            [
                sum(
                    p[place][x] * channel(a_s, x, y) * channel(a_t / a_s, y, token) / channel(a_t, x, token)
                    for x in range(3)
                )
                for y in range(3)
            ]
            for place, token in enumerate(z)
        ]
        yield from (((y, w), reverse[0][y] * reverse[1][w]) for y in range(3) for w in range(3))

    found = law(denoiser, UNIFORM, Ancestral(), plan(2, count))
    start = dict.fromkeys(itertools.product(range(3), repeat=2), 1 / 9)
    assert total_variation(found, follow(step, start, count)) < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_law_of_autoregression(temperature):
    """The product of the network's conditionals, each tempered (docs/method.md#ar-baseline)."""
    words = Words(size=3, length=5)
    network = llama("causal", CAUSAL, words)
    found = law(network, CAUSAL, Autoregressive(temperature=temperature), plan(3, 3), prompt=[1])
    with torch.no_grad():
        truth = {}
        for x in itertools.product(range(3), repeat=3):
            rows = torch.tensor([[words.vocabulary().bos, 1, *x]])
            logits = network.logits(network.encode(rows, t=None, attention=Mask()))[0].double()
            logp = (logits[1:-1] / temperature).log_softmax(-1)
            truth[x] = logp.gather(1, torch.tensor(x)[:, None]).sum().exp().item()
    assert total_variation(found, truth) < 1e-6


@pytest.mark.parametrize("block", [1, 2, 4])
def test_blocks_are_written_left_to_right(block):
    """With blocks of one the law is the chain rule from left to right, and so exact."""
    space = random_space(3, 4)
    denoiser = exact(space, ABSORBING)
    found = law(denoiser, ABSORBING, LowConfidence(temperature=1.0), plan(4, 4, block))
    assert (total_variation(found, space.as_law()) < 1e-12) == (block == 1)


# --- streams draw these laws --------------------------------------------------------------------------------


ROWS = 50_000


def drawn(denoiser: Denoiser, process: Process, sampler: Sampler, made: Plan, rows: int = ROWS) -> Decoded:
    return decode(denoiser, process, sampler, made, [[]] * rows, seed=5, names=range(rows))


@RULES
def test_streams_draw_the_enumerated_law(name):
    """Chi-square of 50,000 decoded rows over the 27 sentences."""
    sampler, denoiser = LITERAL[name][0](1.0), stranger(WIDE, ABSORBING)
    made = plan(3, None if sampler.capabilities.plan == "adaptive" else 2)
    expected = law(denoiser, ABSORBING, sampler, made)
    ids = drawn(denoiser, ABSORBING, sampler, made).ids
    counts = torch.bincount(ids @ torch.tensor([9, 3, 1]), minlength=27).double()
    probabilities = torch.tensor([expected.get(x, 0.0) for x in itertools.product(range(3), repeat=3)])
    assert chi_square(counts, probabilities) > FALSE_ALARM


@pytest.mark.parametrize("meaning", ["leave_one_out", "x0_mean"])
def test_streams_draw_the_uniform_law(meaning):
    denoiser = exact(SPACE, UNIFORM, meaning)
    expected = law(denoiser, UNIFORM, Ancestral(), plan(2, 3))
    ids = drawn(denoiser, UNIFORM, Ancestral(), plan(2, 3)).ids
    counts = torch.bincount(ids @ torch.tensor([3, 1]), minlength=9).double()
    probabilities = torch.tensor([expected[x] for x in itertools.product(range(3), repeat=2)])
    assert chi_square(counts, probabilities) > FALSE_ALARM


def test_rare_tokens_are_drawn(monkeypatch):
    """Of 50,000 ids of probability 1e-8, inverse CDF in float64 can draw each, a float32 Gumbel race cannot
    (docs/method.md#oracle-34)."""
    rare, mass = 50_000, 5e-4
    logits = torch.full((rare + 1,), math.log(1e-8), dtype=torch.float64)
    logits[0] = math.log1p(-mass)
    wanted = torch.arange(1, rare, 997)
    u = (1 - mass) + (wanted.double() - 0.5) * 1e-8

    def drawn(u: torch.Tensor) -> torch.Tensor:
        """The tokens at temperature 1 when the uniform draws are u [n]."""
        n = len(u)
        where = torch.ones(n, 1, dtype=torch.bool)
        stream = Stream(0, torch.arange(n), 0)
        nothing: Any = None
        state = State(
            ids=where.long(),
            active=where,
            undecided=where,
            t=u,
            s=u,
            quota=1,
            step=0,
            steps=1,
            process=ABSORBING,
            prediction=nothing,
            memory=None,
            _draw=stream,
            _pad=torch.zeros(n, dtype=torch.int64),
            _forward=nothing,
        )
        with monkeypatch.context() as patched:
            patched.setattr(rng, "uniform", lambda keys: u)
            return state.tokens(logits.expand(n, -1), 1.0, where)

    assert torch.equal(drawn(u), wanted)
    assert drawn(torch.tensor([0.5 * (1 - mass)]).double()).item() == 0

    # the race is argmax p / E with E = -log U; the best rare id has the largest U, drawn as V^(1 / rare)
    trials = 400_000
    v = rng.uniform(rng.keys(0, rng.TOKEN, 0, torch.arange(trials)), 2)
    common, largest = v[:, 0], v[:, 1] ** (1 / rare)

    def rare_wins(common: torch.Tensor, largest: torch.Tensor) -> float:
        return (1e-8 / -largest.log() > (1 - mass) / -common.log()).double().mean().item()

    single = [((u * 2**24).floor() / 2**24).float() for u in (common, largest)]
    assert rare_wins(common, largest) == pytest.approx(mass, rel=0.3)
    assert rare_wins(*single) < 0.1 * mass


# --- quotas and cost ----------------------------------------------------------------------------------------


def certain(length: int, process: Process = ABSORBING) -> Known:
    """A denoiser of 5 ids whose confidence decreases from left to right."""
    words = Words(size=5, length=length)

    def answer(ids: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        place = torch.arange(ids.shape[1])
        top = 0.9 - 0.5 * place / ids.shape[1]
        p = ((1 - top) / 4)[:, None].repeat(1, 5)
        p[place, place % 5] = top
        return p.expand(len(ids), -1, -1)

    return Known(words, process, "leave_one_out", answer)


@pytest.mark.parametrize("sampler", [LowConfidence, Margin, Entropy, Random])
@pytest.mark.parametrize(
    ("made", "quotas"),
    [
        (plan(32, 7), [5, 5, 5, 5, 4, 4, 4]),
        (plan(10, 4), [3, 3, 2, 2]),
        (plan(12, 12), [1] * 12),
        (plan(12, 1), [12]),
        (plan(10, 4, 5), [3, 2, 3, 2]),
    ],
)
def test_quotas_give_the_rest_to_the_first_steps(sampler, made, quotas):
    """LLaDA's transfer counts, block by block (docs/method.md#llada-sampling, docs/method.md#oracle-23)."""
    denoiser = certain(made.gen_length)
    frames = steps(denoiser, ABSORBING, sampler(temperature=0.0), made, [[]], seed=0, names=[0])
    committed = [int(frame.changed.sum()) for _, frame in frames]
    assert committed == quotas


def test_threshold_above_one_is_greedy_one_at_a_time():
    """No position passes, so only the best is committed at each step (docs/method.md#oracle-29)."""
    denoiser = stranger(WIDE, ABSORBING)
    one = drawn(denoiser, ABSORBING, Threshold(threshold=1.1, temperature=0.0), plan(3, None), 1)
    two = drawn(denoiser, ABSORBING, LowConfidence(temperature=0.0), plan(3, 3), 1)
    assert torch.equal(one.ids, two.ids) and one.cost.forwards.item() == 3


def test_threshold_zero_takes_one_forward_a_block():
    """All positions pass (docs/method.md#oracle-29); further steps of a complete block are not taken."""
    rule = Threshold(threshold=0.0, temperature=0.0)
    for block, forwards in ((12, 1), (4, 3)):
        found = decode(certain(12), ABSORBING, rule, plan(12, None, block), [[]] * 2, seed=0, names=[0, 1])
        assert found.cost.forwards.tolist() == [forwards] * 2
        assert found.cost.token_forwards.tolist() == [12 * forwards] * 2
        assert found.ids[0].tolist() == [place % 5 for place in range(12)]


def test_a_threshold_commits_the_positions_that_pass():
    """Confidence falls from .9 by .5/12 per position; the first three have at least .8, then one per step follows."""
    rule = Threshold(threshold=0.8, temperature=0.0)
    frames = steps(certain(12), ABSORBING, rule, plan(12, None), [[]], seed=0, names=[0])
    assert [int(frame.changed.sum()) for _, frame in frames] == [3] + [1] * 9


def test_ancestral_forwards_only_rows_that_reveal():
    """A row's forwards are the steps that revealed a position in it (docs/method.md#mdlm)."""
    revealed, forwards = torch.zeros(200), torch.zeros(200)
    frames = steps(certain(6), ABSORBING, Ancestral(), plan(6, 40), [[]] * 200, seed=0, names=range(200))
    for _, frame in frames:
        revealed += frame.changed.any(1)
        forwards = frame.cost.forwards
    assert torch.equal(revealed, forwards.float())
    expected = 40 * (1 - (1 - 1 / 40) ** 6)  # docs/method.md#mdlm: E[NFE] of a row
    assert abs(forwards.float().mean().item() - expected) < 4 * forwards.float().std().item() / 200**0.5


def test_invalid_plans_are_refused():
    """With one line that names the remedy."""
    cases = [
        (UNIFORM, LowConfidence(temperature=0.0), plan(4, 4), "absorbing"),
        (ABSORBING, LowConfidence(temperature=0.0), plan(4, 5), "exceed gen_length 4"),
        (ABSORBING, LowConfidence(temperature=0.0), plan(4, 3, 2), "multiple of the number of blocks, 2"),
        (ABSORBING, LowConfidence(temperature=0.0), plan(4, 4, 3), "no multiple of block_length 3"),
        (ABSORBING, Threshold(threshold=0.9, temperature=0.0), plan(4, 4), "takes no number of steps"),
        (CAUSAL, Autoregressive(temperature=1.0), plan(4, 2), "steps must be 4"),
    ]
    for process, sampler, made, message in cases:
        with pytest.raises(ValueError, match=message):
            decode(certain(4), process, sampler, made, [[]], seed=0, names=[0])


NAMES = {
    "absorbing": [name for name, rule in PRESETS.items() if "absorbing" in rule.capabilities.processes],
    "uniform": [name for name, rule in PRESETS.items() if "uniform" in rule.capabilities.processes],
}


@pytest.mark.parametrize("processor", ["", "+no_eos:ids=[0,1,2]"], ids=["nan", "all_forbidden"])
@pytest.mark.parametrize(
    ("process", "name"),
    [(process, name) for process in (ABSORBING, UNIFORM) for name in NAMES[process.noise]],
    ids=lambda each: each if isinstance(each, str) else each.noise,
)
def test_an_output_without_a_possible_id_is_one_sentence(process, name, processor):
    """NaN, as of weights that diverged, and a processor that forbids every id: greedy rules had written id 0 without a
    word, draws had ended in an IndexError."""
    value = 1 / 3 if processor else math.nan
    answer = Known(
        Words(size=3, length=4),
        process,
        "leave_one_out",
        lambda ids, t: torch.full((*ids.shape, 3), value).double(),
    )
    rule = preset(name + processor)
    made = plan(4, None if rule.capabilities.plan == "adaptive" else 4)
    with pytest.raises(
        ValueError, match="NaN or infinite at a position to be decided, or a logits processor forbids"
    ):
        decode(answer, process, rule, made, [[], [1]], seed=0, names=[0, 1])
