"""Logits processors (guidance, truncation, EOS flags, orders, quotas) and networks with shifted logits.

At temperature 0 tokens are compared with loops written from the sources (docs/method.md#llada-sampling,
docs/method.md#top-p, docs/method.md#dream-rules, docs/method.md#dllm-quotas), on random networks whose decisions are
clear; otherwise the enumerated law is compared with a reference implementation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from hashlib import sha256

import pytest
import torch
from helpers.decodings import ABSORBING, CAUSAL, MARGIN, PROMPTS, plan
from helpers.paper import MASK, Step, best, follow, masked, quota, said, tempered, token_draws, written
from helpers.spaces import (
    Known,
    Law,
    Words,
    exact,
    llama,
    modernbert,
    random_space,
    stranger,
    total_variation,
)

from repro.core import parts
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.models.attention import Mask
from repro.models.denoiser import Denoiser
from repro.models.shifted import Shifted
from repro.models.shifted_network import ShiftedDenoiser
from repro.processes.prediction import Role
from repro.samplers.decode import decode, steps
from repro.samplers.law import law
from repro.samplers.logits_processors import (
    Guided,
    Nucleus,
    ProcessedSampler,
    TopP,
)
from repro.samplers.presets import LOGITS_PROCESSORS, describe, preset
from repro.samplers.quotas import DreamQuotas, RoundedQuotas

WIDE = random_space(3, 3)
EOS = 4


@part
class WordsWithEos(Words):
    """Words with id 4 as EOS."""

    def vocabulary(self) -> Vocabulary:
        size = self.size
        return Vocabulary(size=size, total=size + 2, mask=size, bos=size + 1, eos=EOS, pad=None)


TOY = WordsWithEos(size=11, length=24)
NETWORKS = {
    "llama": lambda: llama("bidirectional", ABSORBING, TOY),
    "modernbert": lambda: modernbert(ABSORBING, TOY),
}
BIDIRECTIONAL = pytest.mark.parametrize("network", NETWORKS)


def raw(network: Denoiser, ids: torch.Tensor) -> torch.Tensor:
    """Logits [L, V] of one row in float64, ids beyond the tokens forbidden."""
    with torch.no_grad():
        logits = network.head().logits(network.encode(ids[None], t=None, attention=Mask()))[0].double()
    logits[:, TOY.size :] = -torch.inf
    return logits


def llada(network, prompt, length, steps, block, cfg=None, eos_inf=False, eos_last=False, extra=None):
    """LLaDA's generate at temperature 0, written from docs/method.md#llada-sampling; returns tokens and forwards.

    `extra` processes the logits [V] of each position.
    """
    x = torch.tensor([*prompt, *[TOY.size] * length])
    is_prompt = torch.arange(len(x)) < len(prompt)
    forwards, per_block = 0, steps // (length // block)
    for number in range(length // block):
        end = len(prompt) + (number + 1) * block
        for i in range(per_block):
            logits = raw(network, x)
            forwards += 1
            if cfg is not None:
                un = raw(network, torch.where(is_prompt, TOY.size, x))
                logits = (un + (cfg + 1) * (logits - un)).nan_to_num(nan=-math.inf)
                forwards += 1
            if extra is not None:
                logits = torch.stack([extra(row) for row in logits])
            if eos_inf:
                logits[:, EOS] = -math.inf
            tokens = logits.argmax(-1)
            scored = logits.clone()
            if eos_last:
                scored[:, EOS] = -math.inf
            confidence = scored.softmax(-1).gather(1, tokens[:, None])[:, 0]
            confidence[(x != TOY.size) | (torch.arange(len(x)) >= end)] = -math.inf
            order = confidence.argsort(descending=True, stable=True)
            k = block // per_block + (i < block % per_block)
            at_stake = confidence[order[: k + 1]]
            if len(order) > k and at_stake[-1] > 0:
                clear = at_stake[-2] - at_stake[-1] > MARGIN or at_stake[-1] == 1  # one id left: an exact tie
                assert clear, "the test needs decisions with a margin"
            x[order[:k]] = tokens[order[:k]]
    return x[len(prompt) :].tolist(), forwards


def same(network, name, steps, block, **flags):
    """Compare our decode of three unequal prompts, batched and one by one, with the loop; returns the tokens."""
    made = plan(8, steps, block)
    written = [llada(network, prompt, 8, steps, block, **flags) for prompt in PROMPTS]
    together = decode(network, ABSORBING, preset(name), made, PROMPTS, seed=0, names=range(3))
    assert together.ids.tolist() == [tokens for tokens, _ in written]
    assert together.cost.forwards.tolist() == [forwards for _, forwards in written]
    for prompt, (tokens, forwards) in zip(PROMPTS, written, strict=True):
        alone = decode(network, ABSORBING, preset(name), made, [prompt], seed=0, names=[0])
        assert alone.ids[0].tolist() == tokens and alone.cost.forwards.item() == forwards
    return together.ids


@BIDIRECTIONAL
@pytest.mark.parametrize(("steps", "block"), [(8, 8), (4, 4), (6, 4), (3, 8)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_guidance_is_lladas(network, steps, block, scale):
    """Logits are un + (w + 1)(cond - un), with the prompt masked for `un`; each step costs two forwards."""
    model = NETWORKS[network]()
    guided = same(model, f"low_confidence+guided:scale={scale}", steps, block, cfg=scale)
    plain = decode(
        model, ABSORBING, preset("low_confidence"), plan(8, steps, block), PROMPTS, seed=0, names=range(3)
    )
    assert torch.equal(guided, plain.ids) == (scale == 0.0)


@BIDIRECTIONAL
@pytest.mark.parametrize(("steps", "block"), [(8, 8), (4, 4)])
def test_the_eos_flags_are_lladas_as_meant(network, steps, block):
    """`no_eos` forbids EOS, `eos_last` commits it last."""
    model = NETWORKS[network]()
    banned = same(model, "low_confidence+no_eos", steps, block, eos_inf=True)
    last = same(model, "low_confidence+eos_last", steps, block, eos_last=True)
    both = same(model, "low_confidence+guided:scale=1+eos_last", steps, block, cfg=1.0, eos_last=True)
    assert not (banned == EOS).any()
    if steps == 8:
        assert len({tuple(ids.flatten().tolist()) for ids in (banned, last, both)}) == 3


def test_eos_comes_last():
    """A position that chose EOS is committed last however confident, at temperature 1 too (unlike LLaDA's flag)."""
    words = WordsWithEos(size=5, length=4)

    def answer(ids, t):
        p = torch.tensor([[0.05, 0.02, 0.02, 0.01, 0.9], *[[0.4, 0.3, 0.1, 0.1, 0.1]] * 3]).double()
        return p.expand(len(ids), -1, -1)

    known = Known(words, ABSORBING, "leave_one_out", answer)

    def orders(name):
        """(order of commits, positions that hold EOS) of 40 decodes."""
        for seed in range(40):
            frames = list(steps(known, ABSORBING, preset(name), plan(4, 4), [[]], seed=seed, names=[0]))
            order = [int(frame.changed[0].nonzero()) for _, frame in frames]
            # tokens are redrawn at every step until their position is committed
            yield order, [place for place in order if frames[order.index(place)][1].ids[0, place] == EOS]

    for name in ("low_confidence", "low_confidence:temperature=1.0"):
        assert any(order[0] == 0 and ended for order, ended in orders(name))
        # position 0 is committed first only with a token other than EOS
        late = list(orders(f"{name}+eos_last"))
        assert not any(order[0] in ended for order, ended in late)
    assert all(order[-1] == 0 and ended == [0] for order, ended in orders("low_confidence+eos_last"))


def test_quota_when_every_position_chooses_eos():
    """With confidence 0 everywhere, committed positions are still undecided ones, never those of the prompt."""
    words = WordsWithEos(size=5, length=6)
    sure = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]).double()
    known = Known(words, ABSORBING, "leave_one_out", lambda ids, t: sure.expand(*ids.shape, 5))
    for name in ("low_confidence+eos_last", "threshold_0.9+eos_last", "factor_1+eos_last"):
        count = None if preset(name).capabilities.plan == "adaptive" else 4
        frames = list(steps(known, ABSORBING, preset(name), plan(4, count), [[1, 2]], seed=0, names=[0]))
        assert [int(frame.changed.sum()) for _, frame in frames] == [1] * 4


