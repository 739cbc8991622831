"""Teachers of distillations: loading of their weights, or training for small recipes.

A run starts with equal weights in student and teacher; later the training loop copies the student's weights to the
teacher when `Distillation.renews` is true. Every process has the whole teacher as a float32 network in evaluation mode,
outside the engine, since the teacher is not trained. It is part of a run's state, so checkpoints contain it
(teacher.safetensors). A teacher that is the result of a small recipe is trained once under runs/teachers and read from
there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from repro.core import parts
from repro.core.files import locked, runs
from repro.data import sources
from repro.models.denoiser import copy_weights
from repro.models.dit import WithDropout
from repro.training import checkpoint as checkpoints
from repro.training.recipe import Recipe, ReleasedTeacher, TrainedTeacher

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

FILE = "teacher.safetensors"


def teacher(
    recipe: Recipe,
    student: Denoiser,
    device: torch.device,
    saved: checkpoints.Checkpoint | None,
    train: Callable[[TrainedTeacher, Path], None],
) -> Denoiser:
    """The teacher network of a recipe, on `device`.

    For a new run (`saved` is None) the teacher's weights come from `recipe.teacher` and are also copied into the
    `student`; for a resumed run they come from the checkpoint `saved`. `train`: function that is called as
    `train(recipe.teacher, folder)` for a `TrainedTeacher` that is not yet trained; it must save a checkpoint in
    `folder`. Raises ValueError if the weights are those of another network, ConnectionError if they cannot be fetched.
    """
    made = recipe.blank_network()
    if saved is None:
        found = _weights(recipe, train)
        for network in (student, made):
            copy_weights(dict(network.named_parameters()), found, "teacher")
    else:
        saved.copy(FILE, dict(made.named_parameters()))
    return made.requires_grad_(False).eval().to(device)


def _weights(recipe: Recipe, train: Callable[[TrainedTeacher, Path], None]) -> Mapping[str, Tensor]:
    match recipe.teacher:
        case TrainedTeacher() as pinned:
            return checkpoints.open_checkpoint(_trained(pinned, train)).tensors("model.safetensors")
        case ReleasedTeacher() as pinned:
            return _released(recipe, pinned)
    raise AssertionError(f"{recipe.name} has no teacher; only distillations read one")


def _trained(pinned: TrainedTeacher, train: Callable[[TrainedTeacher, Path], None]) -> Path:
    """The run folder of a trained teacher. If it holds no checkpoint, the first process that locks it calls
    `train(pinned, folder)`; the others wait."""
    folder = runs() / "teachers" / parts.digest(pinned)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not checkpoints.steps_in(folder):
            train(pinned, folder)
    return folder


def _released(recipe: Recipe, pinned: ReleasedTeacher) -> Mapping[str, Tensor]:
    """Parameter name -> tensor of the released teacher that `pinned` names; ValueError if its noise process, its
    backbone or the meaning of its output (what it estimates) is not the recipe's."""
    from repro.hub.release import agree, network, open_release

    opened = open_release(sources.weights(pinned.source, pinned.revision))
    backbone, meaning = recipe.backbone, recipe.objective.meaning
    own = backbone.backbone if isinstance(backbone, WithDropout) else backbone
    agree(opened, "process", recipe.process, opened.release.process, ("eps",))
    agree(opened, "backbone", own, opened.release.backbone, ("init_deviation",))
    if opened.release.meaning != meaning:
        raise ValueError(
            f"{opened.folder}: these weights were trained to predict {opened.release.meaning!r}, but the recipe trains"
            f" {meaning!r}; give a teacher that predicts {meaning!r}"
        )
    return dict(network(opened).named_parameters())
