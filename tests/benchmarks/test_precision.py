"""The benchmark of bfloat16 on a small recipe: its sides differ in their precision and in nothing else."""

from __future__ import annotations

import dataclasses
import re

import pytest

from benchmarks import precision
from repro.recipes import scale


@pytest.fixture
def small(monkeypatch):
    """`mdlm` with rows of 16 tokens at scale nano, compared after two steps."""
    nano = dataclasses.replace(scale.by_name("mdlm@nano"), batch=2)
    monkeypatch.setattr(scale, "by_name", lambda name: nano)
    monkeypatch.setattr(precision, "RECIPES", ("mdlm",))
    monkeypatch.setattr(precision, "COMPARED", 2)


def difference(agreement: str) -> float:
    found = re.search(r"differs by (\S+) of", agreement)
    assert found is not None
    return float(found[1])


def test_the_losses_of_a_step_differ_by_the_rounding_of_bfloat16(small):
    products, step = precision.precision(1)
    assert 1e-4 < difference(products.agreement) < 1e-2
    assert 1e-7 < difference(step.agreement) < 1e-2
    assert step.agreement.startswith("loss of step 2 differs")
    assert step.row.startswith("training step in bfloat16, mdlm@nano, ") and " tokens" in step.row
    for row in (products, step):
        assert row.ours > 0 and row.ratio == pytest.approx(row.opponent / row.ours)
