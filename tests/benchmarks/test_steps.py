"""The bench's instruments on work of known cost, its training steps at a small V, and the figure of its rows."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import vocabulary
from benchmarks.duo import DuoStep
from benchmarks.masked import MaskedStep
from benchmarks.row import peak_bytes, product_share
from paper_figures import __main__ as figures


def test_the_peak_is_of_what_is_alive_at_once():
    """Two of three buffers of 4 kB live together; what was there before, and what is written in place, is free."""
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
    """To the rounding of float32; the Duo step draws noise of its own, so over 1,024 tokens only to 2 %."""
    step = MaskedStep(40)
    assert step.ours() == pytest.approx(step.everywhere(), rel=1e-6)
    duo = DuoStep(40)
    assert duo.step(duo.same) == pytest.approx(duo.script(), rel=0.02)


def test_rows_by_vocabulary_are_stored_and_drawn(tmp_path, monkeypatch, capsys):
    """What `make bench` writes is what the figure reads: a point a step, size and quantity, one CSV row each."""
    monkeypatch.setattr(vocabulary, "SIZES", (40,))
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


def test_without_rows_the_figure_says_so():
    assert "no bench rows of vocabulary yet" in figures.draw("vocabulary", [])["vocabulary.svg"]
