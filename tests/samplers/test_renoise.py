"""Renoising: tokens equal those of transformers' `generate` of a small random DiffusionGemma, given the same uniform
draws; its law equals that of a reference implementation; self-conditioning.

Symbols: B rows, W canvas, V ids; z noisy ids.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch
from helpers.released import GEMMA as PINS
from helpers.spaces import SPACE, stranger, total_variation

from repro.core import parts, rng
from repro.core.parts import part
from repro.data.corpus import Data, Vocabulary
from repro.models.attention import Mask
from repro.models.diffusion_gemma_network import DiffusionGemmaDenoiser
from repro.models.prediction import Prediction
from repro.processes.prediction import Role
from repro.processes.uniform import Uniform
from repro.samplers.decode import decode
from repro.samplers.law import law
from repro.samplers.plan import DualCache, Plan, PrefixCache, ServedPlan
from repro.samplers.renoise import Renoise, within_bound

UNIFORM = Uniform(alpha_end=1e-3, eps=1e-3)
PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8, 9, 10, 11, 12, 13, 14, 15]]
"""Longer and shorter than the window, to test both left padding and the limited context of local layers."""
EQUAL = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]


@part
class Plain(Data):
    """A data source without mask or special ids."""

    size: int

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(size=self.size, total=self.size, mask=None, bos=None, eos=None, pad=None)

    def row_length(self) -> int:
        return 32


def gemma(sharp: float = 1.0, listens: float = 1.0, seed: int = 0) -> DiffusionGemmaDenoiser:
    """A random network in float64; `sharp` scales its logits, `listens` the effect of self-conditioning.

    Self-conditioning of a random network multiplies an error by ten per step. In float64 the effects of padding and
    batch vanish when logits are rounded to float32, so that both implementations stay bitwise equal.
    """
    network = PINS.module(Role(Plain(size=40), (), "x0_mean"), seed).eval().double()
    assert isinstance(network, DiffusionGemmaDenoiser)
    network.network.set_experts_implementation("eager")  # grouped matrix products do not support float64
    with torch.no_grad():
        network.network.model.decoder.norm.weight.mul_(sharp)
        network.network.model.decoder.self_conditioning.down_proj.weight.mul_(listens)
    return network


class Uniforms:
    """Replaces torch.multinomial and torch.randint in transformers' `generate` by draws of our stream.

    A canvas begins with one `randint`; each of its `steps` then calls `multinomial` and `randint`. `names` [B] are the
    rows' numbers in the stream, `width` the length of their prompts.
    """

    def __init__(self, seed: int, names: torch.Tensor, width: int, steps: int) -> None:
        self.seed, self.names, self.width, self.steps = seed, names, width, steps
        self.canvas, self.step, self.calls = -1, 0, []

    def uniform(self, purpose: int, number: int) -> torch.Tensor:
        """One draw for each position of the canvas, [B W], keyed as a sampler's draws are."""
        keys = rng.keys(self.seed, purpose, number, self.names)
        column = self.width + self.canvas * PINS.canvas + torch.arange(PINS.canvas)
        return rng.uniform(rng.fold(rng.fold(keys, 0)[:, None], column)).flatten()

    def multinomial(self, probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1 and self.calls[-1] == "randint"
        self.calls.append("multinomial")
        u = self.uniform(rng.TOKEN, self.canvas * self.steps + self.step)
        return rng.choose(probs.double(), u)[:, None]

    def randint(self, low: int, high: int, size: tuple, device: torch.device) -> torch.Tensor:
        if not self.calls or self.calls[-1] == "randint":
            self.canvas, self.step, number = self.canvas + 1, 0, -1
        else:
            number = self.canvas * self.steps + self.step
            self.step += 1
        self.calls.append("randint")
        u = self.uniform(rng.PRIOR, number)
        return rng.choose(torch.full((len(u), high - low), 1 / (high - low)).double(), u).view(size)


def theirs(
    network: DiffusionGemmaDenoiser,
    rule: Renoise,
    prompts: list[list[int]],
    steps: int,
    canvases: int,
    monkeypatch: pytest.MonkeyPatch,
    names: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' tokens [B, canvases W] and forwards [B] for prompts of equal length, with our uniform draws."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    rows, width = torch.tensor(prompts), len(prompts[0])
    source = Uniforms(5, torch.tensor(names), width, steps)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "multinomial", source.multinomial)
        patch.setattr(torch, "randint", source.randint)
        out = network.network.generate(
            rows,
            max_new_tokens=canvases * PINS.canvas,
            max_denoising_steps=steps,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=rule.bound),
            t_min=rule.cold,
            t_max=rule.hot,
            stability_threshold=rule.stable,
            confidence_threshold=rule.confident,
        )
    assert source.canvas == canvases - 1
    tokens = out.sequences[:, width:]
    return tokens, (tokens.shape[1] / out.tokens_per_forward).round().long()


