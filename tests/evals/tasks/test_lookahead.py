"""The task `lookahead_cost`: what it counts, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from repro.evals.task import Ask
from repro.evals.tasks.lookahead import LookaheadCost, compared
from repro.model import load
from repro.samplers.decoded import Cost, Decoded
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

TASK = LookaheadCost(name="lookahead", rows=6, states=(2, 4))
PLAN = Plan(gen_length=32, block_length=32, steps=32)


def asked(name: str, plan: Plan) -> Ask:
    return Ask(preset(name), plan, 0, None)


def test_oracle_texts_are_equal_in_fewer_rounds():
    model = load("oracle:mdlm@nano")
    found = TASK.answer(model, asked("random:temperature=1.0", PLAN))
    for m in (2, 4):
        assert found.metrics[f"equal_{m}"] == (1.0, 0.0, 6)
        assert 1 / m <= found.metrics[f"rounds_{m}"][0] < 1 <= found.metrics[f"forwards_{m}"][0]
        assert found.metrics[f"tokens_{m}"][0] == found.metrics[f"forwards_{m}"][0]
    assert found.nfe == 32 and found.tokens_per_nfe == 1


def test_what_it_counts():
    """Two texts of four tokens; the second differs in one token with lookahead."""

    def decoded(ids, rounds, forwards, tokens):
        cost = Cost.empty(2, torch.device("cpu"))
        cost.rounds, cost.forwards, cost.token_forwards = map(torch.tensor, (rounds, forwards, tokens))
        return Decoded(torch.tensor(ids), cost, torch.tensor([4, 4]))

    one = decoded([[1, 2, 3, 4], [5, 6, 7, 8]], [4, 4], [4, 4], [16, 16])
    ahead = decoded([[1, 2, 3, 4], [5, 6, 7, 9]], [2, 3], [5, 6], [20, 24])
    found = {name: value for name, (value, _, _) in compared(one, {4: ahead}).items()}
    assert found == {"rounds_4": 0.625, "forwards_4": 1.375, "tokens_4": 1.375, "equal_4": 0.5}


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("random", 16, "one token per step; leave out steps=16"),
        ("ancestral", 32, "not for ancestral; leave lookahead out"),
    ],
)
def test_what_it_refuses(name, steps, message):
    plan = Plan(gen_length=32, block_length=32, steps=steps)
    with pytest.raises(ValueError, match=message):
        TASK.answer(load("oracle:mdlm@nano"), asked(name, plan))
