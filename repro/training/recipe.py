"""The class `Recipe`, with every hyperparameter of a training run, and the sources of the teachers of distillations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.parts import Part, part
from repro.core.schedules import Rate
from repro.data.corpus import Data
from repro.models.backbone import Backbone
from repro.objectives.objective import Distillation, Objective
from repro.processes.prediction import Role
from repro.processes.process import Process
from repro.training.optimizer import AdamW, Ema, Precision

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


class Teacher(Part):
    """Base class of the settings that say where a distillation's teacher gets its weights, from which the student
    starts too."""


@part
class Recipe(Part):
    """All settings that a trained model depends on, except the random seed.

    `batch`: rows per optimizer step, over all processes; `micro_batch`: rows per forward pass in one process (gradients
    are accumulated over microbatches; their size changes no result beyond rounding); `steps`: optimizer steps;
    `log_every`, `heldout_every`, `checkpoint_every`: steps between logged rows, held-out likelihood bounds and
    checkpoints; `heldout_rows`: held-out rows of a bound; `teacher`: source of a distillation's teacher, None for other
    objectives; `suite`: name of the evaluation suite of the trained models. Pretrained weights are a field of the
    backbone. `ema`: moving average of the weights, or None; `precision`: of the optimizer step
    (`repro.training.optimizer`). Raises ValueError for a batch below 1 (`parts.read` checks the other counts), for an
    objective that does not suit process or teacher, and for a backbone that reads blocks of another length than those
    that the process noises.
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
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: expected a number above 0")
        name, noise = parts.part_name(type(self.objective)), self.process.noise
        if noise not in self.objective.processes:
            fitting = " or ".join(sorted(self.objective.processes))
            raise ValueError(
                f"objective {name!r} is for {fitting} noise, not for {noise!r}; change objective or process"
            )
        self._check_blocks(name)
        if isinstance(self.objective, Distillation) and self.teacher is None:
            raise ValueError(f"objective {name!r} is a distillation, but teacher is null; give a teacher")
        if self.teacher is not None and not isinstance(self.objective, Distillation):
            raise ValueError(f"objective {name!r} does not read a teacher; set teacher=null")

    def _check_blocks(self, name: str) -> None:
        """Raise ValueError unless objective, process and backbone agree on whether a row is noised block by block, and
        on the length of a block. `name`: the objective's registered name, for the message."""
        block, read = self.process.block_length(), self.backbone.required_block_size()
        if self.objective.in_blocks != (block is not None):
            wanted = "block_absorbing" if self.objective.in_blocks else "one that noises whole rows"
            raise ValueError(
                f"objective {name!r} does not fit process {parts.part_name(type(self.process))!r}; use {wanted},"
                " or another objective"
            )
        if block is not None and read != block:
            reads = "whole rows" if read is None else f"blocks of {read}"
            raise ValueError(
                f"the process noises blocks of {block} tokens, the backbone reads {reads}; give both the same block"
                " (backbone dit_blocks)"
            )

    def digest(self) -> str:
        """SHA-256 of the recipe in canonical JSON, without its name, so that renaming a recipe does not change it."""
        return parts.sha256(parts.to_json(self.pins()))

    def pins(self) -> dict:
        """The recipe as a JSON-like dict of all settings (its canonical form), without its name."""
        data = parts.canonical(self)
        del data["name"]
        return data

    def unfinished(self, step: int) -> str:
        """The text "step 39 of 900" if `step`, the number of steps a network was trained, is below the recipe's; else
        ""."""
        return f"step {step} of {self.steps}" if step < self.steps else ""

    @property
    def score(self) -> str:
        """Kind of likelihood bound that the training loss is, such as "truncated bound" (`Objective.score`)."""
        return self.objective.score

    def role(self) -> Role:
        """What the backbone needs to know to build its network: the data, the ids that are never a clean token (such as
        the mask), and the meaning of the output."""
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.objective.meaning)

    def network(self, seed: int) -> Denoiser:
        """The network at the start of training, with random or pretrained weights; `seed`: of the random ones."""
        return self._built(self.backbone, seed)

    def blank_network(self) -> Denoiser:
        """The network with random weights, into which other weights can then be loaded; pretrained weights are not
        downloaded."""
        return self._built(self.backbone.blank(), 0)

    def resumed_network(self) -> Denoiser:
        """The network into which the weights of a checkpoint are copied; frozen weights that checkpoints leave out are
        fetched."""
        return self._built(self.backbone.resumed(), 0)

    def _built(self, backbone: Backbone, seed: int) -> Denoiser:
        """The network of `backbone` (`seed`: of its random weights), using the faster float32 products of
        `repro.models.products`. Networks of released weights, whose numbers must agree with their authors' code, are
        built elsewhere (`repro.hub.release`) and use torch's products."""
        from repro.models.products import multiply_by_onednn

        return multiply_by_onednn(backbone.module(self.role(), seed))


@part
class TrainedTeacher(Teacher):
    """A teacher trained by `recipe` with the random `seed` for `steps` steps, once, when a distillation first needs it
    (small recipes only)."""

    recipe: Recipe
    seed: int
    steps: int


@part
class ReleasedTeacher(Teacher):
    """A teacher with released weights. `source`: a folder in the layout of the weights' authors, or a name on the Hub;
    `revision`: a commit, the SHA-256 of a folder's weights, or UNRESOLVED (any)."""

    source: str
    revision: str