def ours(
    network: DiffusionGemmaDenoiser, rule: Renoise, prompts: list[list[int]], steps: int, canvases: int
) -> tuple[torch.Tensor, torch.Tensor]:
    plan = Plan(gen_length=canvases * PINS.canvas, block_length=PINS.canvas, steps=canvases * steps)
    out = decode(network, UNIFORM, rule, plan, prompts, seed=5, names=range(len(prompts)))
    return out.ids, out.cost.forwards


PUBLISHED = Renoise(bound=0.1, hot=0.8, cold=0.4, stable=1, confident=0.005)
EAGER = Renoise(bound=1.5, hot=0.375, cold=0.125, stable=1, confident=0.5)
"""Accepts more and stops sooner; at 8 steps its temperatures are exact in float32."""


@pytest.mark.parametrize("stable", [0, 1, 2])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], EQUAL], ids=["one", "three"])
def test_tokens_are_those_of_transformers(stable, prompts, monkeypatch):
    """Two canvases with self-conditioning: equal tokens and forwards."""
    network, rule = gemma(), parts.derive(EAGER, {"stable": stable})
    wanted, cost = theirs(network, rule, prompts, 8, 2, monkeypatch, [0, 1, 2][: len(prompts)])
    found, forwards = ours(network, rule, prompts, 8, 2)
    assert torch.equal(found, wanted)
    assert torch.equal(forwards, cost)


@pytest.mark.parametrize(
    ("rule", "steps", "canvases", "sharp", "listens"),
    [(EAGER, 8, 2, 2.0, 0.03), (PUBLISHED, 48, 1, 4.0, 0.003)],
)
def test_rows_stop_where_those_of_transformers_stop(rule, steps, canvases, sharp, listens, monkeypatch):
    """Also with the published settings, whose temperatures are rounded in float32, hence weaker self-conditioning."""
    network = gemma(sharp, listens)
    wanted, cost = theirs(network, rule, EQUAL, steps, canvases, monkeypatch, [0, 1, 2])
    found, forwards = ours(network, rule, EQUAL, steps, canvases)
    assert torch.equal(found, wanted)
    assert torch.equal(forwards, cost)
    assert len(set(cost.tolist())) == 3, "the test needs rows that stop at different steps"


@pytest.mark.parametrize("sharp", [1.0, 2.0])
def test_unequal_prompts_are_those_of_transformers_one_by_one(sharp, monkeypatch):
    network = gemma(sharp)
    found, forwards = ours(network, EAGER, PROMPTS, 8, 2)
    for row, prompt in enumerate(PROMPTS):
        wanted, cost = theirs(network, EAGER, [prompt], 8, 2, monkeypatch, [row])
        assert torch.equal(found[row : row + 1], wanted)
        assert torch.equal(forwards[row : row + 1], cost)


def test_self_conditioning_has_an_effect(monkeypatch):
    """Negative control: without self-conditioning the tokens differ."""
    network = gemma()
    conditioned, _ = ours(network, EAGER, PROMPTS, 8, 1)
    monkeypatch.setattr(Prediction, "condition", lambda self, signal: None)
    plain, _ = ours(network, EAGER, PROMPTS, 8, 1)
    assert (conditioned != plain).float().mean() > 0.3


# --- reference implementation -------------------------------------------------------------------------------
RULES = [
    Renoise(bound=0.1, hot=0.8, cold=0.4, stable=1, confident=0.7),
    Renoise(bound=0.7, hot=1.5, cold=0.2, stable=0, confident=0.5),
    Renoise(bound=1e-9, hot=1.0, cold=0.5, stable=2, confident=5.0),
]


