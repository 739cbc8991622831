"""A network in bfloat16 is decoded by its own probabilities: ids and forward passes equal a float64 softmax's.

The reference reads the very same bfloat16 logits, widened to float64 before anything is made of them.
"""

from __future__ import annotations

import pytest
import torch
from helpers.spaces import Words, llama

from repro.processes.absorbing import Absorbing
from repro.samplers.decode import decode
from repro.samplers.plan import plan_for
from repro.samplers.presets import preset
from repro.samplers.sampler import State

WORDS = Words(size=97, length=48)
PROMPTS = [[(7 * row + 3 * place) % 97 for place in range(1 + row % 8)] for row in range(64)]
LENGTH = 16
RULES = (
    *("low_confidence", "margin", "entropy", "threshold_0.9", "threshold_0.9:threshold=0.5", "factor_1"),
    *("entropy_bound_0.1", "low_confidence:temperature=1.0", "threshold_0.9:temperature=0.7"),
    *(
        "entropy_bound_0.1:proxy=confidence",
        "low_confidence+eos_last:ids=[3,5]",
        "random:temperature=1.0+tempered:temperature=0.7",
    ),
    *("low_confidence+guided:scale=0.5", "threshold_0.9+top_p:p=0.9", "margin+nucleus:p=0.9"),
)


@pytest.fixture(scope="module")
def network():
    """Random weights in bfloat16 whose logits spread over some 40 nats, as those of trained networks do."""
    torch.manual_seed(0)
    made = llama("bidirectional", Absorbing(), WORDS)
    with torch.no_grad():
        made.network.lm_head.weight.mul_(6.0)
    return made.to(torch.bfloat16)


class Widened(torch.nn.Module):
    """The same network with logits in float64: the same numbers, so what differs is what is computed of them."""

    def __init__(self, network) -> None:
        super().__init__()
        self.inner = network

    def __getattr__(self, name):
        return super().__getattr__(name) if name in ("inner", "_modules") else getattr(self.inner, name)

    def logits(self, features):
        return self.inner.logits(features).double()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_decodes_as_a_float64_softmax(name, network):
    sampler = preset(name)
    plan = plan_for(sampler, LENGTH, 8, None, None)
    how = {"seed": 0, "names": range(len(PROMPTS))}
    ours = decode(network, Absorbing(), sampler, plan, PROMPTS, **how)
    reference = decode(Widened(network), Absorbing(), sampler, plan, PROMPTS, **how)
    assert network.logits(torch.zeros(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    differ = (ours.ids != reference.ids).any(1).sum()
    assert int(differ) == 0 and torch.equal(ours.cost.forwards, reference.cost.forwards)


def test_a_softmax_in_bfloat16_would_decode_otherwise(network, monkeypatch):
    """The control: confidence in the logits' own precision changes most rows."""

    def narrow(self, logits, tokens):
        logits = logits.bfloat16()
        return (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)).double()

    sampler = preset("low_confidence")
    plan = plan_for(sampler, LENGTH, 8, None, None)
    right = decode(network, Absorbing(), sampler, plan, PROMPTS, seed=0, names=range(64)).ids
    monkeypatch.setattr(State, "confidence", narrow)
    wrong = decode(network, Absorbing(), sampler, plan, PROMPTS, seed=0, names=range(64)).ids
    assert (right != wrong).any(1).float().mean() > 0.2
