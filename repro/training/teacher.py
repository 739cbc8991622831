"""Teachers of distillations: where their weights come from, and how they change.

    made = teacher(recipe, network, device, None)     the student `network` starts as its teacher is
    take(made, weights)                               later the teacher becomes what the student is

A teacher is a whole network in every process, in float32 and in evaluation mode, behind no engine: nothing of it is
trained. It belongs to a run's state, so a checkpoint holds it (`FILE`). A teacher that a small recipe trains is made
once under runs/teachers and opened afterwards.
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
from repro.models.denoiser import take
from repro.models.dit import WithDropout
from repro.objectives.objective import Distillation
from repro.training import checkpoint as checkpoints
from repro.training.recipe import Recipe, ReleasedTeacher, TrainedTeacher

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

FILE = "teacher.safetensors"


def renews(recipe: Recipe, step: int) -> bool:
    """Whether the teacher takes over the student's weights before this step."""
    return isinstance(recipe.objective, Distillation) and recipe.objective.renews(step)


def teacher(
    recipe: Recipe,
    student: Denoiser,
    device: torch.device,
    saved: checkpoints.Checkpoint | None,
    train: Callable[[TrainedTeacher, Path], None],
) -> Denoiser:
    """The recipe's teacher as a run begins, when the `student` is given its weights, or as a checkpoint holds it;
    `train` trains a small recipe into a folder.

    Raises ValueError for weights that do not fit, and ConnectionError where they cannot be fetched.
    """
    made = recipe.blank_network()
    if saved is None:
        found = _weights(recipe, train)
        take(student, found)
        take(made, found)
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
    """The run folder of a teacher, trained by whichever process comes first, alone (nothing has joined a group yet)."""
    folder = runs() / "teachers" / parts.digest(pinned)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not checkpoints.steps_in(folder):
            train(pinned, folder)
    return folder


def _released(recipe: Recipe, pinned: ReleasedTeacher) -> Mapping[str, Tensor]:
    """A released network's weights under our names; ValueError where it is none of the recipe's kind."""
    from repro.hub.release import agree, network, open_release

    opened = open_release(sources.weights(pinned.source, pinned.revision))
    backbone, meaning = recipe.backbone, recipe.objective.meaning
    own = backbone.backbone if isinstance(backbone, WithDropout) else backbone
    agree(opened, "process", recipe.process, opened.release.process, ("eps",))
    agree(opened, "backbone", own, opened.release.backbone, ("init_deviation",))
    if opened.release.meaning != meaning:
        raise ValueError(
            f"{opened.folder}: these weights say {opened.release.meaning!r} and the recipe learns {meaning!r};"
            " give a teacher of the same meaning"
        )
    return dict(network(opened).named_parameters())