# --- truncation ---------------------------------------------------------------------------------------------


def nucleus(p: list[float], mass: float) -> list[float]:
    """ReMDM and BD3-LM: ids of a total probability of at most `mass`, and always the first."""
    found, total = [0.0] * len(p), 0.0
    for rank, v in enumerate(sorted(range(len(p)), key=lambda v: -p[v])):
        total += p[v]
        found[v] = p[v] if rank == 0 or total <= mass else 0.0
    return [v / sum(found) for v in found]


def top_p(p: list[float], mass: float) -> list[float]:
    """transformers, Dream, Duo: ids until the preceding ones exceed `mass`."""
    found, total = [0.0] * len(p), 0.0
    for v in sorted(range(len(p)), key=lambda v: -p[v]):
        found[v] = p[v] if total <= mass else 0.0
        total += p[v]
    return [v / sum(found) for v in found]


def top_k(p: list[float], k: int) -> list[float]:
    least = sorted(p)[-k]
    found = [v if v >= least else 0.0 for v in p]
    return [v / sum(found) for v in found]


def test_the_two_conventions_differ_by_the_crossing_id():
    """Of p = (.5, .3, .2), .9 keeps {1, 2} or {1, 2, 3} (docs/method.md#top-p); the first always stays; ties by id."""
    logits = torch.tensor([[0.3, 0.5, 0.2, 0.0]]).double().log()
    vocabulary = Words(size=3, length=1).vocabulary()

    def kept(processor, logits=logits):
        return processor.transform(logits, vocabulary).isfinite()[0].nonzero()[:, 0].tolist()

    assert kept(Nucleus(p=0.9)) == [0, 1] and kept(TopP(p=0.9)) == [0, 1, 2]
    assert kept(Nucleus(p=0.4)) == [1] and kept(TopP(p=0.4)) == [1] and kept(TopP(p=0.6)) == [0, 1]
    flat = torch.zeros(1, 4).double()
    assert kept(Nucleus(p=0.5), flat) == [0, 1] and kept(TopP(p=0.5), flat) == [0, 1, 2]
    assert kept(LOGITS_PROCESSORS["top_k"].__class__(k=2), torch.tensor([[1.0, 3.0, 2.0, 2.0]])) == [1, 2, 3]


