"""Goldens: the first 20 steps of every recipe at nano, to 1e-5 (processors' instruction sets differ by 7e-7 there).

A golden that moves is a change of what a recipe computes: raise the `version` of the part that changed, say why in the
commit, and run `make accept STEPS="goldens"`.
"""

from __future__ import annotations

import json

import pytest

from repro.core import registry
from scripts.accept import GOLDENS, first_steps, within


@pytest.mark.parametrize("name", registry.RECIPES)
def test_the_first_steps_are_the_golden_ones(name, tmp_path):
    golden = json.loads(GOLDENS.read_text("utf-8")).get(name)
    assert golden, f'{name} has no golden; run make accept STEPS="goldens"'
    found = first_steps(name, tmp_path / "run")
    remedy = 'if the change is meant, raise the version of the part, then run make accept STEPS="goldens"'
    assert within(name, found, golden), (found, golden, remedy)


def test_every_recipe_has_a_golden():
    apart = json.loads(GOLDENS.read_text("utf-8")).keys() ^ registry.RECIPES.keys()
    assert not apart, (
        f'goldens without recipe, or recipes without golden: {apart}; run make accept STEPS="goldens"'
    )


def test_a_golden_that_moved_is_seen():
    golden = json.loads(GOLDENS.read_text("utf-8"))["mdlm"]
    moved = golden | {"loss": [golden["loss"][0] * (1 + 2e-5), *golden["loss"][1:]]}
    assert within("mdlm", golden, golden) and not within("mdlm", moved, golden)
