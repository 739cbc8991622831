"""Progress without a terminal: a line per finished evaluation, and one per chunk of a perplexity or bound."""

from __future__ import annotations

import pytest

from repro.evals.__main__ import main
from repro.evals.progress import Silent, progress


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


def test_a_line_for_each_finished_evaluation_and_chunk(tmp_path, capsys):
    argv = [
        "--ckpt",
        "oracle:mdlm@nano",
        "--tasks",
        "law",
        "--samples",
        "4",
        "--samplers",
        "ancestral,random",
    ]
    argv += ["--tokens-per-step", "8,all", "--out", str(tmp_path)]
    assert main(argv) == 0
    said = capsys.readouterr().err.splitlines()[:-1]
    whats = [line.rpartition(": ")[0] for line in said]
    assert whats == [
        f"law, {name}, {rate} tokens per step" for name in ("ancestral", "random") for rate in ("8", "all")
    ]
    assert [line.rpartition(" (")[2] for line in said] == [f"{i} of 4)" for i in range(1, 5)]
    assert main(argv) == 0
    again = capsys.readouterr().err.splitlines()[:-1]
    assert all("stored before (" in line for line in again) and len(again) == 4


def test_a_line_for_each_chunk_of_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("repro.evals.work_queue.ROWS", 8)
    argv = ["--ckpt", "oracle:mdlm@nano", "--tasks", "bound", "--out", str(tmp_path), "--limit", "24"]
    assert main(argv) == 0
    assert capsys.readouterr().err.splitlines()[:3] == [f"bound: {i} of 3 chunks" for i in (1, 2, 3)]


def test_only_the_first_process_of_a_launch_tells(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert isinstance(progress("x", 3), Silent)