PROCESSED: dict[str, tuple[str, Callable[[list[float]], list[float]]]] = {
    "nucleus": ("nucleus:p=0.7", lambda p: nucleus(p, 0.7)),
    "top_p": ("top_p:p=0.7", lambda p: top_p(p, 0.7)),
    "top_k": ("top_k:k=2", lambda p: top_k(p, 2)),
    "tempered": ("tempered:temperature=0.5", lambda p: tempered(p, 0.5)),
    "hf": (
        "tempered:temperature=0.5+top_k:k=2+top_p:p=0.6",
        lambda p: top_p(top_k(tempered(p, 0.5), 2), 0.6),
    ),
    "other_order": ("top_p:p=0.6+tempered:temperature=0.5", lambda p: tempered(top_p(p, 0.6), 0.5)),
}
"""name: (logits processors, reference function of one position's probabilities)."""


def most_confident(denoiser: Known, process: Callable, temperature: float, draw=None) -> Step:
    """Reference for LLaDA's rule; `draw(scores, k)` yields sets of k positions and their probabilities."""

    def step(z, i, count):
        p, here = [process(row) for row in said(denoiser, z)], masked(z)
        k = quota(len(z), i, count)
        for tokens, chance in token_draws(p, here, temperature):
            scores = {place: p[place][tokens[place]] for place in here}
            for chosen, weight in [(best(scores, k), 1.0)] if draw is None else draw(scores, k):
                yield written(z, {place: tokens[place] for place in chosen}), chance * weight

    return step


