"""A recipe: one literal that pins a training setup. What you read is what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro import parts
from repro.backbones.backbone import Backbone, Role
from repro.data.corpus import Data
from repro.objectives.objective import Objective
from repro.optim import AdamW, Ema, Precision
from repro.parts import Part, part
from repro.processes.process import Process
from repro.schedules import Rate

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser


@part
class Recipe(Part):
    """Everything that a trained model depends on, but its seed.

    `batch`: rows of one optimizer step over all processes; `micro_batch`: rows of one forward (their ratio is the
    accumulation, it changes no number beyond rounding); `heldout_every`: steps between held-out bounds; `init`: Hub
    weights to start from are the backbone's pin, `teacher` a checkpoint to distil from; `suite`: what it is scored on.
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
    teacher: str | None
    suite: str

    def digest(self) -> str:
        """SHA-256 of the canonical form without the name: two names for one setup are one setup."""
        return parts.sha256(parts.to_json(self.pins()))

    def pins(self) -> dict:
        data = parts.canonical(self)
        del data["name"]
        return data

    def role(self) -> Role:
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.objective.meaning)

    def network(self, seed: int) -> Denoiser:
        """The network as it starts training."""
        return self.backbone.module(self.role(), seed)
