"""The task that measures multiple choice by likelihood with few draws."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from filelock import FileLock

from repro import load
from repro.core import parts
from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.suites import read_suite
from repro.evals.task import Ask
from repro.evals.tasks import choice_draws
from repro.evals.tasks.choice_draws import ChoiceDraws, _altered
from repro.evals.work_queue import Busy, SharedQueue

ASK = Ask(None, None, 0, None)
TASK = ChoiceDraws(
    name="levels",
    items=12,
    choices=3,
    prompt=3,
    length=4,
    estimator=estimator("levels"),
    draws=(3, 15),
    repeats=4,
)


@pytest.fixture(scope="module")
def model():
    return load("oracle:mdlm@nano")


def test_all_masked_sets_have_no_error_and_few_have(model):
    """With all 15 masked sets there are no errors and no flips; with 3 of them scores vary and answers flip."""
    found = TASK.answer(model, ASK).metrics
    assert found["bias_15"] == pytest.approx((0, 0, 12), abs=1e-10) and found["variance_15"][0] < 1e-20
    assert found["flips_15"][0] == 0 and found["accuracy_15"] == found["accuracy_exact"]
    assert found["forwards_15"] == (15, 0, 12) and found["forwards_3"][0] <= 3
    assert found["variance_3"][0] > 0.1 and found["flips_3"][0] > 0
    assert found["accuracy_3"][0] < found["accuracy_exact"][0] > 0.8, (
        "a sentence with a token of another row is unlikely"
    )
    (two, *_) = TASK.answer(model, replace(ASK, limit=2)).metrics.values()
    assert two[2] == 2


def test_processes_share_the_items(model, tmp_path, monkeypatch):
    """One process computes what another has not claimed; the result is that of one process to the last bit."""
    monkeypatch.setattr(choice_draws, "BATCH", 6)
    alone = TASK.answer(model, ASK)
    first, second = (SharedQueue(tmp_path, "question", {}, None, lambda: False) for _ in range(2))
    with FileLock(tmp_path / "0-4.lock"), pytest.raises(Busy):
        TASK.shared(model, ASK, first)
    assert len(list(tmp_path.glob("0-*.json"))) == 3 * 6 - 1, "six blocks of two items, by three estimators"
    monkeypatch.setattr(ChoiceDraws, "_scores", counted := Mock(wraps=TASK._scores))
    assert TASK.shared(model, ASK, second) == alone
    assert counted.call_count == 1
    second.close()


def test_a_chunk_of_another_shape_is_refused(model, tmp_path):
    queue = SharedQueue(tmp_path, "question", {}, None, lambda: False)
    replace(TASK, repeats=3).shared(model, ASK, queue)
    queue.close()
    with pytest.raises(ValueError, match="does not fit this evaluation"):
        TASK.shared(model, ASK, SharedQueue(tmp_path, "question", {}, None, lambda: False))


def test_answers_differ_in_one_token_and_the_right_one_rotates(model):
    requests, right = TASK.questions(model, 12)
    assert right.tolist() == [0, 1, 2] * 4
    for item in range(12):
        mine = requests[3 * item : 3 * item + 3]
        truth = mine[item % 3].continuation
        assert len({r.prompt for r in mine}) == 1 and len({r.continuation for r in mine}) == 3
        gaps = [sum(a != b for a, b in zip(r.continuation, truth, strict=True)) for r in mine]
        assert sorted(gaps) == [0, 1, 1]
    rows = np.array([[5, 6], [5, 7], [5, 6], [5, 8]])
    assert _altered([5, 6], rows, 1, 1) == [5, 8] and _altered([5, 6], rows, 3, 1) == [5, 7]
    with pytest.raises(ValueError, match="the same token 1 places"):
        _altered([5, 6], rows, 0, 0)


def test_repeats_and_seeds_have_independent_draws(model):
    """The variance over repeats would be 0 otherwise; another seed gives other numbers."""
    few = replace(TASK, items=4, draws=(8,), estimator=estimator("llada_mc:draws=8,batch=8"))
    one, other = (few.answer(model, replace(ASK, seed=seed)).metrics for seed in (0, 1))
    assert one["variance_8"][0] > 0 and one["bias_8"] != other["bias_8"]
    assert one["accuracy_exact"] == other["accuracy_exact"]


def test_models_without_a_reference_are_skipped_and_wrong_pins_raise(model):
    assert "absorbing" in str(TASK.skip(load("oracle:duo_nelbo@nano"))) and TASK.skip(model) is None
    assert "too short for a prompt of 30 and an answer of 4" in str(replace(TASK, prompt=30).skip(model))
    with pytest.raises(ValueError, match="no setting 'draws'"):
        replace(TASK, estimator=estimator("duel"))
    with pytest.raises(ValueError, match="is not a positive multiple of batch=16"):
        replace(TASK, estimator=estimator("llada_mc"), draws=(8,))
    with pytest.raises(ValueError, match="allow 2 to 5"):
        replace(TASK, choices=6)
    for task in read_suite("draws").tasks:
        assert parts.read(parts.canonical(task), ChoiceDraws) == task and task.skip(model) is None