@pytest.mark.parametrize("name", PROCESSED)
@pytest.mark.parametrize(("temperature", "count"), [(1.0, 2), (0.6, 2), (1.0, 3)])
def test_laws_with_processors(name, temperature, count):
    processors, process = PROCESSED[name]
    denoiser = stranger(WIDE, ABSORBING)
    rule = preset(f"low_confidence:temperature={temperature}+{processors}")
    found = law(denoiser, ABSORBING, rule, plan(3, count))
    truth = follow(most_confident(denoiser, process, temperature), {(MASK,) * 3: 1.0}, count)
    assert total_variation(found, truth) < 1e-12
    plain = follow(most_confident(denoiser, list, temperature), {(MASK,) * 3: 1.0}, count)
    assert total_variation(found, plain) > 1e-3


@pytest.mark.parametrize("name", PROCESSED)
def test_autoregression_with_processors(name):
    """The product of the network's conditionals after processing: top-k, top-p and temperature from left to right."""
    processors, process = PROCESSED[name]
    words = Words(size=3, length=5)
    network = llama("causal", CAUSAL, words)
    found = law(network, CAUSAL, preset(f"sample+{processors}"), plan(3, 3), prompt=[1])
    truth: Law = {}
    for x in itertools.product(range(3), repeat=3):
        with torch.no_grad():
            ids = torch.tensor([[words.vocabulary().bos, 1, *x]])
            logits = network.logits(network.encode(ids, t=None, attention=Mask()))[0, 1:-1].double()
        rows = [process(row) for row in logits.softmax(-1)[:, :3].tolist()]
        truth[x] = math.prod(row[v] for row, v in zip(rows, x, strict=True))
    assert total_variation(found, truth) < 1e-6


def test_uniform_noise_with_top_p():
    """The network's distribution over x0 is truncated before the posterior is computed (Duo's p_nucleus)."""
    from repro.processes.uniform import Uniform

    uniform = Uniform(alpha_end=1e-9, eps=1e-3)
    denoiser = stranger(WIDE, uniform)

    def cut(ids, t):
        rows = denoiser.answer(ids, t).flatten(0, 1).tolist()
        return torch.tensor([top_p(row, 0.7) for row in rows], dtype=torch.float64).view(*ids.shape, 3)

    known = Known(WIDE.words, uniform, "leave_one_out", cut)
    found = law(denoiser, uniform, preset("ancestral+top_p:p=0.7"), plan(2, 2), prompt=[1])
    assert total_variation(found, law(known, uniform, preset("ancestral"), plan(2, 2), prompt=[1])) < 1e-12


@BIDIRECTIONAL
def test_truncation_in_lladas_loop(network):
    """At temperature 0 a nucleus changes no argmax, but renormalises the confidence and so changes the order."""

    def cut(row):
        p = row.softmax(-1)
        assert (p.sort(descending=True).values.cumsum(-1) - 0.8).abs().min() > MARGIN / 10
        p = nucleus(p.tolist(), 0.8)
        return torch.tensor([math.log(v) if v else -math.inf for v in p]).double()

    same(NETWORKS[network](), "low_confidence+nucleus:p=0.8", 4, 8, extra=cut)
    same(NETWORKS[network](), "low_confidence+guided:scale=0.5+nucleus:p=0.8", 6, 4, cfg=0.5, extra=cut)


