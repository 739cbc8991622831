"""Samplers on networks: batches do not matter; published loops and caches."""

from __future__ import annotations

import pytest
import torch
from helpers.decodings import ABSORBING, BIDIRECTIONAL, CAUSAL, NETWORKS, TOY, plan
from helpers.spaces import (
    Known,
    Words,
    llama,
)

from repro.models.attention import Mask
from repro.models.denoiser import Denoiser
from repro.models.prediction import CausalCache, CausalPrediction
from repro.processes.process import Process
from repro.processes.uniform import Uniform
from repro.samplers import processed
from repro.samplers.ancestral import Ancestral
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.decode import decode, steps
from repro.samplers.ordered import LowConfidence, Margin, Random
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler
from repro.samplers.tail import DrawnRemoval, LinearTimes, Tail
from repro.samplers.threshold import Threshold

UNIFORM = Uniform(
    alpha_end=1e-9, eps=1e-3
)  # with alpha(1) > 0 the uniform start itself is off by O(alpha(1))


# --- networks: batches, published loops, caches -------------------------------------------------------------


PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5], [7, 7], [8, 10, 7, 9, 3, 2, 3]]


def solo_and_together(
    network: Denoiser, process: Process, sampler: Sampler, made: Plan
) -> tuple[list[list[int]], list[list[int]], bool]:
    together = decode(network, process, sampler, made, PROMPTS, seed=1, names=range(len(PROMPTS)))
    alone = [
        decode(network, process, sampler, made, [prompt], seed=1, names=[name])
        for name, prompt in enumerate(PROMPTS)
    ]
    same_cost = all(
        getattr(together.cost, count).tolist() == [getattr(one.cost, count).item() for one in alone]
        for count in ("forwards", "token_forwards")
    )
    return [one.ids[0].tolist() for one in alone], together.ids.tolist(), same_cost


