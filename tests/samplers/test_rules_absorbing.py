"""Rules for absorbing noise: adaptive, first-hitting and remasking ones, and their cost.

Enumerated laws are compared with reference implementations (`helpers.paper`), marginals with theory, times with order
statistics, and tokens at temperature 0 with loops written from docs/method.md#entropy-bound and
docs/method.md#fast-dllm. N steps, V = 3, mask id 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from helpers.decodings import ABSORBING, BIDIRECTIONAL, FALSE_ALARM, MARGIN, NETWORKS, PROMPTS, TOY, plan
from helpers.paper import MASK, Step, best, follow, masked, said, tempered, token_draws, written
from helpers.spaces import (
    SPACE,
    Known,
    Words,
    chi_square,
    exact,
    random_space,
    stranger,
    total_variation,
)

from repro.core import rng
from repro.models.attention import Mask
from repro.samplers.ancestral import Ancestral, FirstHitting, Origin
from repro.samplers.decode import decode, steps
from repro.samplers.law import law, laws
from repro.samplers.ordered import LowConfidence
from repro.samplers.plan import Plan
from repro.samplers.presets import preset
from repro.samplers.remdm import ForwardBackward, RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from repro.samplers.sampler import Sampler
from repro.samplers.threshold import EntropyBound, Factor

WIDE = random_space(3, 3)
LOOP = RemdmLoop(eta=0.05, t_on=0.6, t_off=0.3, alpha_on=0.8)


def planned(rule: Sampler, length: int, count: int) -> Plan:
    return plan(length, None if rule.capabilities.plan == "adaptive" else count)


class Untimed(Known):
    """The same outputs without time conditioning, which lets first-hitting be enumerated."""

    time_conditioned = False

    def encode(self, tokens, *, t, attention, positions=None, kv_cache=None):
        assert t is None
        return super().encode(tokens, t=torch.zeros(len(tokens)), attention=attention)


def untimed(denoiser: Known) -> Known:
    words = Words(size=3, length=denoiser.vocabulary.total)
    return Untimed(words, ABSORBING, "leave_one_out", denoiser.answer)


# --- laws against reference implementations -----------------------------------------------------------------


def factor(denoiser: Known, temperature: float) -> Step:
    """Accepts rank r, from 1, when (r + 1)(1 - c) <= f (docs/method.md#fast-dllm)."""

    def step(z, i, count):
        p, here = said(denoiser, z), masked(z)
        for tokens, chance in token_draws(p, here, temperature):
            sure = {place: p[place][tokens[place]] for place in here}
            ranked = best(sure, len(here))
            kept = [q for r, q in enumerate(ranked, 1) if r == 1 or (r + 1) * (1 - sure[q]) <= 1.3]
            yield written(z, {place: tokens[place] for place in kept}), chance

    return step


def entropy_bound(proxy: Callable[[list[float]], float]) -> Callable[[Known, float], Step]:
    """Accepts the largest prefix k, by falling proxy, with sum H - max H <= gamma (docs/method.md#entropy-bound)."""

    def rule(denoiser: Known, temperature: float) -> Step:
        def step(z, i, count):
            p = [tempered(row, temperature) for row in said(denoiser, z)]
            here = masked(z)
            if not here:
                yield z, 1.0
                return
            entropy = {q: -sum(v * math.log(v) for v in p[q]) for q in here}
            ranked = best({q: proxy(p[q]) for q in here}, len(here))
            fits = [
                k
                for k in range(1, len(here) + 1)
                if sum(entropy[q] for q in ranked[:k]) - max(entropy[q] for q in ranked[:k]) <= 0.8
            ]
            for tokens, chance in token_draws(p, ranked[: max(fits)], 1.0):
                yield written(z, tokens), chance

        return step

    return rule


def origin(denoiser: Known, temperature: float) -> Step:
    """Dream: t_i = linspace(1, 1e-3, N + 1); reveals with probability 1 - s/t, at the last step with 1
    (docs/method.md#dream-rules)."""

    def step(z, i, count):
        grid = torch.linspace(1, 1e-3, count + 1, dtype=torch.float64).tolist()
        show = 1.0 if i == count - 1 else 1 - grid[i + 1] / grid[i]
        p, here = said(denoiser, z), masked(z)
        for shown in itertools.product([False, True], repeat=len(here)):
            coins = math.prod(show if coin else 1 - show for coin in shown)
            places = [place for place, coin in zip(here, shown, strict=True) if coin]
            for tokens, chance in token_draws(p, places, 1.0):
                yield written(z, tokens), coins * chance

    return step


def any_order(denoiser: Known, temperature: float) -> Step:
    """Reveals one masked position, each equally likely (docs/method.md#block-diffusion)."""

    def step(z, i, count):
        p, here = said(denoiser, z), masked(z)
        for place in here:
            for tokens, chance in token_draws(p, [place], 1.0):
                yield written(z, tokens), chance / len(here)

    return step


Alpha = Callable[[int, int], float]
Sigma = Callable[[float, float], float]


def linear(i: int, count: int) -> float:
    return i / count


def remdm(sigma: Sigma, alpha: Alpha = linear) -> Callable[[Known, float], Step]:
    """Independent positions with the probabilities of docs/method.md#remdm."""

    def rule(denoiser: Known, temperature: float) -> Step:
        def step(z, i, count):
            a_t, a_s = alpha(i, count), alpha(i + 1, count)
            most = min(1.0, (1 - a_s) / a_t) if a_t else 1.0
            sig = min(sigma(a_t, a_s), most) if a_t else 0.0
            p = said(denoiser, z)
            laws = []
            for place, token in enumerate(z):
                if token == MASK:
                    x = (a_s - (1 - sig) * a_t) / (1 - a_t)
                    m = (1 - a_s - sig * a_t) / (1 - a_t)
                    laws.append([*(x * v for v in p[place]), m])
                else:
                    laws.append([*((1 - sig) * (v == token) for v in range(3)), sig])
            for new in itertools.product(range(4), repeat=len(z)):
                chance = math.prod(row[v] for row, v in zip(laws, new, strict=True))
                if chance > 0:
                    yield new, chance

        return step

    return rule


def loop_alpha(i: int, count: int) -> float:
    """The schedule of LOOP: up to .8 when .6 of the steps remain, constant until .3, then to 1."""
    left = 1 - i / count
    if left > 0.6:
        return (1 - left) * 0.8 / 0.4
    return 0.8 if left > 0.3 else 1 - left * 0.2 / 0.3


LITERAL = {
    "factor": (lambda temperature: Factor(factor=1.3, temperature=temperature), factor),
    "bound_entropy": (
        lambda temperature: EntropyBound(gamma=0.8, proxy="entropy", temperature=temperature),
        entropy_bound(lambda p: sum(v * math.log(v) for v in p)),
    ),
    "bound_confidence": (
        lambda temperature: EntropyBound(gamma=0.8, proxy="confidence", temperature=temperature),
        entropy_bound(max),
    ),
    "bound_margin": (
        lambda temperature: EntropyBound(gamma=0.8, proxy="margin", temperature=temperature),
        entropy_bound(lambda p: sorted(p)[-1] - sorted(p)[-2]),
    ),
    "origin": (lambda temperature: Origin(end=1e-3), origin),
    "cap": (lambda temperature: RemdmCap(eta=0.2), remdm(lambda a_t, a_s: 0.2)),
    "rescale": (
        lambda temperature: RemdmRescale(eta=0.3),
        remdm(lambda a_t, a_s: 0.3 * min(1.0, (1 - a_s) / a_t)),
    ),
    "forward_backward": (lambda temperature: ForwardBackward(), remdm(lambda a_t, a_s: (a_s - a_t) / a_t)),
    "loop": (
        lambda temperature: LOOP,
        remdm(lambda a_t, a_s: 0.05 if abs(a_t - a_s) < 1e-12 else 0.0, loop_alpha),
    ),
}
"""name: (sampler, reference implementation)."""


TEMPERED = [
    name for name in LITERAL if name in ("factor", "bound_entropy", "bound_confidence", "bound_margin")
]


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_laws_of_adaptive_rules(name, temperature):
    """Three positions and conditionals of no joint law, so that order and temperature matter."""
    made, reference = LITERAL[name]
    denoiser = stranger(WIDE, ABSORBING)
    found = law(denoiser, ABSORBING, made(temperature), plan(3, None))
    truth = follow(reference(denoiser, temperature), {(MASK,) * 3: 1.0}, 3)
    assert sum(truth.values()) == pytest.approx(1.0)
    assert total_variation(found, truth) < 1e-10


@pytest.mark.parametrize("name", [name for name in LITERAL if name not in TEMPERED])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_laws_of_rules_in_time(name, count):
    made, reference = LITERAL[name]
    denoiser = stranger(random_space(3, 2), ABSORBING)
    found = law(denoiser, ABSORBING, made(1.0), plan(2, count))
    truth = follow(reference(denoiser, 1.0), {(MASK,) * 2: 1.0}, count)
    assert sum(truth.values()) == pytest.approx(1.0)
    assert total_variation(found, truth) < 1e-10


def test_law_of_first_hitting():
    denoiser = stranger(WIDE, ABSORBING)
    found = law(untimed(denoiser), ABSORBING, FirstHitting(), plan(3, None))
    truth = follow(any_order(denoiser, 1.0), {(MASK,) * 3: 1.0}, 3)
    assert total_variation(found, truth) < 1e-12
    whole = law(untimed(exact(WIDE, ABSORBING)), ABSORBING, FirstHitting(), plan(3, None))
    assert total_variation(whole, WIDE.as_law()) < 1e-12
    with pytest.raises(ValueError, match="draws uniform numbers, whose outcomes cannot be listed"):
        law(denoiser, ABSORBING, FirstHitting(), plan(3, None))


@pytest.mark.parametrize("count", [2, 4, 7])
def test_law_of_remdm_conf(count):
    """The reference's state also holds each token's probability when drawn (docs/method.md#remdm)."""
    denoiser = stranger(random_space(3, 2), ABSORBING)

    def step(state, i, count):
        z, sure = state
        a_t, a_s = i / count, (i + 1) / count
        weights = [0.0 if v == MASK else math.exp(-c) for v, c in zip(z, sure, strict=True)]
        limit = min(1.0, (1 - a_s) / a_t) if a_t else 0.0
        p = said(denoiser, z)
        outcomes = []
        for place, token in enumerate(z):
            if token == MASK:
                show = (a_s - a_t) / (1 - a_t)
                outcomes.append([(v, p[place][v], show * p[place][v]) for v in range(3)])
                outcomes[-1].append((MASK, 0.0, 1 - show))
            else:
                sigma = limit * weights[place] / sum(weights)
                outcomes.append([(token, sure[place], 1 - sigma), (MASK, 0.0, sigma)])
        for chosen in itertools.product(*outcomes):
            yield tuple(zip(*[(v, c) for v, c, _ in chosen], strict=True)), math.prod(w for *_, w in chosen)

    truth: dict = {}
    for (z, _), weight in follow(step, {((MASK,) * 2, (0.0,) * 2): 1.0}, count).items():
        truth[z] = truth.get(z, 0.0) + weight
    found = law(denoiser, ABSORBING, RemdmConf(), plan(2, count))
    assert total_variation(found, truth) < 1e-10


STREAMED = {
    **{name: made(1.0) for name, (made, _) in LITERAL.items()},
    "conf": RemdmConf(),
    "first_hitting": FirstHitting(),
}


@pytest.mark.parametrize("name", ["factor", "bound_entropy", "first_hitting", "cap", "conf"])
def test_streams_draw_the_enumerated_law(name):
    """Chi-square of 50,000 decoded rows over the 27 sentences."""
    rule, rows = STREAMED[name], 50_000
    length = 3 if rule.capabilities.plan == "adaptive" else 2  # remasking rules have many states
    denoiser = untimed(stranger(random_space(3, length), ABSORBING))
    made = planned(rule, length, 3)
    expected = law(denoiser, ABSORBING, rule, made)
    ids = decode(denoiser, ABSORBING, rule, made, [[]] * rows, seed=5, names=range(rows)).ids
    code = ids @ torch.tensor([9, 3, 1][3 - length :])
    counts = torch.bincount(code, minlength=3**length).double()
    sentences = itertools.product(range(3), repeat=length)
    probabilities = torch.tensor([expected.get(x, 0.0) for x in sentences], dtype=torch.float64)
    assert chi_square(counts, probabilities) > FALSE_ALARM


# --- theory -------------------------------------------------------------------------------------------------


def knows(x: tuple[int, ...]) -> Known:
    """A denoiser that predicts x with certainty."""
    row = torch.nn.functional.one_hot(torch.tensor(x), 3).double()
    return Known(WIDE.words, ABSORBING, "leave_one_out", lambda ids, t: row.expand(len(ids), -1, -1))


@pytest.mark.parametrize(
    "rule", [Ancestral(), RemdmCap(eta=0.2), RemdmRescale(eta=0.5), ForwardBackward(), LOOP], ids=str
)
@pytest.mark.parametrize("count", [1, 4, 20])
def test_remasking_keeps_the_marginals(rule, count):
    """With x known, the law at each time s is q(z_s | x) for any sigma (docs/method.md#oracle-4)."""
    x = (2, 0, 1)
    for i, found in enumerate(laws(knows(x), ABSORBING, rule, plan(3, count))):
        keep = 1 - rule.time(i, count)
        q = {
            tuple(v if shown else MASK for v, shown in zip(x, coins, strict=True)): math.prod(
                keep if shown else 1 - keep for shown in coins
            )
            for coins in itertools.product([False, True], repeat=3)
        }
        assert total_variation(found, q) < 1e-12
    assert i == count


def test_remdm_conf_does_not_keep_the_marginals():
    """Masked positions have sigma 0, so too much is masked: the rule is biased, as it declares."""
    found = list(laws(knows((2, 0, 1)), ABSORBING, RemdmConf(), plan(3, 4)))[3]
    assert found[2, 0, 1] < 0.75**3 - 0.05 and RemdmConf().claim() == "biased"


def test_loop_follows_its_schedule():
    """alpha rises from 0 to alpha_on, is constant from t_on to t_off, and rises to 1."""
    rule = RemdmLoop(eta=0.02, t_on=0.55, t_off=0.05, alpha_on=0.9)
    alpha = [1 - rule.time(i, 200) for i in range(201)]
    assert alpha[0] == 0 and alpha[200] == 1 and alpha[45] == pytest.approx(0.45)
    assert all(alpha[i] == pytest.approx(0.9) for i in range(90, 191))
    assert alpha[195] == pytest.approx(0.95) and all(a <= b + 1e-15 for a, b in itertools.pairwise(alpha))
    with pytest.raises(ValueError, match="0 < t_off < t_on < 1"):
        preset("remdm_loop:t_on=0.01")
    with pytest.raises(ValueError, match="give a fraction from 0 to 1"):
        preset("remdm_cap:eta=1.5")


def test_no_remasking_is_ancestral_sampling():
    """eta = 0 gives equal tokens and forwards."""
    denoiser, made = stranger(WIDE, ABSORBING), plan(3, 6)
    one, two, three = (
        decode(denoiser, ABSORBING, rule, made, [[]] * 50, seed=3, names=range(50))
        for rule in (Ancestral(), RemdmCap(eta=0.0), RemdmCap(eta=0.3))
    )
    assert torch.equal(one.ids, two.ids) and torch.equal(one.cost.forwards, two.cost.forwards)
    assert not torch.equal(one.ids, three.ids)


@pytest.mark.parametrize("rule", [RemdmRescale(eta=0.15), ForwardBackward()], ids=str)
def test_rules_that_claim_the_law_converge_to_it(rule):
    """Sigma falls to 0 with the masked share, so the last steps change fewer and fewer tokens at once."""
    assert rule.claim() == "law"
    far = [
        total_variation(law(exact(SPACE, ABSORBING), ABSORBING, rule, plan(2, n)), SPACE.as_law())
        for n in (8, 32, 128)
    ]
    assert far[1] < 0.5 * far[0] and far[2] < 0.7 * far[1]


def test_a_cap_converges_ever_more_slowly():
    """From 32 to 128 steps 1/sqrt(N) would halve the distance; the cap's falls less, and it does not claim the law."""
    rule = RemdmCap(eta=0.08)
    assert rule.claim() == "biased"
    far = [
        total_variation(law(exact(SPACE, ABSORBING), ABSORBING, rule, plan(2, n)), SPACE.as_law())
        for n in (32, 128)
    ]
    assert far[1] > 0.6 * far[0]


def test_a_loop_does_not_converge():
    """Steps at constant alpha_on and sigma make errors that more steps do not reduce."""
    rule = RemdmLoop(eta=0.1, t_on=0.55, t_off=0.05, alpha_on=0.9)
    assert rule.claim() == "biased"
    far = [
        total_variation(law(exact(SPACE, ABSORBING), ABSORBING, rule, plan(2, n)), SPACE.as_law())
        for n in (40, 160)
    ]
    assert far[1] > 0.85 * far[0] and far[1] > 0.007  # 1/N would leave a quarter


# --- times --------------------------------------------------------------------------------------------------


def test_hitting_times_are_order_statistics():
    """With six positions the r-th is revealed at mean time 1 - r/7, as order statistics of six uniforms
    (docs/method.md#oracle-27).

    Each block begins at time 1; earlier columns are at time 0, later ones at 1; one forward per token.
    """
    rows, seen = 30_000, []
    uniform = torch.ones(3).double() / 3

    def answer(ids, t):
        seen.append(t)
        return uniform.expand(*ids.shape, 3)

    known = Known(Words(size=3, length=12), ABSORBING, "leave_one_out", answer)
    found = decode(
        known, ABSORBING, FirstHitting(), plan(12, None, 6), [[]] * rows, seed=1, names=range(rows)
    )
    assert found.cost.forwards.tolist() == [12] * rows and len(seen) == 12
    assert found.cost.further.sum() == 0, "the only forward of a step is its first, whatever its time"
    for r, t in enumerate(seen):
        block = slice(0, 6) if r < 6 else slice(6, 12)
        assert (t[:, block] == t[:, block][:, :1]).all() and (t[:, block] < 1).all()
        assert (t[:, : block.start] == 0).all() and (t[:, block.stop :] == 1).all()
        assert t[:, block].mean().item() == pytest.approx(1 - (r % 6 + 1) / 7, abs=0.003)
    spread = seen[0][:, 0].var().item()
    assert spread == pytest.approx(6 / (7**2 * 8), rel=0.05)  # Beta(6, 1)


def test_first_hitting_is_watched_at_its_own_times():
    """The confidence of a token is its probability at the hitting time; no further forward is made for it."""
    seen: list[torch.Tensor] = []

    def answer(ids, t):
        seen.append(t[:, 0])
        return torch.stack([t, 1 - t], -1).double()

    known = Known(Words(size=2, length=4), ABSORBING, "leave_one_out", answer)
    rows = {"seed": 1, "names": range(5)}
    frames = steps(known, ABSORBING, FirstHitting(), plan(4, None), [[]] * 5, **rows, confidence=True)
    for number, (_, frame) in enumerate(frames, start=1):
        assert len(seen) == number and frame.confidence is not None
        expected = torch.where(frame.ids == 0, seen[-1][:, None], 1 - seen[-1][:, None])
        assert torch.allclose(frame.confidence[frame.changed], expected[frame.changed])
    assert len(seen) == 4


def test_ancestral_costs_what_a_cached_sampler_does():
    """MDLM's cached sampler with batch b takes N (1 - (1 - 1/N)^(b L)) forwards; ours counts per row, b = 1
    (docs/method.md#mdlm, docs/method.md#oracle-26)."""
    length, count, rows = 64, 100, 400
    uniform = torch.ones(3).double() / 3
    known = Known(
        Words(size=3, length=length), ABSORBING, "leave_one_out", lambda ids, t: uniform.expand(*ids.shape, 3)
    )
    before, ran = torch.zeros(rows), []
    for _, frame in steps(
        known, ABSORBING, Ancestral(), plan(length, count), [[]] * rows, seed=2, names=range(rows)
    ):
        after = frame.cost.forwards.clone().float()
        ran.append(after - before)
        before = after
    forwarded = torch.stack(ran)
    for batch in (1, 4):
        cost = forwarded.view(len(ran), -1, batch).amax(-1).sum(0)
        expected = count * (1 - (1 - 1 / count) ** (batch * length))
        assert abs(cost.mean().item() - expected) < 3 * cost.std().item() / len(cost) ** 0.5
    assert expected == pytest.approx(92.37, abs=0.01)
    assert count * (1 - (1 - 1 / count) ** length) == pytest.approx(47.440, abs=5e-4)


# --- how much is committed ----------------------------------------------------------------------------------


def test_bounds_at_their_extremes():
    """Factor 0 and gamma 0 commit one position per forward, large values a whole block (docs/method.md#oracle-29)."""
    space = random_space(3, 4)
    denoiser = stranger(space, ABSORBING)

    def run(rule, block=4):
        made = planned(rule, 4, 4)
        found = decode(
            denoiser, ABSORBING, rule, Plan(**{**vars(made), "block_length": block}), [[]], seed=0, names=[0]
        )
        return found.ids[0].tolist(), found.cost.forwards.item()

    greedy = run(LowConfidence(temperature=0.0))
    assert run(Factor(factor=0.0, temperature=0.0)) == greedy and greedy[1] == 4
    assert run(Factor(factor=5.0, temperature=0.0))[1] == 1  # L + 1
    assert run(Factor(factor=5.0, temperature=0.0), block=2)[1] == 2
    for proxy in ("entropy", "confidence", "margin"):
        assert run(EntropyBound(gamma=0.0, proxy=proxy, temperature=1.0))[1] == 4
        assert run(EntropyBound(gamma=1e9, proxy=proxy, temperature=1.0))[1] == 1
    assert run(EntropyBound(gamma=0.0, proxy="confidence", temperature=0.0)) == greedy


def test_gamma_zero_is_exact():
    """One position per step, chosen independently of its draw, is exact."""
    rule = EntropyBound(gamma=0.0, proxy="entropy", temperature=1.0)
    assert (
        rule.claim() == "law"
        and EntropyBound(gamma=0.1, proxy="entropy", temperature=1.0).claim() == "biased"
    )
    found = law(exact(WIDE, ABSORBING), ABSORBING, rule, plan(3, None))
    assert total_variation(found, WIDE.as_law()) < 1e-12


def test_factor_one_commits_the_joint_argmax():
    """Fast-dLLM, theorem 1: if 3 (1 - c_2) <= 1, two argmaxes are the argmax of every joint law of the two
    (docs/method.md#fast-dllm)."""
    rows = 4000
    weights = rng.uniform(rng.keys(0, rng.LANGUAGE, 0, torch.arange(rows)), 9) ** 8
    joint = (weights / weights.sum(1, keepdim=True)).view(rows, 3, 3)
    marginals = torch.stack([joint.sum(2), joint.sum(1)], 1)
    known = Known(Words(size=3, length=2), ABSORBING, "leave_one_out", lambda ids, t: marginals[: len(ids)])
    rule = Factor(factor=1.0, temperature=0.0)
    first = next(iter(steps(known, ABSORBING, rule, plan(2, None), [[]] * rows, seed=0, names=range(rows))))[
        1
    ]
    both = first.changed.all(1)
    assert 200 < int(both.sum()) < rows - 200
    best_pair = joint.flatten(1).argmax(1)
    together = first.ids[:, 0] * 3 + first.ids[:, 1]
    assert torch.equal(together[both], best_pair[both])
    argmaxes = marginals.argmax(-1)
    assert (argmaxes[:, 0] * 3 + argmaxes[:, 1] != best_pair).any()  # elsewhere they can differ


# --- networks -----------------------------------------------------------------------------------------------


def adaptive(network, prompt, length, block, choose):
    """Reference loop of an adaptive rule at temperature 0; returns tokens and forwards."""
    x, forwards = torch.tensor([*prompt, *[TOY.size] * length]), 0
    for start in range(len(prompt), len(prompt) + length, block):
        while (here := (x[start : start + block] == TOY.size).nonzero()[:, 0] + start).numel():
            with torch.no_grad():
                logits = network.head().logits(network.encode(x[None], t=None, attention=Mask()))[0].double()
            logits[:, TOY.size :] = -math.inf
            forwards += 1
            p = logits.softmax(-1)[here]
            chosen = here[choose(p)]
            x[chosen] = logits[chosen].argmax(-1)
    return x[len(prompt) :].tolist(), forwards


def by_factor(p):
    sure, order = p.amax(-1).sort(descending=True)
    spare = 1.0 - torch.arange(2, len(sure) + 2) * (1 - sure)
    assert spare[1:].abs().min() > MARGIN if len(sure) > 1 else True
    count = 1
    while count < len(sure) and spare[count] >= 0:
        count += 1
    return order[:count]


def by_entropy(p):
    entropy, order = (-torch.special.xlogy(p, p).sum(-1)).sort()
    count = 1
    for k in range(2, len(entropy) + 1):
        ignored = float(entropy[:k].sum() - entropy[:k].max())
        assert abs(ignored - 0.7) > MARGIN
        count = k if ignored <= 0.7 else count
    return order[:count]


@BIDIRECTIONAL
@pytest.mark.parametrize("block", [8, 4])
@pytest.mark.parametrize(
    ("rule", "choose"),
    [
        (Factor(factor=1.0, temperature=0.0), by_factor),
        (EntropyBound(gamma=0.7, proxy="entropy", temperature=0.0), by_entropy),
    ],
    ids=["factor", "entropy_bound"],
)
def test_adaptive_rules_equal_reference_loops(network, rule, choose, block):
    """Equal tokens and forwards for three unequal prompts, batched and alone."""
    model, made = NETWORKS[network](), plan(8, None, block)
    expected = [adaptive(model, prompt, 8, block, choose) for prompt in PROMPTS]
    together = decode(model, ABSORBING, rule, made, PROMPTS, seed=0, names=range(3))
    assert together.ids.tolist() == [tokens for tokens, _ in expected]
    assert together.cost.forwards.tolist() == [forwards for _, forwards in expected]
    for prompt, (tokens, _) in zip(PROMPTS, expected, strict=True):
        assert decode(model, ABSORBING, rule, made, [prompt], seed=0, names=[0]).ids[0].tolist() == tokens
    assert any(1 < forwards < 8 for _, forwards in expected)


@BIDIRECTIONAL
@pytest.mark.parametrize("name", STREAMED)
def test_the_batch_does_not_matter(network, name):
    """Draws are keyed by row and position, so unequal prompts decode alike together and one by one."""
    model, rule = NETWORKS[network](), STREAMED[name]
    made = plan(8, None if rule.capabilities.plan == "adaptive" else 8, 4)
    together = decode(model, ABSORBING, rule, made, PROMPTS, seed=1, names=range(3))
    for name_, prompt in enumerate(PROMPTS):
        alone = decode(model, ABSORBING, rule, made, [prompt], seed=1, names=[name_])
        assert alone.ids[0].tolist() == together.ids[name_].tolist()
        assert alone.cost.forwards.item() == together.cost.forwards[name_].item()