# --- order and quotas ---------------------------------------------------------------------------------------


def without_replacement(alg_temp: float) -> Callable:
    """Ordered sets of k positions drawn without replacement from softmax(score / alg_temp), with probabilities."""

    def draw(scores, k):
        for order in itertools.permutations(scores, k):
            left, chance = dict(scores), 1.0
            for place in order:
                weights = {p: math.exp(v / alg_temp) for p, v in left.items()}
                chance *= weights[place] / sum(weights.values())
                del left[place]
            yield order, chance

    return draw


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("alg_temp", [0.05, 1.0])
def test_an_order_temperature_draws_positions(count, alg_temp):
    """Dream's alg_temp, where the score is the written token's probability (docs/method.md#dream-rules)."""
    denoiser = stranger(WIDE, ABSORBING)
    name = f"low_confidence:temperature=0.6+order_temperature:alg_temp={alg_temp}"
    found = law(denoiser, ABSORBING, preset(name), plan(3, count))
    draw = without_replacement(alg_temp)
    truth = follow(most_confident(denoiser, list, 0.6, draw), {(MASK,) * 3: 1.0}, count)
    assert total_variation(found, truth) < 1e-12
    ranked = law(denoiser, ABSORBING, preset("low_confidence:temperature=0.6"), plan(3, count))
    assert count == 1 or total_variation(found, ranked) > 1e-3


@pytest.mark.parametrize("rule", ["margin", "entropy"])
def test_an_order_that_does_not_look_stays_exact(rule):
    """At any order temperature, one position per step gives the chain rule, which is exact."""
    name = f"{rule}:temperature=1.0+order_temperature:alg_temp=0.3"
    assert preset(name).claim() == "law" and not preset(name).capabilities.looks_at_draws
    found = law(exact(WIDE, ABSORBING), ABSORBING, preset(name), plan(3, 3))
    assert total_variation(found, WIDE.as_law()) < 1e-12


def test_quota_laws_of_dream_and_dllm():
    """Quotas are as published, and always add up to the block length (docs/method.md#dream-rules,
    docs/method.md#dllm-quotas, docs/method.md#oracle-23)."""
    rounded, dream = RoundedQuotas(), DreamQuotas(end=1e-3)
    assert rounded.counts(32, 7) == [5, 4, 5, 4, 5, 4, 5]
    assert dream.counts(6, 6) == [0, 1, 1, 1, 1, 2]
    for processor, length, count in itertools.product((rounded, dream), range(1, 40), range(1, 45)):
        counts = processor.counts(length, count)
        assert len(counts) == count and min(counts) >= 0 and sum(counts) == length


RECORDED = {  # (block length, steps): quotas of ZHZisZZ/dllm@ca17675, its zeros dropped
    (23, 10): "2 2 2 2 3 2 2 3 2 3",
    (27, 10): "3 3 3 3 3 2 2 3 2 3",
    (46, 20): "2 2 2 2 2 2 2 2 3 2 3 2 2 3 3 2 3 2 2 3",
    (54, 23): "2 2 2 2 2 2 2 2 3 2 3 2 3 2 3 3 2 2 3 3 2 2 3",
    (64, 24): "3 3 3 3 3 3 3 3 2 3 2 3 2 3 2 3 3 2 3 2 3 2 2 3",
    (32, 12): "3 3 3 3 3 2 3 2 3 2 3 2",
    (8, 12): "1 1 1 1 1 1 1 1",
}
ALL_PLANS = "f891aa858642f69a"
"""SHA-256 of dLLM's quotas for 2 to 64 positions in 2 to 79 steps, as text."""


