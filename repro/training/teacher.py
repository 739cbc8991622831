"""Teachers of distillations: where their weights come from.

A run starts with student and teacher equal; later the loop copies the student's weights to the teacher (`renews`). A
teacher is a whole float32 network in evaluation mode in every process, outside the engine, since it is not trained. It
is part of a run's state, so a checkpoint holds it (`FILE`). The teacher of a small recipe is trained once under
runs/teachers and read from there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock

from repro.core import parts
from repro.core.files import runs
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
    """The recipe's teacher on `device`: for a new run from its source, copied to the `student` too; else from `saved`.

    `train` trains a small recipe into a folder. Raises ValueError for weights that do not fit, and ConnectionError if
    they cannot be fetched.
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
    raise AssertionError(f"{recipe.name} has no teacher")


def _trained(pinned: TrainedTeacher, train: Callable[[TrainedTeacher, Path], None]) -> Path:
    """The run folder of a teacher; the first process to come trains it, before any group of processes is joined."""
    folder = runs() / "teachers" / parts.digest(pinned)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not checkpoints.steps_in(folder):
            train(pinned, folder)
    return folder


def _released(recipe: Recipe, pinned: ReleasedTeacher) -> Mapping[str, Tensor]:
    """A released network's weights by our names; ValueError if its process, backbone or meaning is not the recipe's."""
    from repro.hub.release import agree, network, open_release

    opened = open_release(sources.weights(pinned.source, pinned.revision))
    backbone, meaning = recipe.backbone, recipe.objective.meaning
    own = backbone.backbone if isinstance(backbone, WithDropout) else backbone
    agree(opened, "process", recipe.process, opened.release.process, ("eps",))
    agree(opened, "backbone", own, opened.release.backbone, ("init_deviation",))
    if opened.release.meaning != meaning:
        raise ValueError(
            f"{opened.folder}: these weights were trained to predict {opened.release.meaning!r}, the recipe"
            f" {meaning!r}; give a teacher of the same meaning"
        )
    return dict(network(opened).named_parameters())