@BIDIRECTIONAL
@pytest.mark.parametrize(
    "sampler",
    [
        LowConfidence(temperature=0.0),
        LowConfidence(temperature=1.0),
        Margin(temperature=1.0),
        Random(temperature=1.0),
        Threshold(threshold=0.6, temperature=0.0),
        Threshold(threshold=0.6, temperature=1.0),
        Ancestral(),
    ],
    ids=str,
)
def test_the_batch_does_not_matter(network, sampler):
    """Unequal prompts decoded together and one by one have equal tokens, forwards and token-forwards."""
    made = plan(8, None if sampler.capabilities.plan == "adaptive" else 6, 4)
    alone, together, same_cost = solo_and_together(NETWORKS[network](), ABSORBING, sampler, made)
    assert alone == together and same_cost
    assert len({tuple(row) for row in alone}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_batch_does_not_matter_to_autoregression(temperature):
    network = llama("causal", CAUSAL, TOY)
    alone, together, same_cost = solo_and_together(
        network, CAUSAL, Autoregressive(temperature=temperature), plan(8, 8)
    )
    assert alone == together and same_cost


def test_the_batch_does_not_matter_under_uniform_noise():
    network = llama("bidirectional", UNIFORM, TOY)
    alone, together, same_cost = solo_and_together(network, UNIFORM, Ancestral(), plan(8, 5))
    assert alone == together and same_cost


@pytest.mark.parametrize(
    "sampler",
    [Ancestral(), Tail(rule=Ancestral(), times=LinearTimes(end=1e-3), removal=DrawnRemoval())],
    ids=["ancestral", "tail"],
)
def test_parts_of_a_draw_do_not_matter(sampler, monkeypatch):
    """Tokens drawn from the posterior one position at a time are those drawn from all positions at once."""
    network, made = llama("bidirectional", UNIFORM, TOY), plan(8, 5)
    whole = solo_and_together(network, UNIFORM, sampler, made)
    monkeypatch.setattr(processed, "BLOCK", 1)
    assert solo_and_together(network, UNIFORM, sampler, made) == whole


def clean_logits(network: Denoiser, ids: torch.Tensor) -> torch.Tensor:
    """Logits [L, V] of one row, with [MASK] and [BOS] forbidden (an argmax of [MASK] would loop forever)."""
    logits = network.head().logits(network.encode(ids[None], t=None, attention=Mask()))[0]
    logits[:, TOY.size :] = -torch.inf
    return logits


@BIDIRECTIONAL
@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_low_confidence_is_the_reference_scripts_loop(network, prompt):
    """One token per step at the most confident mask, ties to the left (docs/method.md#masked-script, inference)."""
    model, length = NETWORKS[network](), 8
    ids = torch.tensor([*prompt, *[TOY.size] * length])
    with torch.no_grad():
        while (ids == TOY.size).any():
            places = (ids == TOY.size).nonzero()[:, 0]
            probabilities = clean_logits(model, ids).softmax(-1)[places]
            index = probabilities.max(-1).values.argmax()
            ids[places[index]] = probabilities[index].argmax()
    ours = decode(
        model, ABSORBING, LowConfidence(temperature=0.0), plan(length, length), [prompt], seed=0, names=[0]
    )
    assert ours.ids[0].tolist() == ids[len(prompt) :].tolist()
    assert ours.cost.forwards.item() == length


def test_ties_go_to_the_left():
    words = Words(size=3, length=4)
    flat = Known(words, ABSORBING, "leave_one_out", lambda ids, t: torch.ones(*ids.shape, 3).double() / 3)
    frames = steps(flat, ABSORBING, LowConfidence(temperature=0.0), plan(4, 4), [[]], seed=0, names=[0])
    assert [frame.changed[0].nonzero().item() for _, frame in frames] == [0, 1, 2, 3]


@BIDIRECTIONAL
@pytest.mark.parametrize("count", [8, 4, 6, 2])
def test_blocks_are_lladas_loop(network, count):
    """8 tokens in two blocks at T = 0 against the published loop, a top-k per step (docs/method.md#llada-sampling)."""
    model, prompt, length, block = NETWORKS[network](), PROMPTS[0], 8, 4
    x = torch.tensor([*prompt, *[TOY.size] * length])
    blocks = length // block
    per_block = count // blocks
    with torch.no_grad():
        for number in range(blocks):
            end = len(prompt) + (number + 1) * block
            left = int((x[len(prompt) + number * block : end] == TOY.size).sum())
            transfers = [left // per_block + (i < left % per_block) for i in range(per_block)]
            for k in transfers:
                open = x == TOY.size
                logits = clean_logits(model, x)
                tokens = logits.argmax(-1)
                confidence = logits.softmax(-1).gather(1, tokens[:, None])[:, 0]
                confidence[end:] = -torch.inf
                chosen = confidence.masked_fill(~open, -torch.inf).topk(k).indices
                x[chosen] = tokens[chosen]
    ours = decode(
        model,
        ABSORBING,
        LowConfidence(temperature=0.0),
        plan(length, count, block),
        [prompt],
        seed=0,
        names=[0],
    )
    assert ours.ids[0].tolist() == x[len(prompt) :].tolist()


def test_a_causal_cache_changes_nothing():
    """With a KV cache, logits (to 1e-4) and tokens are those of forwarding the whole row
    (docs/method.md#ar-baseline)."""
    network, length = llama("causal", CAUSAL, TOY), 8
    bos = TOY.vocabulary().bos
    ours = decode(
        network,
        CAUSAL,
        Autoregressive(temperature=0.0),
        plan(length, length),
        PROMPTS,
        seed=0,
        names=range(5),
    )
    for prompt, row in zip(PROMPTS, ours.ids.tolist(), strict=True):
        ids = [bos, *prompt]
        cache = CausalCache(1, len(ids) + length, torch.device("cpu"))
        with torch.no_grad():
            for _ in range(length):
                whole = clean_logits(network, torch.tensor(ids))[-1]
                at, width = len(ids), len(prompt) + 1 + length
                shown = torch.tensor([ids + [0] * (width - at)])
                column = torch.arange(width)[None]
                cached = CausalPrediction(network, shown, torch.zeros(1, width), Mask(), column, cache)
                found = cached.logits(column == at)[0]
                assert (found - whole)[: TOY.size].abs().max() < 1e-4
                ids.append(int(whole.argmax()))
        assert row == ids[len(prompt) + 1 :]
    assert ours.cost.token_forwards.tolist() == [len(prompt) + length for prompt in PROMPTS]


@BIDIRECTIONAL
def test_prompts_stay_and_no_mask_remains(network):
    for sampler in (LowConfidence(temperature=1.0), Random(temperature=1.0), Ancestral()):
        frames = list(
            steps(NETWORKS[network](), ABSORBING, sampler, plan(8, 4), PROMPTS, seed=2, names=range(5))
        )
        decoder, last = frames[-1]
        for row, prompt in zip(last.ids.tolist(), PROMPTS, strict=True):
            assert row[decoder.start - len(prompt) : decoder.start] == prompt
            assert all(token < TOY.size for token in row[decoder.start :])
