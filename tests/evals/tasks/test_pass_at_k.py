"""The task `pass_at_k`: its seeds, its metrics against the draws of a task with known outcomes, and what it refuses."""

from __future__ import annotations

from statistics import fmean

import pytest
from filelock import FileLock

from repro.core.parts import part
from repro.evals.suites import read_suite
from repro.evals.task import Answer, Ask, Task
from repro.evals.tasks.pass_at_k import PassAtK
from repro.evals.work_queue import Busy, WorkQueue, shared_queue
from repro.model import load

RIGHT = {0: "1100", 1: "1010", 2: "1000", 3: "1000"}
"""Outcomes of four items by sampling seed."""


@part
class Known(Task):
    """A task whose outcomes are known."""

    generates = True

    def protocol(self):
        return {"output": "known"}

    def shared(self, model, ask: Ask, work: WorkQueue) -> Answer:
        (right,) = work.map_chunks(1, 1, lambda rows: RIGHT[ask.seed % 4], lambda found, rows: found)
        items = [
            {"doc_id": i, "filter": "none", "metrics": {"exact_match": int(digit)}}
            for i, digit in enumerate(right)
        ]
        return Answer(metrics={}, nfe=2.0 + 2.0 * (ask.seed % 2), tokens_per_nfe=4.0, items=items)


def task(draws=4, ks=(1, 2, 4)):
    return PassAtK(
        name="passes", of=Known(name="known"), metric="exact_match", filter="none", draws=draws, ks=ks
    )


def test_metrics_of_known_draws():
    """Items are right in 4, 1, 1 and 0 of 4 draws."""
    found = task().answer(load("oracle:mdlm@nano"), Ask(None, None, 0, None))
    assert found.curve == {"correct": [4.0, 1.0, 1.0, 0.0]}
    values = {name: value for name, (value, _, _) in found.metrics.items()}
    flips = fmean([0, 2 * 1 * 3 / 12, 2 * 1 * 3 / 12, 0])
    assert values == pytest.approx({"pass_1": 0.375, "pass_2": 0.5, "pass_4": 0.75, "flips": flips})
    assert found.nfe == 3.0 and found.tokens_per_nfe == 4.0


def test_other_sampling_seeds_share_no_draw():
    """Seed 1 takes draws 2 and 3 of two draws each, in which only the first item is right."""
    found = task(draws=2, ks=(2,)).answer(load("oracle:mdlm@nano"), Ask(None, None, 1, None))
    assert found.curve == {"correct": [2.0, 0.0, 0.0, 0.0]} and found.metrics["pass_2"][0] == 0.25


def test_processes_share_all_draws(tmp_path):
    """While another process makes the first draw, this one makes the others."""
    work = shared_queue(tmp_path, "q" * 64, {}, None, lambda: False)
    work.folder.mkdir()
    with FileLock(work.folder / "0.0-0.lock"), pytest.raises(Busy):
        task().shared(load("oracle:mdlm@nano"), Ask(None, None, 0, None), work)
    assert {path.stem for path in work.folder.glob("*.json")} == {"1.0-0", "2.0-0", "3.0-0"}


@pytest.mark.parametrize(("draws", "ks"), [(1, (1,)), (4, (5,)), (4, (0,))])
def test_impossible_numbers_of_draws_are_refused(draws, ks):
    with pytest.raises(ValueError, match="give 2 draws or more, and each k from 1 to"):
        task(draws, ks)


def test_the_suite_asks_for_eight_draws():
    (found,) = read_suite("passes.sudoku").tasks
    assert isinstance(found, PassAtK) and found.draws == 8 and found.ks == (1, 2, 4, 8)
