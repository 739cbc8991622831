"""Which run a recipe may continue, and recipes that train a finished run longer (docs/method.md#longer).

A run of recipe A may go on under recipe B only if a run of B from step 0 would have had the same weights at the last
checkpoint. Of the settings that affect weights, A and B may therefore differ only in the number of steps and in the
schedule of the learning rate, and both schedules must give the same rates up to that checkpoint. After it, the run
counts as a run of B.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from repro.core import parts
from repro.core.schedules import Prolonged
from repro.training import checkpoint as checkpoints
from repro.training.recipe import Recipe

FREE = ("steps", "learning_rate", "log_every", "heldout_every", "heldout_rows", "checkpoint_every", "suite")
"""Settings in which the recipe that continues a run may differ from the run's own; of these, only the learning rate
affects the steps already taken."""
SHOWN = 6
"""Largest number of settings that an error message lists."""


def checkpoint_to_resume(recipe: Recipe, seed: int, out: Path, resume: bool) -> checkpoints.Checkpoint | None:
    """The last checkpoint in the run folder `out` if `resume`, else None.

    Raises ValueError if `out` holds a run and `resume` is false, or if `resume` is true and `out` holds no run that
    this recipe and seed continue; the message names the settings that differ.
    """
    if not resume:
        if checkpoints.steps_in(out):
            raise ValueError(f"{out} holds a run already; go on with --resume or choose another --out")
        return None
    if not out.is_dir():
        raise ValueError(f"cannot resume: no folder {out}; give the --out of the run to go on with")
    saved = checkpoints.open_checkpoint(out)
    _check_continues(saved, recipe, out)
    if saved.seed != seed:
        raise ValueError(
            f"cannot resume: {out} was trained with --seed {saved.seed}, not {seed}; give that seed or another --out"
        )
    return saved


def _check_continues(saved: checkpoints.Checkpoint, recipe: Recipe, out: Path) -> None:
    """Raise ValueError unless a run of `recipe` from step 0 would have had the same weights at the step of `saved`, the
    last checkpoint in `out`."""
    changes = [each for each in parts.changes(saved.recipe, recipe) if each[0] != "name"]
    fixed = [each for each in changes if each[0].partition(".")[0] not in FREE]
    if fixed:
        told = ", ".join(f"{p} {parts.brief(a)} -> {parts.brief(b)}" for p, a, b in fixed[:SHOWN])
        more = f" and {len(fixed) - SHOWN} more" if len(fixed) > SHOWN else ""
        raise ValueError(
            f"cannot resume: {out} holds {saved.recipe.name}, not this {recipe.name}; settings differ: {told}{more};"
            " give the run's settings, or choose another --out"
        )
    for step in range(saved.step):
        before, now = (each.learning_rate.factor(step, each.steps) for each in (saved.recipe, recipe))
        if before != now:
            remedy = "give the run's own schedule and steps"
            if recipe.steps > saved.recipe.steps:
                remedy = (
                    f"--longer {recipe.steps} goes on with a schedule that agrees (docs/method.md#longer)"
                )
            raise ValueError(
                f"cannot resume: {out} was trained with another learning rate than {recipe.name} has (factor"
                f" {before:.4g}, not {now:.4g}, at step {step}); {remedy}"
            )


def longer(recipe: Recipe, steps: int) -> Recipe:
    """The recipe that continues a run of `recipe` up to step `steps`, with the learning rates of `recipe` up to the
    last step of `recipe`.

    A schedule whose rates do not depend on the number of steps stays; any other schedule starts again, with its
    warm-up, for the steps that are added (`Prolonged`). Raises ValueError unless `steps` is larger than `recipe.steps`.
    """
    if steps <= recipe.steps:
        raise ValueError(
            f"--longer {steps}: {recipe.name} has {recipe.steps} steps already; give more steps, or go on with --resume"
        )
    rate = recipe.learning_rate
    if any(rate.factor(step, recipe.steps) != rate.factor(step, steps) for step in range(recipe.steps)):
        again = rate.then if isinstance(rate, Prolonged) else rate
        rate = Prolonged(first=rate, until=recipe.steps, then=again)
    made = dataclasses.replace(recipe, steps=steps, learning_rate=rate)
    return dataclasses.replace(made, name=f"{recipe.name.partition('+')[0]}+{made.digest()[:6]}")
