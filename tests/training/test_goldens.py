"""Goldens: the first 20 steps of every recipe at nano, to 1e-5 (instruction sets differ by 7e-7 there).

A golden that moves is a change of what a recipe computes: raise the `version` of the part that changed, say why, and
write the file anew: python tests/training/test_goldens.py > tests/goldens.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from repro.core import parts, registry
from repro.core.files import runs
from repro.recipes.scale import by_name
from repro.training.loop import train

FILE = Path(__file__).with_name("goldens.json")
FIELDS = ("loss", "grad_norm", "nll")
SHOWN = (1, 2, 10, 20)
TAUGHT = {
    "teacher.steps": 20,
    "teacher.recipe.learning_rate.warmup": 2,
    "teacher.recipe.optimizer.lr": 0.01,
    "objective.round": 8,
    "objective.grid": 16,
}
"""A teacher of 20 steps that has learned enough for a loss above float32's last digits, renewed twice."""


def first_steps(name: str, out: Path) -> dict[str, list[float]]:
    """Loss, gradient norm and nll of some of the first 20 steps."""
    import dataclasses

    recipe = dataclasses.replace(by_name(f"{name}@nano"), log_every=1)
    if recipe.teacher is not None:
        recipe = parts.derive(recipe, TAUGHT)
    with pytest.MonkeyPatch.context() as patch:
        if recipe.teacher is not None:  # no teacher of older code, and no data prepared again
            data = runs() / "data"
            data.mkdir(parents=True, exist_ok=True)
            (out.parent / "data").symlink_to(data.resolve())
            patch.setenv("REPRO_RUNS", str(out.parent))
        train(recipe, seed=0, out=out, stop=20, resume=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {field: [rows[step - 1][field] for step in SHOWN] for field in FIELDS}


@pytest.mark.parametrize("name", registry.RECIPES)
def test_the_first_steps_are_the_golden_ones(name, tmp_path):
    golden = json.loads(FILE.read_text("utf-8"))[name]
    found = first_steps(name, tmp_path / "run")
    for field in FIELDS:
        assert found[field] == pytest.approx(golden[field], rel=1e-5), field


def test_every_recipe_has_a_golden():
    assert json.loads(FILE.read_text("utf-8")).keys() == registry.RECIPES.keys()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {name: first_steps(name, Path(folder) / name) for name in registry.RECIPES}
    print(json.dumps(found, indent=1))
