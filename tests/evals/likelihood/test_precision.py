"""Scores of networks in float32 and bfloat16 are those of float64 arithmetic on the same logits.

The reference reads the very same logits, widened to float64 before anything is made of them.
"""

from __future__ import annotations

import pytest
import torch
from helpers.spaces import Words, llama

from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.likelihood.likelihood import LikelihoodRequest
from repro.evals.likelihood.orders import greedy
from repro.processes.absorbing import Absorbing
from repro.processes.uniform import Uniform
from repro.samplers.decode import decode
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

WORDS, ABSORBING, LENGTH = Words(size=97, length=48), Absorbing(), 8
PROMPTS = [
    [(7 * row + 3 * place + row * row * place) % 97 for place in range(1 + row % 8)] for row in range(48)
]


class Widened(torch.nn.Module):
    """The same network with logits in float64: the same numbers, so what differs is what is computed of them."""

    def __init__(self, network) -> None:
        super().__init__()
        self.inner = network

    def __getattr__(self, name):
        return super().__getattr__(name) if name in ("inner", "_modules") else getattr(self.inner, name)

    def logits(self, features):
        return self.inner.logits(features).double()


def network(dtype, sharpness: float):
    """Random weights whose logits spread over some 7 nats times `sharpness`."""
    made = llama("bidirectional", ABSORBING, WORDS)
    with torch.no_grad():
        made.network.lm_head.weight.mul_(sharpness)
    return made.to(dtype)


def scores(name: str, denoiser, requests) -> list[float]:
    rule = estimator(name)
    return [f.value for f in rule.score(rule.batched(denoiser, ABSORBING, 64), requests, seed=0)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        *("subsets", "llada_mc", "duel", "duel:order=margin", "duel:order=entropy", "confidence"),
        *("subsets+guided:scale=0.5", "levels+guided:scale=2.0", "duel+guided", "confidence+guided"),
    ],
)
def test_every_score_is_that_of_float64(name, dtype):
    """Guidance in bfloat16 would be off by tenths of a nat; orders by float32 probabilities by hundreds."""
    requests = [LikelihoodRequest.of(p, [(5 * p[0] + 11 * i) % 97 for i in range(5)]) for p in PROMPTS]
    denoiser = network(dtype, 6.0)
    assert scores(name, denoiser, requests) == pytest.approx(
        scores(name, Widened(denoiser), requests), abs=1e-3
    )


@pytest.mark.parametrize("sharpness", [6.0, 12.0, 24.0])
def test_a_sure_network_writes_what_the_greedy_check_calls_greedy(sharpness):
    """Probabilities between 1 - 6e-8 and 1 are one number in float32, though not to the samplers."""
    denoiser, plan = (
        network(torch.float32, sharpness),
        Plan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH),
    )
    for order in ("low_confidence", "margin", "entropy"):
        written = decode(
            denoiser, ABSORBING, preset(order), plan, PROMPTS, seed=0, names=range(len(PROMPTS))
        ).ids
        requests = [LikelihoodRequest.of(p, x) for p, x in zip(PROMPTS, written.tolist(), strict=True)]
        rule = estimator(f"duel:order={order}")
        net = rule.batched(denoiser, ABSORBING, 64)
        assert all(f.greedy for f in rule.score(net, requests, seed=0)), order
        if order == "low_confidence":
            assert all(f.greedy for f in greedy(net, requests))
            ours, wide = (scores("confidence", each, requests) for each in (denoiser, Widened(denoiser)))
            assert ours == pytest.approx(wide, abs=1e-3)


@pytest.mark.parametrize("length", [4, 9, 20])
@pytest.mark.parametrize("name", ["levels", "llada_mc", "elbo_t", "duel", "levels+guided"])
def test_a_forbidden_token_makes_the_likelihood_minus_infinity(name, length):
    """`levels` subtracts a prediction of each loss, which must not turn infinity into NaN."""
    continuation = [WORDS.vocabulary().bos if place == length // 2 else place for place in range(length)]
    rule = estimator(name)
    net = rule.batched(network(torch.float32, 1.0), ABSORBING, 64)
    (found,) = rule.score(net, [LikelihoodRequest.of(PROMPTS[7], continuation)], seed=0)
    assert (found.value, found.se, found.degrees) == (-torch.inf, 0.0, None)
    assert found.interval(0.95) == (-torch.inf, -torch.inf)


def test_a_forbidden_token_is_impossible_under_uniform_noise_too():
    """It ended with an IndexError of torch; as a part of the prompt it is read."""
    uniform = Uniform(alpha_end=1e-3, eps=1e-3)
    rule, bos = estimator("elbo_t:draws=64,batch=16"), WORDS.vocabulary().bos
    net = rule.batched(llama("bidirectional", uniform, WORDS), uniform, 64)
    requests = [LikelihoodRequest.of((1, 2), (3, bos, 4)), LikelihoodRequest.of((bos, 2), (3, 4))]
    impossible, possible = rule.score(net, requests, seed=0)
    assert (impossible.value, impossible.se) == (-torch.inf, 0.0) and -torch.inf < possible.value < 0
