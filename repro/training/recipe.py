"""A recipe: one literal that pins a training setup. What you read is what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import parts, registry
from repro.core.parts import Part, part
from repro.core.schedules import Rate
from repro.data.corpus import Data
from repro.models.backbone import Backbone, Role
from repro.objectives.objective import Distillation, Objective
from repro.processes.process import Process
from repro.training.optimizer import AdamW, Ema, Precision

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


class Teacher(Part):
    """Kind: whose weights a distillation starts from, student and teacher alike (`repro.training.teacher`)."""


@part
class Recipe(Part):
    """Everything that a trained model depends on, but its seed.

    `batch`: rows of one optimizer step over all processes; `micro_batch`: rows of one forward (their ratio is the
    accumulation, it changes no number beyond rounding); `heldout_every`: steps between held-out bounds; `teacher`:
    whom an objective distils from, None for all others; `suite`: what it is scored on. Weights to start from are the
    backbone's pin. Raises ValueError for counts below 1 and for an objective that is not for the process.
    """

    name: str
    data: Data
    backbone: Backbone
    process: Process
    objective: Objective
    optimizer: AdamW
    learning_rate: Rate
    ema: Ema | None
    precision: Precision
    batch: int
    micro_batch: int
    steps: int
    log_every: int
    heldout_every: int
    heldout_rows: int
    checkpoint_every: int
    teacher: Teacher | None
    suite: str

    def __post_init__(self) -> None:
        for pin in ("batch", "micro_batch", "log_every", "heldout_every", "heldout_rows", "checkpoint_every"):
            if getattr(self, pin) < 1:
                raise ValueError(f"{pin}={getattr(self, pin)} is no count; give 1 or more")
        if self.steps < 0:
            raise ValueError(f"steps={self.steps} is negative; give 0 or more")
        noise, fits = registry.part_name(type(self.process)), self.objective.processes
        if noise not in fits:
            name = registry.part_name(type(self.objective))
            raise ValueError(
                f"objective {name!r} is for {' or '.join(sorted(fits))} noise, not for {noise!r}"
            )

        name = registry.part_name(type(self.objective))
        if isinstance(self.objective, Distillation) and self.teacher is None:
            raise ValueError(f"objective {name!r} distils and teacher is null; give a teacher")
        if self.teacher is not None and not isinstance(self.objective, Distillation):
            raise ValueError(f"objective {name!r} learns from no teacher; leave teacher null")

    def digest(self) -> str:
        """SHA-256 of the canonical form without the name: two names for one setup are one setup."""
        return parts.sha256(parts.to_json(self.pins()))

    def pins(self) -> dict:
        data = parts.canonical(self)
        del data["name"]
        return data

    @property
    def score(self) -> str:
        """What its training loss is, in the words of objectives."""
        return self.objective.score

    def role(self) -> Role:
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.objective.meaning)

    def network(self, seed: int) -> Denoiser:
        """The network as it starts training."""
        return self.backbone.module(self.role(), seed)

    def blank_network(self) -> Denoiser:
        """The network whose weights are about to be overwritten: nothing is fetched."""
        return self.backbone.blank().module(self.role(), 0)


@part
class TrainedTeacher(Teacher):
    """The weights of a recipe after `steps` steps, trained where they are not yet (small recipes only)."""

    recipe: Recipe
    seed: int
    steps: int


@part
class ReleasedTeacher(Teacher):
    """Weights that someone released: a local folder in its authors' layout, or a name on the Hub at a revision."""

    source: str
    revision: str
