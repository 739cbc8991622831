"""The comparison of the founding Duo's choices: its arms, and its table of paired differences."""

from __future__ import annotations

import math

import pytest
from helpers.synthetic import question, record

from paper_figures import choices as choices_figure
from repro.core import parts
from repro.results.tables import choices
from scripts.choices import recipe

SHIFTS = {"duo": 5.0, "duo_mended": 0.5}
NOISE = [0.0, 0.3, -0.2]
APART = [0.0, 0.1, -0.1]
"""What train seeds add to every arm, and to `duo_mended` alone."""


def made(arm: str, seed: int):
    value = SHIFTS[arm] + NOISE[seed] + (APART[seed] if arm != "duo" else 0.0)
    law = record(
        question(f"{arm}@nano", "law", seed),
        {"excess": (value / 2, 0.01, 2000)},
        recipe=f"{arm}@nano",
        preset="ancestral",
        tokens="1",
    )
    metrics = {"nll_bound": (value, 0.01, 4096)}
    return [record(question(f"{arm}@nano", "bound", seed), metrics, recipe=f"{arm}@nano"), law]


def test_differences_are_paired_by_train_seed():
    """The spread that all arms share cancels: the interval is of -4.5, -4.4, -4.6."""
    numbers = choices.rows([each for arm in SHIFTS for seed in range(3) for each in made(arm, seed)])
    first, second = numbers[numbers.measure == "bound"].to_dict("records")
    assert math.isnan(first["difference"]) and first["value"] == pytest.approx(5 + 0.1 / 3)
    assert second["difference"] == pytest.approx(-4.5)
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t for two degrees of freedom
    assert (second["low"], second["high"]) == pytest.approx((-4.5 - half, -4.5 + half), rel=1e-6)
    line = choices.markdown(numbers).splitlines()[-3]
    assert line.startswith("| duo_mended") and "-4.500 [-4.748, -4.252]" in line
    _, drawn = choices_figure.figure(
        [each for arm in SHIFTS for seed in range(3) for each in made(arm, seed)]
    )
    assert len(drawn) == 4


def test_an_arm_that_lacks_a_seed_is_an_error():
    records = [each for arm in SHIFTS for seed in range(3) for each in made(arm, seed)]
    lacking = [
        each for each in records if (each.labels.recipe, each.question.checkpoint.seed) != ("duo@nano", 1)
    ]
    with pytest.raises(ValueError, match=r"python -m scripts\.choices"):
        choices.rows(lacking)
    assert choices.tables([]) == {}


def test_arms_differ_from_the_founding_recipe_in_what_they_name():
    """Pins in which each arm differs from `duo@nano`; data, backbone, optimizer and steps never."""
    founding = parts.canonical(recipe("duo"))
    apart = {}
    for arm in choices.ARMS:
        other = parts.canonical(recipe(arm))
        assert other["name"] == f"{arm}@nano"
        assert {pin for pin in founding if other[pin] != founding[pin]} <= {"name", "objective", "ema"}
        apart[arm] = {
            pin
            for pin in founding["objective"].keys() | other["objective"].keys()
            if founding["objective"].get(pin) != other["objective"].get(pin)
        }
    apart.pop("duo_nelbo")
    assert apart == {
        "duo": set(),
        "duo_unscaled": {"view_scale"},
        "duo_own_window": {"noise"},
        "duo_every_level": {"noise"},
        "duo_mended": {"noise", "view_scale"},
        "duo_mended_ce": {"noise", "view_scale", "part", "floor", "version"},
    }


def test_the_own_window_has_the_ends_of_duos_curriculum():
    import torch

    from repro.processes import gaussian
    from repro.recipes.scale import by_name
    from scripts.choices import OWN_WINDOW

    window = by_name("duo_nelbo").objective.window
    for t, gamma in zip(OWN_WINDOW.values(), (window.low, window.high), strict=True):
        level = torch.tensor(1 - t, dtype=torch.float64)
        assert gaussian.gamma_of(level).item() == pytest.approx(gamma, abs=0.005)