def test_rounded_quotas_are_those_that_dllm_recorded():
    """The float32 error of dLLM's schedule decides exact halves (docs/method.md#dllm-quotas)."""
    rounded = RoundedQuotas()
    for (length, count), recorded in RECORDED.items():
        assert [n for n in rounded.counts(length, count) if n] == [int(n) for n in recorded.split()]
    found = [rounded.counts(length, count) for length in range(2, 65) for count in range(2, 80)]
    text = ";".join(" ".join(str(n) for n in counts if n) for counts in found)
    assert sha256(text.encode()).hexdigest()[:16] == ALL_PLANS


@pytest.mark.parametrize(
    ("processor", "counts"),
    [
        ("dream_quotas", [0, 1, 1, 1, 1, 2]),
        ("rounded_quotas", [1] * 6),
        ("dream_quotas", [0, 0, 0, 0, 1, 1, 1, 1, 2]),
        ("rounded_quotas", [1, 1, 1, 0, 1, 0, 1, 0, 1]),
    ],
)
@pytest.mark.parametrize("rule", ["low_confidence", "margin", "entropy", "random"])
def test_rules_commit_their_quotas(processor, counts, rule):
    """Each step commits its quota, also where there are more steps than positions, and a step with quota 0 takes no
    forward."""
    known, made = stranger(random_space(3, 6), ABSORBING), plan(6, len(counts))
    frames = list(steps(known, ABSORBING, preset(f"{rule}+{processor}"), made, [[]], seed=0, names=[0]))
    assert [int(frame.changed.sum()) for _, frame in frames] == counts
    assert frames[-1][1].cost.forwards.item() == sum(count > 0 for count in counts)


def test_memory_works_with_processors():
    """A processor that keeps all ids changes neither ReMDM's confidences nor its law."""
    denoiser = stranger(random_space(3, 2), ABSORBING)
    one, two = (
        law(denoiser, ABSORBING, preset(name), plan(2, 4))
        for name in ("remdm_conf", "remdm_conf+top_k:k=3+top_k:k=3")
    )
    assert total_variation(one, two) < 1e-12


# --- names and refusals -------------------------------------------------------------------------------------


def test_processors_act_from_left_to_right():
    rule = preset("low_confidence:temperature=0.5+guided:scale=1.0+nucleus:p=0.8")
    assert isinstance(rule, ProcessedSampler) and isinstance(rule.shape, Guided)
    assert isinstance(rule.rule, ProcessedSampler) and rule.rule.shape == Nucleus(p=0.8)
    assert rule.innermost == preset("low_confidence:temperature=0.5")
    assert parts.read(parts.canonical(rule)) == rule
    assert describe(rule).startswith("shaped(shape.scale=1.0")
    assert preset("low_confidence+eos_last:ids=[1,2]").shape.ids == (1, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("low_confidence+nuclius", "no logits processor 'nuclius'; nearest is 'nucleus'"),
        ("low_confidence+nucleus:q=1", "no setting 'q'"),
        ("nucleus", "no preset 'nucleus'"),
        (
            "low_confidence+nucleus+guided",
            r"guided combines the network's own logits: write \+guided before \+nucleus",
        ),
        ("random+order_temperature", "order_temperature changes nothing in random"),
        ("ancestral+dream_quotas", "dream_quotas changes nothing in ancestral"),
        ("random+dream_quotas+rounded_quotas", "another processor of random sets the quota"),
        ("random+eos_last", r"eos_last changes nothing in random: .*leave eos_last out"),
        ("greedy+top_p", "top_p changes nothing in autoregressive at temperature 0"),
        ("random+tempered", "tempered changes nothing in random at temperature 0"),
        ("sample+guided", "guided is for absorbing models, and the sampler autoregressive is not"),
        ("low_confidence+top_k:k=0", "k=0 is no number of ids to keep; give 1 or more"),
        ("low_confidence+nucleus:p=1.5", "between 0 and 1"),
        ("low_confidence+tempered:temperature=0", "above 0"),
        ("entropy+order_temperature:alg_temp=0", "above 0"),
    ],
)
def test_invalid_or_ineffective_processors_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        preset(name)