@pytest.mark.parametrize("rule", RULES, ids=["published", "unstable", "patient"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_law(rule, count):
    """The enumerated law equals the reference, for V = 3, two positions, and conditionals of no joint law."""
    denoiser = stranger(SPACE, UNIFORM)
    history = ((-1, -1),) * rule.stable
    states = {(z, history, False): 1 / 9 for z in itertools.product(range(3), repeat=2)}
    for i in range(count):
        after: dict = defaultdict(float)
        for state, weight in states.items():
            for new, chance in reference_step(denoiser, rule, state, i, count):
                after[new] += weight * chance
        states = after
    truth: dict = defaultdict(float)
    for (z, _, _), weight in states.items():
        truth[z] += weight
    plan = Plan(gen_length=2, block_length=2, steps=count)
    assert total_variation(law(denoiser, UNIFORM, rule, plan), truth) < 1e-10


def reference_step(denoiser, rule: Renoise, state: tuple, i: int, count: int):
    """Every state (ids, likely tokens of the last steps, stopped) after a step, with its probability."""
    z, history, stopped = state
    if stopped:
        yield state, 1.0
        return
    said = denoiser.answer(torch.tensor([z]), torch.tensor([0.5]))[0].tolist()
    temperature = rule.cold + (rule.hot - rule.cold) * (count - i) / count
    p = [[v ** (1 / temperature) for v in row] for row in said]
    p = [[v / sum(row) for v in row] for row in p]
    entropy = [-sum(v * math.log(v) for v in row) for row in p]
    likely = tuple(row.index(max(row)) for row in p)
    done = all(old == likely for old in history) and sum(entropy) / 2 < rule.confident
    history = (*history, likely)[1:]
    if done or i + 1 == count:
        yield (likely, history, done), 1.0
        return
    first = entropy.index(min(entropy))
    both = min(entropy) <= rule.bound
    laws = [p[place] if both or place == first else [1 / 3] * 3 for place in range(2)]
    for new in itertools.product(range(3), repeat=2):
        yield (new, history, False), laws[0][new[0]] * laws[1][new[1]]


def test_the_bound():
    """The lowest entropies whose sum without the largest is within the bound; at least one; ties count."""
    entropy = torch.tensor([[0.5, 0.1, 0.2, 0.9], [3.0, 2.0, 4.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
    assert within_bound(entropy.double(), 0.35).tolist() == [
        [True, True, True, False],
        [False, True, False, False],
        [True, True, True, True],
    ]


@pytest.mark.parametrize("cache", [PrefixCache, DualCache])
def test_a_cache_of_the_context_changes_no_token(cache):
    """Unequal prompts, two canvases, a context longer than the window: the same ids for fewer tokens."""
    network, rule = gemma(), parts.derive(EAGER, {"stable": 2})
    plan = {"gen_length": 16, "block_length": 8, "steps": 8}
    whole, served = (
        decode(network, UNIFORM, rule, some, PROMPTS, seed=5, names=range(3))
        for some in (Plan(**plan), ServedPlan(**plan, cache=cache(refresh=None), stop=()))
    )
    assert torch.equal(whole.ids, served.ids) and len(whole.ids.unique()) > 5
    assert torch.equal(whole.cost.forwards, served.cost.forwards)
    assert served.cost.token_forwards.sum() < whole.cost.token_forwards.sum()


# --- errors and limits --------------------------------------------------------------------------------------
def test_blocks_are_canvases():
    network = gemma()
    plan = Plan(gen_length=16, block_length=16, steps=4)
    with pytest.raises(ValueError, match="block_length=8"):
        decode(network, UNIFORM, PUBLISHED, plan, [[1]], seed=0, names=[0])
    with pytest.raises(ValueError, match="at least one token"):
        decode(
            network, UNIFORM, PUBLISHED, Plan(gen_length=8, block_length=8, steps=1), [[]], seed=0, names=[0]
        )


def test_training_is_refused():
    """The fused loss reads the head's matrix, and so would omit the softcap."""
    ids = torch.zeros(1, 9, dtype=torch.int64)
    t = (torch.arange(9) > 0).double()[None]
    with pytest.raises(ValueError, match="cannot be trained"):
        gemma().encode(ids, t=t, attention=Mask())


def test_logits_are_capped():
    network = gemma(sharp=50.0)
    with torch.no_grad():
        ids, t = torch.arange(9)[None], (torch.arange(9) > 0).double()[None]
        features = network.encode(ids, t=t, attention=Mask())
        logits = network.logits(features)
    assert 29 < logits.abs().max() <= 30 and network.head().logits(features).abs().max() > 60
    assert not features[:, 0].any() and features[:, 1:].any(-1).all()


def test_parameters_are_counted():
    network = gemma()
    assert sum(p.numel() for p in network.parameters()) == PINS.size(Plain(size=40)).parameters
