"""The tasks `lookahead_cost`, `prompted_lookahead` and `parallel_agreement`: what they count, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from helpers.toy import toy

from repro.evals.task import Ask, samples_digest
from repro.evals.tasks.lookahead import LookaheadCost, ParallelAgreement, PromptedLookahead, compared, quoted
from repro.model import load
from repro.samplers.decode import decode
from repro.samplers.decoded import Cost, Decoded
from repro.samplers.plan import Plan
from repro.samplers.presets import preset
from repro.training.loop import train

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
        ("random", 16, "16 steps for 32 tokens; give --tokens-per-step 1"),
        ("ancestral", 32, "not for ancestral; leave lookahead out"),
    ],
)
def test_what_it_refuses(name, steps, message):
    plan = Plan(gen_length=32, block_length=32, steps=steps)
    with pytest.raises(ValueError, match=message):
        TASK.answer(load("oracle:mdlm@nano"), asked(name, plan))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookahead")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REPRO_RUNS", str(folder / "runs"))
        yield load(train(toy("mdlm"), seed=0, out=folder / "run", stop=None, resume=False))


def decoded_ids(model, name, prompts, plan):
    process, names = model.recipe.process, range(len(prompts))
    return decode(model.denoiser, process, preset(name), plan, prompts.tolist(), seed=0, names=names).ids


def test_texts_continue_held_out_rows(model):
    task = PromptedLookahead(name="lookahead", rows=5, states=(3,), prompt=6, length=8)
    plan = Plan(gen_length=task.gen_length(model), block_length=8, steps=8)
    found = task.answer(model, asked("random:temperature=1.0", plan))
    texts = decoded_ids(model, "random:temperature=1.0", quoted(model, 5, 6), plan)
    assert found.samples == samples_digest(texts) and found.nfe == 8
    assert found.metrics["equal_3"] == (1.0, 0.0, 5) and found.metrics["rounds_3"][0] < 1


def test_agreement_with_one_token_per_step(model):
    """A threshold of 1 commits one token per step and changes nothing; one of 0 commits all at once."""
    single, at_once = "low_confidence:temperature=1.0", "threshold_0.9:threshold=0.0,temperature=1.0"
    task = ParallelAgreement(name="agreement", rows=5, prompt=6, length=8, reference=single)
    adaptive, plan = (Plan(gen_length=8, block_length=8, steps=steps) for steps in (None, 8))
    careful = task.answer(model, asked("threshold_0.9:threshold=1.0,temperature=1.0", adaptive))
    assert {name: careful.metrics[name][0] for name in ("equal", "same")} == {"equal": 1.0, "same": 1.0}
    assert careful.nfe == 8 and careful.metrics["right"] == careful.metrics["reference_right"]
    hasty = task.answer(model, asked(at_once, adaptive))
    assert hasty.nfe == 1 and hasty.tokens_per_nfe == 8
    rows = quoted(model, 5, 14)
    one, found = (
        decoded_ids(model, name, rows[:, :6], how) for name, how in ((single, plan), (at_once, adaptive))
    )
    true = torch.from_numpy(rows[:, 6:14])
    shares = {"same": found == one, "right": found == true, "reference_right": one == true}
    for name, equal in shares.items():
        assert hasty.metrics[name][0] == pytest.approx(equal.double().mean().item()), name
    assert 0 < hasty.metrics["same"][0] < 1


def test_held_out_rows_that_are_not_there_are_refused(model):
    for count, length in ((10**9, 6), (5, 10**9)):
        with pytest.raises(ValueError, match=f"needs {count} held-out rows of {length} ids; the data has"):
            quoted(model, count, length)
