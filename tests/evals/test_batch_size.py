"""Batch size: by free memory, halved after running out of it; answers do not depend on it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from repro import load
from repro.evals.batch_size import fitted, halving, rows_at_once
from repro.evals.planning.device import device
from repro.evals.planning.plan import plan
from repro.evals.request import Request
from repro.evals.workload import Workload
from repro.hub import catalogue as checkpoints
from repro.processes.absorbing import Absorbing


def small_card(most, tried):
    """A function that sums 100 rows in batches of `rows` on a simulated card that holds `most` rows."""

    def find(rows):
        tried.append(rows)
        size = 256 if rows is None else rows
        if min(size, 100) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(sum(range(100)[start : start + size]) for start in range(0, 100, size))

    return find


@pytest.mark.parametrize(
    ("rows", "most", "wanted"),
    [
        (64, 100, [64]),
        (64, 10, [64, 32, 16, 8]),
        (None, 60, [None, 128, 64, 32]),
        (1, 1, [1]),
        (3, 1, [3, 1]),
    ],
)
def test_rows_are_halved_until_they_fit_and_the_answer_stays(rows, most, wanted):
    tried = []
    assert halving(small_card(most, tried), rows) == 4950
    assert tried == wanted


def test_one_row_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="one row does not fit"):
        halving(small_card(0, []), 4)


def test_other_errors_are_not_swallowed():
    def find(rows):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        halving(find, 4)


def test_rows_by_free_memory(monkeypatch):
    """Twice the memory gives twice the rows; on a CPU the task chooses."""
    model = load("oracle:mdlm@nano")
    found = plan("kuleshov-group/mdlm-owt", Request(suite="mdlm_owt"), "h100", "bfloat16")
    cell = found.cells[0]
    assert fitted(model, cell.task, cell.ask) is None
    entry = checkpoints.entry("kuleshov-group/mdlm-owt")
    network = entry.shape.size(entry.parameters)
    workload = Workload(items=1024, forwards=1025, tokens=1025 * 1024, keys=1025 * 1024**2, heads=1025 * 1024)
    rows = [rows_at_once(workload, network, free, 2) for free in (10e9, 20e9, 40e9)]
    assert rows[1] == 2 * rows[0] and rows[2] == 4 * rows[0]
    card = SimpleNamespace(device=SimpleNamespace(type="cuda"), element_size=lambda: 2)
    denoiser = SimpleNamespace(parameters=lambda: iter([card]))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20e9, 80e9))
    card_model = SimpleNamespace(
        denoiser=denoiser, recipe=SimpleNamespace(process=Absorbing()), size=lambda: network
    )
    assert fitted(card_model, cell.task, cell.ask) == rows[1]
    assert device("h100", "bfloat16").memory == 80e9 and found.lines[0].batch == rows_at_once(
        workload, network, 80e9 - 2 * entry.parameters, 2
    )


def test_a_question_continues_with_half_as_many_rows_after_running_out(tmp_path, monkeypatch):
    """A card that holds two rows gives the answer of one that holds them all, and no finished chunk is recomputed."""
    from repro.evals import decoding
    from repro.evals.request import prepare

    model = load("oracle:mdlm@nano")
    request = Request(["random"], ["law"], [16], samples=6, suite="oracle")
    whole = [record for record, _ in prepare(model, replace(request, out=tmp_path / "whole")).run()]
    asked, real = [], decoding.decode

    def small(denoiser, process, sampler, plan, prompts, **how):
        asked.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(denoiser, process, sampler, plan, prompts, **how)

    monkeypatch.setattr(decoding, "decode", small)
    found = [r for r, _ in prepare(model, replace(request, out=tmp_path / "small", batch=6)).run()]
    assert [r.answer for r in found] == [r.answer for r in whole]
    assert asked == [6, 3, 1, 1, 1, 1, 1, 1]
