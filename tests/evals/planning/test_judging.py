"""The price of a judge in a plan: each sample once, and held-out text once for all cells of a task."""

import pytest

from repro.evals.planning.plan import data, plan, text
from repro.evals.request import Request

SAMPLES, LENGTH, CELLS = 256, 32, 4 * 3
"""Of suite quality.text for an absorbing model of scale nano: four temperatures of `ancestral`, three rates."""


def request() -> Request:
    return Request(suite="quality.text", samplers=TEMPERATURES)


TEMPERATURES = [
    "ancestral",
    *(f"ancestral+tempered:temperature={temperature}" for temperature in ("0.7", "0.85", "1.15")),
]


def test_a_plan_counts_what_the_judge_reads(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    (reading,) = data(plan("oracle:mdlm@nano", request(), "cpu"))["judges"]
    quality, naive = SAMPLES * CELLS + 2 * SAMPLES, 2 * SAMPLES + 2 * SAMPLES
    assert reading["texts"] == quality + naive and reading["tokens"] == LENGTH * (quality + naive)
    assert reading["hours"] is None and reading["judge"] == "reproduce/ar@nano.text-s0"
    assert any(
        "it is not on this machine" in line for line in text(plan("oracle:mdlm@nano", request(), "cpu"))
    )


def test_a_judge_at_hand_is_timed(monkeypatch):
    monkeypatch.setattr("repro.evals.planning.judging.judge_parameters", lambda name: 10**6)
    found = plan("oracle:mdlm@nano", request(), "cpu")
    (reading,) = found.judged
    assert reading.hours == pytest.approx(2e6 * reading.tokens / (60e9 * 0.4) / 3600)
    assert found.hours == sum(line.hours or 0 for line in found.lines)
    assert any(line.startswith("judge reproduce/ar@nano.text-s0 reads") for line in text(found))
