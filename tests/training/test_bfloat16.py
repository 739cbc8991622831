"""The line with which a run in bfloat16 on a CPU begins: how fast that is here, and the remedy where it is slow."""

import torch

from repro.training.engines import bfloat16

CPU = torch.device("cpu")


def test_a_run_says_what_bfloat16_does_here(monkeypatch):
    monkeypatch.setattr(bfloat16, "ratio", lambda: 4.66)
    assert bfloat16.note("bf16_autocast", CPU) == (
        "precision bf16_autocast: this CPU multiplies bfloat16 matrices 4.7 times as fast as float32"
    )
    monkeypatch.setattr(bfloat16, "ratio", lambda: 0.4)
    found = bfloat16.note("bf16_master", CPU)
    assert found is not None and "0.4 times" in found and "--set precision=float32" in found


def test_other_runs_say_nothing(monkeypatch):
    monkeypatch.delattr(bfloat16, "ratio")
    assert bfloat16.note("float32", CPU) is None
    assert bfloat16.note("bf16_autocast", torch.device("cuda")) is None


def test_the_ratio_is_of_times():
    assert 0.01 < bfloat16.ratio() < 1000
