"""Benchmarks: memory and time measurement on known work, both training steps at a small vocabulary, and the figure."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import vocabulary
from benchmarks.duo import DuoStep
from benchmarks.masked import MaskedStep
from benchmarks.row import peak_bytes, product_share
from paper_figures import __main__ as figures


def test_peak_bytes_count_tensors_that_exist_at_the_same_time():
    """At most two of three buffers of 4 kB exist at once; existing tensors and in-place writes do not count."""
    before = torch.zeros(1000)

    def work() -> None:
        first = before + 1
        del first
        second = before + 2
        torch.add(second, 1, out=before)
        third = second * 2
        assert third.shape == before.shape

    assert peak_bytes(work) == 8000


def test_the_share_of_products():
    x = torch.ones(300, 300)
    assert product_share(lambda: x @ x) > 0.8
    assert product_share(lambda: x.exp()) == 0


def test_both_sides_of_a_training_step_have_one_loss():
    """Equal up to float32 rounding; the two Duo steps draw different noise, so 1,024 tokens agree to 2 %."""
    step = MaskedStep(40)
    assert step.ours() == pytest.approx(step.everywhere(), rel=1e-6)
    duo = DuoStep(40)
    assert duo.step(duo.same) == pytest.approx(duo.script(), rel=0.02)


def test_rows_by_vocabulary_are_stored_and_drawn(tmp_path, monkeypatch, capsys):
    """The figure reads the files of `make bench`: one CSV row per step, size and quantity."""
    monkeypatch.setattr(vocabulary, "SIZES", (40,))
    for step in (DuoStep, MaskedStep):
        monkeypatch.setattr(vocabulary, step.__name__, partial(step, rows=2, length=8))
    assert bench.main(["--rows", "vocabulary", "--repeats", "1", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "vocabulary.json").read_text("utf-8"))["rows"]
    assert [(r["step"], r["vocabulary"], r["quantity"]) for r in rows] == [
        (step, 40, quantity) for step in ("duo", "masked") for quantity in ("seconds", "MiB")
    ]
    assert all(row["ratio"] == pytest.approx(row["opponent"] / row["ours"]) for row in rows)
    where = ["vocabulary", "--bench", str(tmp_path), "--out", str(tmp_path / "out")]
    assert figures.main(where) == 0 and figures.main([*where, "--check"]) == 0
    csv = (tmp_path / "out" / "vocabulary.csv").read_text("utf-8").splitlines()
    assert csv[0] == "step,vocabulary,quantity,ours,dense,ratio" and len(csv) == 1 + len(rows)
    rows[0]["ours"] += 1
    (tmp_path / "vocabulary.json").write_text(json.dumps({"rows": rows}))
    capsys.readouterr()
    assert figures.main([*where, "--check"]) == 1
    assert "vocabulary.csv is stale" in capsys.readouterr().out


def test_without_rows_the_figure_is_a_sentence():
    assert "no bench rows of vocabulary yet" in figures.draw("vocabulary", [])["vocabulary.svg"]
