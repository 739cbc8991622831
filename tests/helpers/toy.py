"""The registered recipes reduced to a second on one core: the same code path and parts, 20 steps.

toy("duo")                                   20 steps of 8 rows on the oracle language `strong`
toy("duo", "micro_batch=2")                  the same, in microbatches
curve(OUT)                                   its logged rows, one a step
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from repro.core import registry
from repro.core.parts import leaves, to_json
from repro.recipes.command import select
from repro.recipes.scale import by_name
from repro.training.recipe import Recipe

CUT = {
    "data.rows": 64,
    "data.heldout": 16,
    "backbone.width": 32,
    "backbone.ffn": 64,
    "learning_rate.warmup": 2,
    "batch": 8,
    "micro_batch": 8,
    "steps": 20,
    "log_every": 1,
    "heldout_every": 10,
    "heldout_rows": 16,
    "checkpoint_every": 5,
}
"""Pins of every recipe at toy size; 64 rows with 8 rows a step make epochs of 8 steps."""
SCHEDULES = {
    "llada": {"objective.group.rows": 4},
    "duo": {"objective.group.rows": 4, "objective.temperature.steps": 20},
    "duo_script": {"objective.group.rows": 4, "objective.temperature.steps": 130},
    "duo_nelbo": {"objective.until": 9},
    "duo_owt": {"objective.until": 9},
    "llada_pretrain": {"objective.probability": 0.5},
    "duo_owt_distilled": {"objective.round": 4, "objective.grid": 16, "teacher.recipe.optimizer.lr": 0.01},
}
"""Two groups a step; curricula take the same share of the run as at full size (`duo_nelbo` changes from soft to hard
tokens, a distillation renews its teacher four times)."""
RECIPES = ("llada", "duo", "duo_script", "duo_nelbo", "mdlm", "ar", "duo_owt", "duo_owt_distilled")


def _part_names(name: str) -> set[str]:
    """Registered names of all parts of a recipe at nano."""
    return set(re.findall(r'"part":"(\w+)"', to_json(by_name(f"{name}@nano"))))


def _rarer() -> tuple[str, ...]:
    """The registered recipes that have, at nano, a part that no recipe of `RECIPES` nor one before them has."""
    seen = set().union(*map(_part_names, RECIPES))
    found = []
    for name in registry.RECIPES:
        if not _part_names(name) <= seen:
            found.append(name)
            seen |= _part_names(name)
    return tuple(found)


RARER = _rarer()
"""Together with `RECIPES`, recipes with every part of the registered recipes at toy size."""
EVERY = [*RECIPES, *(pytest.param(name, marks=pytest.mark.slow) for name in RARER)]


def within(recipe: Recipe) -> str:
    """Path within the backbone to the part with the network's sizes; empty for the backbone itself."""
    return next(pin.rpartition(".")[0] for pin in leaves(recipe.backbone) if pin.endswith("layers"))


def overrides(name: str, *more: str) -> list[str]:
    """The `--set` arguments that reduce a nano recipe to a toy; `more` replace or add pins."""
    recipe = by_name(f"{name}@nano")
    inner = within(recipe)
    cut = {pin.replace("backbone.", f"backbone.{inner}.") if inner else pin: v for pin, v in CUT.items()}
    if recipe.teacher is not None:
        cut |= {f"teacher.recipe.{pin}": value for pin, value in cut.items()} | {"teacher.steps": 20}
    pins = {**cut, **SCHEDULES.get(name, {}), **dict(pin.split("=", 1) for pin in more)}
    return [f"{pin}={value}" for pin, value in pins.items()]


def toy(name: str, *more: str) -> Recipe:
    return select(by_name(name), "nano", overrides(name, *more))


def curve(out: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl without their seconds."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def same_curve(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """Assert equal rows, to a relative 1e-5 (docs/method.md#exactness)."""
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for a, b in zip(one, other, strict=True):
        apart = {k: (a[k], b[k]) for k in a if b[k] != pytest.approx(a[k], rel=1e-5, abs=1e-12)}
        assert not apart, f"step {a['step']}: {apart}"
