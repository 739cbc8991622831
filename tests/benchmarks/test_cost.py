"""The benchmark of growth by rows, length, vocabulary, steps, processes and records, and its figure."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as bench
from benchmarks import cost, growth
from benchmarks.cost import CHILD, MEMORY, TIME, row, slope
from paper_figures import __main__ as figures
from paper_figures.cost import INKS, PANELS


def test_slopes_are_exponents():
    assert slope([1, 4, 16], [3, 12, 48]) == pytest.approx(1) and slope(
        [1, 2, 4], [8, 4, 2]
    ) == pytest.approx(-1)
    made = row("decoding", "length", TIME, {10: 2.0, 100: 150.0}, 2)
    assert (made.ours, made.opponent) == (150.0, 200.0) and made.ratio == pytest.approx(4 / 3)
    assert made.sizes == (10, 100) and made.slope == pytest.approx(1.875, abs=1e-3)
    assert made.agreement == "2 at 10, 150 at 100; grows as n^1.88"


def test_rows_of_each_axis_are_stored_and_drawn(tmp_path, monkeypatch):
    """Training and decoding at tiny sizes; processes and records are stood in for."""
    monkeypatch.setattr(cost, "AXES", {axis: (2, 4) for axis in cost.AXES} | {"vocabulary": (40, 80)})
    monkeypatch.setattr(cost, "SIZES", cost.Size(rows=2, length=4, vocabulary=40, steps=2))
    monkeypatch.setattr(cost, "_together", lambda count: [4.0 / count] * count)
    monkeypatch.setattr(
        growth, "measured", lambda size, repeats: {n: (size / 1e3, 0.1) for n in growth.COMMANDS}
    )
    assert bench.main(["--rows", "cost", "--repeats", "1", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "cost.json").read_text("utf-8"))["rows"]
    found = {(each["work"], each["axis"], each["quantity"]): each for each in rows}
    assert len(found) == len(rows) == 2 * (3 + 4) + 2 + 2
    assert found["decoding", "rows", MEMORY]["values"][1] > found["decoding", "rows", MEMORY]["values"][0] > 0
    busiest = found["busiest process", "processes", TIME]
    assert busiest["slope"] == pytest.approx(-1) and busiest["ratio"] == pytest.approx(1)
    assert found["all processes", "processes", TIME]["slope"] == pytest.approx(0)
    assert found["tables", "records", TIME]["slope"] == pytest.approx(1)
    assert {each["axis"] for each in rows} == set(PANELS) and {each["work"] for each in rows} == set(INKS)
    where = ["cost", "--bench", str(tmp_path), "--out", str(tmp_path / "out")]
    assert figures.main(where) == 0 and figures.main([*where, "--check"]) == 0
    csv = (tmp_path / "out" / "cost.csv").read_text("utf-8").splitlines()
    assert csv[0] == "work,axis,quantity,size,value,slope"
    assert len(csv) == 1 + sum(len(each["sizes"]) for each in rows)


def test_processes_of_the_benchmark_share_one_evaluation(monkeypatch):
    """The child is a script: it must at least be one."""
    compile(CHILD, "child", "exec")
    monkeypatch.setattr(cost, "CHILD", "raise SystemExit(3)")
    with pytest.raises(cost.subprocess.CalledProcessError, match="exit status 3"):
        cost._together(1)


def test_without_rows_the_figure_is_a_sentence():
    assert "no bench rows of cost yet" in figures.draw("cost", [])["cost.svg"]