def test_a_missing_eos_is_refused():
    known = stranger(WIDE, ABSORBING)
    for name, message in (
        ("low_confidence+no_eos", "no EOS id; give ids by number"),
        ("low_confidence+no_eos:ids=[7]", "no id 7: the ids of this model run from 0 to 4"),
    ):
        with pytest.raises(ValueError, match=message):
            decode(known, ABSORBING, preset(name), plan(3, 3), [[]], seed=0, names=[0])


def test_claims_follow_the_rule():
    """A processor that changes the logits cannot claim the law; one that orders positions can."""
    claims = {
        "low_confidence+nucleus": "mode",
        "ancestral+nucleus": "biased",
        "ancestral+guided": "biased",
        "sample+no_eos": "biased",
        "margin:temperature=1.0+dream_quotas+order_temperature": "law",
    }
    assert {name: preset(name).claim() for name in claims} == claims


# --- shifted networks ---------------------------------------------------------------------------------------


def test_a_shifted_network_decodes_as_dream_does():
    """logits_i <- logits_{i-1}, the first unchanged, in a batch as alone (docs/method.md#dream-rules)."""
    network = llama("bidirectional", ABSORBING, TOY)
    shifted = ShiftedDenoiser(network, Role(TOY, ABSORBING.forbidden(TOY.vocabulary()), "x0_mean"))
    prompts = [*PROMPTS[:2], []]
    made = plan(8, 8)
    together = decode(shifted, ABSORBING, preset("low_confidence"), made, prompts, seed=0, names=range(3))
    for prompt, row in zip(prompts, together.ids, strict=True):
        x = torch.tensor([*prompt, *[TOY.size] * 8])
        for _ in range(8):
            logits = raw(network, x)
            logits = torch.cat([logits[:1], logits[:-1]])
            confidence = logits.softmax(-1).amax(-1).masked_fill(x != TOY.size, -1.0)
            first, second = confidence.topk(2).values
            assert first == second or first - second > MARGIN  # positions 0 and 1 may have equal logits
            x[confidence.argmax()] = logits[confidence.argmax()].argmax()
        assert row.tolist() == x[len(prompt) :].tolist()
    plain = decode(network, ABSORBING, preset("low_confidence"), made, prompts, seed=0, names=range(3))
    assert not torch.equal(plain.ids, together.ids)


def test_left_padding_does_not_shift_in():
    """After left padding a row's first token has its own feature, as without padding."""
    network = llama("bidirectional", ABSORBING, TOY)
    shifted = ShiftedDenoiser(network, Role(TOY, ABSORBING.forbidden(TOY.vocabulary()), "x0_mean"))
    ids = torch.tensor([[TOY.size, TOY.size, 3, 1, 4]])
    column = torch.arange(5)[None]
    with torch.no_grad():
        alone = shifted.encode(ids[:, 2:], t=None, attention=Mask())
        padded = shifted.encode(ids, t=None, attention=Mask(column >= 2), positions=(column - 2).clamp_min(0))
    assert torch.allclose(alone, padded[:, 2:], atol=1e-5)


def test_a_shifted_backbone_is_a_backbone():
    """Pins, sizes and weights are the inner network's; its output at i is the inner one's at i - 1."""
    from repro.recipes.scale import by_name

    inner = by_name("mdlm@nano").backbone
    outer = Shifted(backbone=inner)
    assert parts.read(parts.canonical(outer)) == outer and outer.blank() == outer
    role = by_name("mdlm@nano").role()
    one, two = inner.module(role, 0).eval(), outer.module(role, 0).eval()
    assert outer.size(role.data) == inner.size(role.data)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        before, after = (net.encode(ids, t=None, attention=Mask()) for net in (one, two))
    assert torch.equal(after[:, 1:], before[:, :-1]) and torch.equal(after[:, 0], before[:, 0])
