"""Drawing samples of low entropy again: which are discarded, which draw is scored, its cost and its protocol."""

from __future__ import annotations

import math

import pytest

from repro.core import parts
from repro.evals.published.cells import find, read
from repro.evals.published.price import answering
from repro.evals.task import Ask
from repro.evals.text_quality.gen_ppl import EveryToken
from repro.evals.text_quality.redrawn import RedrawnGeneration
from repro.evals.text_quality.samples import entropy
from repro.samplers.decode import decode
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

LENGTH, COUNT = 32, 6
ASK = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=16, steps=4), 0, None)


@pytest.fixture
def task(folder, monkeypatch):
    """Windows of 8 ids, whose entropy is below 1.6 nats about half of the time in this language."""
    monkeypatch.setenv("REPRO_RUNS", str(folder.parent))
    return RedrawnGeneration(
        name="q",
        samples=COUNT,
        judge="ar-judge",
        rule=EveryToken(length=LENGTH),
        retokenise="ids",
        distinct=(1, 2),
        length=LENGTH,
        window=8,
        least=1.6,
        tries=4,
    )


def test_which_samples_are_discarded(task):
    """With blocks of 4 and a window of 6 ids, entropy is checked at 8, 12 and 16 ids only."""
    task = parts.derive(task, {"length": 16, "window": 6, "least": math.log(3) + 1e-9})
    rich = list(range(16))
    assert not task.has_low_entropy(rich, 4)
    three = [20, 21, 22] * 2  # exactly ln 3
    assert task.has_low_entropy(rich[:2] + three + rich[8:], 4)  # ends at 8
    assert not task.has_low_entropy(
        rich[:3] + three + rich[9:], 4
    )  # ends at 9, which is not the end of a block
    assert not task.has_low_entropy(three + rich[6:], 6)  # the first window itself
    assert task.has_low_entropy(rich[:10] + three, 16) and not task.has_low_entropy(
        rich[:9] + three + rich[15:], 16
    )
    least = parts.derive(task, {"least": math.log(3) - 1e-9})
    assert not least.has_low_entropy(rich[:2] + three + rich[8:], 4)


def test_the_first_draw_of_sufficient_entropy_is_scored(task, model):
    """Compared with a literal loop: draw k of sample i has its own random key; discarded draws count as forwards."""
    answer = task.answer(model, ASK)
    rows, again, low, forwards = [], [], [], 0
    for i in range(COUNT):
        for k in range(task.tries):
            names = [i + k * COUNT]
            one = decode(
                model.denoiser, model.recipe.process, ASK.sampler, ASK.plan, [[]], seed=0, names=names
            )
            forwards += int(one.cost.forwards.sum())
            row = one.ids[0].tolist()
            poor = min(entropy(row[8:16]), entropy(row[24:32])) < task.least
            if not poor:
                break
        rows, again, low = [*rows, row], [*again, k], [*low, poor]
    assert [item["ids"] for item in answer.items] == rows
    assert answer.metrics["redrawn"][0] == pytest.approx(sum(again) / COUNT) and sum(again) > 0
    assert answer.metrics["still_low"][0] == pytest.approx(sum(low) / COUNT)
    assert answer.nfe == pytest.approx(forwards / COUNT)
    assert answer.tokens_per_nfe == pytest.approx(COUNT * LENGTH / forwards)
    once = parts.derive(task, {"tries": 1}).answer(model, ASK)
    assert once.metrics["redrawn"][0] == 0 and once.samples != answer.samples
    free = parts.derive(task, {"least": 0.0}).answer(model, ASK)
    assert free.samples == once.samples and free.metrics["still_low"][0] == 0


def test_its_protocol_is_the_published_one(task):
    """The published cells of BD3-LM require this protocol, and the suites with this task answer them."""
    asked = find(read(), "bd3.t7.mdlm.1024").asked["protocol.redraw"]
    published = parts.derive(task, {"length": 1024, "window": 256, "least": 4.0})
    assert published.protocol()["redraw"] == published.protocol_without_judge()["redraw"] == asked
    for name in ("mdlm.1024", "bd3_4.1024", "bd3_8.2048", "bd3_16.1024"):
        found = answering(find(read(), f"bd3.t7.{name}"))
        assert found is not None and isinstance(found.cell.task, RedrawnGeneration)


@pytest.mark.parametrize("pins", [{"window": 0}, {"window": LENGTH}, {"tries": 0}])
def test_fields_out_of_range_raise(task, pins):
    with pytest.raises(ValueError, match=r"give 1|expected a number above 0"):
        parts.derive(task, pins)
