"""Training checkpoints: folders of safetensors and JSON, each written atomically.

    DIR/step_00002300/   model.safetensors  optimizer.safetensors  ema.safetensors (with `ema`)  state.json
                         teacher.safetensors (of a distillation)

`state.json` holds the recipe in canonical JSON, seed, step, the digest of the data and the SHA-256 of every file, so
that a truncated or exchanged file is noticed. No pickle is ever read.

The commands that show, export, convert and compare checkpoints are in `repro.checkpoint`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from repro.core import parts
from repro.core.errors import nearest
from repro.core.files import EXPORT, atomically, file_digest, remove
from repro.core.reading import foreign, read_json
from repro.data.corpus import Data
from repro.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

FORMAT = 1
Weights = Literal["raw", "ema", "exact"]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Contents of state.json. `format`: version of the file format; `recipe`: the recipe in canonical JSON; `data`:
    digest of the prepared training data; `seed`: random seed of the run; `step`: optimizer steps done; `resolved`,
    `files` and `base`: as in `Checkpoint`."""

    format: int
    recipe: dict[str, Any]
    seed: Natural
    step: Natural
    data: Sha256
    resolved: dict[str, str | int]
    files: dict[str, Sha256]
    base: Sha256 | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder; the SHA-256 of each file is verified when it is read.

    `step`: number of optimizer steps done; `corpus`: digest of the prepared training data; `resolved`: values, by
    dotted path, of those settings of the data that the recipe leaves open (placeholder UNRESOLVED) because only the Hub
    knows them (revisions, row counts); `files`: SHA-256 by file name; `base`: SHA-256 of the frozen weights that the
    files leave out (`Denoiser.base_digest`), None if there are none.
    """

    folder: Path
    recipe: Recipe
    seed: int
    step: int
    corpus: str
    resolved: dict[str, str | int]
    files: dict[str, str]
    base: str | None = None

    @property
    def data(self) -> Data:
        """The recipe's data source; where it leaves a setting open (placeholder UNRESOLVED), with the value that the
        run found on the Hub or in the files (`resolved`)."""
        return parts.derive(self.recipe.data, dict(self.resolved))

    @property
    def mark(self) -> str:
        """Text to be shown after the run's name: " (step 39 of 900)" for a checkpoint before the recipe's last step, ""
        for one at the last step."""
        unfinished = self.recipe.unfinished(self.step)
        return f" ({unfinished})" if unfinished else ""

    @property
    def has_ema(self) -> bool:
        """Whether the checkpoint holds averaged weights."""
        return "ema.safetensors" in self.files

    def digest(self, weights: Weights) -> str:
        """SHA-256 of all that results of the model depend on: recipe, resolved settings, step, the bytes of the file
        with the `weights` ("raw" or "ema"), and frozen weights."""
        file = "ema.safetensors" if weights == "ema" else "model.safetensors"
        known = parts.to_json(self.resolved) if self.resolved else ""
        return parts.sha256(f"{self.recipe.digest()} {self.step} {self.files[file]}{known}{self.base or ''}")

    def check_base(self, denoiser: Denoiser) -> None:
        """Raise ValueError unless the frozen weights of `denoiser` are those with which the checkpoint's adapters were
        trained (by their SHA-256, `base`)."""
        if denoiser.base_digest != self.base:
            raise ValueError(
                f"{self.folder} holds adapters of frozen weights with SHA-256 {str(self.base)[:12]}, but those found"
                f" have {str(denoiser.base_digest)[:12]}; restore the weights with which the adapters were trained"
            )

    def tensors(self, file: str) -> dict[str, Tensor]:
        """Name -> tensor of the file called `file` in the checkpoint; ValueError if it is missing, or if its SHA-256
        differs from the recorded one."""
        from safetensors.torch import load_file

        path = self.folder / file
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: this checkpoint is incomplete; copy its folder again from its source"
            )
        if file_digest(path) != self.files[file]:
            raise ValueError(
                f"{path} is truncated or changed (its SHA-256 differs from state.json); copy it again from its source"
            )
        with foreign(path, "safetensors file"):
            return load_file(path)

    def copy(self, file: str, into: Mapping[str, Tensor]) -> None:
        """Copy the tensors of the file called `file` into those of the same name in `into` (name -> tensor); ValueError
        if names or shapes differ."""
        from repro.models.denoiser import copy_weights

        copy_weights(into, self.tensors(file), str(self.folder / file))

    def optimizer(self, file: str, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Optimizer state in the file called `file`: name of the weight -> field ("exp_avg", ...) -> tensor. `weights`:
        name -> tensor of the weights that the optimizer updates; the state is sharded as these are.

        Raises ValueError for a state whose weight is not in `weights` or has another shape.
        """
        from repro.models.denoiser import local_part

        state: dict[str, dict[str, Tensor]] = {}
        for key, tensor in self.tensors(file).items():
            name, _, field = key.partition("|")
            fits = name in weights and tensor.shape in ((), (1,), weights[name].shape)
            if not fits:
                raise ValueError(
                    f"{self.folder}: optimizer state {key!r} does not fit the recipe's backbone; copy this checkpoint"
                    " again from its source"
                )
            whole = tensor.shape == weights[name].shape  # else a number, such as Adam's count of steps
            state.setdefault(name, {})[field] = (
                local_part(tensor, weights[name]) if whole else tensor.reshape(())
            )
        return state


def save(
    folder: Path,
    recipe: Recipe,
    seed: int,
    step: int,
    corpus: str,
    resolved: Mapping[str, str | int],
    files: Mapping[str, Mapping[str, Tensor] | Path],
    base: str | None = None,
) -> Path:
    """Write a checkpoint of `recipe` atomically under the run folder `folder`; returns the new step folder.

    `seed`: random seed of the run; `step`: optimizer steps done; `corpus`: digest of the prepared training data;
    `resolved`: dotted path -> value of the data's settings that are UNRESOLVED in the recipe; `files`: file name ->
    tensors to be written (by name), or the path of a finished file to be moved into the folder; `base`: SHA-256 of
    frozen weights that the files leave out, None if there are none.
    """
    from safetensors.torch import save_file

    target = folder / f"step_{step:08d}"
    if target.is_dir() and not (target / "state.json").is_file():
        remove(target)  # of an incomplete copy of the run folder: `save` itself leaves none
    with atomically(target) as temporary:
        temporary.mkdir(parents=True)
        digests = {}
        for name, tensors in files.items():
            if isinstance(tensors, Path):
                shutil.move(tensors, temporary / name)
            else:
                save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, temporary / name)
            digests[name] = file_digest(temporary / name)
        state = _State(
            format=FORMAT,
            recipe=parts.canonical(recipe),
            seed=seed,
            step=step,
            data=corpus,
            resolved=dict(resolved),
            files=digests,
            base=base,
        )
        (temporary / "state.json").write_text(
            json.dumps(msgspec.to_builtins(state), indent=1) + "\n", "utf-8"
        )
    return target


def steps_in(folder: Path) -> list[Path]:
    """The folders of a run's complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step_*") if (p / "state.json").is_file())


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a step folder, or the last one of a run folder; ValueError if `path` is neither."""
    if not path.exists():
        beside = (
            [each.name for each in path.parent.glob("*") if each.is_dir()] if path.parent.is_dir() else []
        )
        near = nearest(path.name, beside)
        near = f"; {near}" if near.startswith("nearest") else ""
        raise ValueError(
            f"no checkpoint at {path}: no such folder{near}; give the --out folder of a training run"
        )
    if path.is_file():
        raise ValueError(
            f"{path} is a file, but a checkpoint is a folder with state.json and safetensors files; give the folder"
        )
    folder = path if (path / "state.json").is_file() else next(reversed(steps_in(path)), None)
    if folder is None:
        foreign = [p.name for p in path.iterdir() if p.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl")]
        if foreign:
            raise ValueError(
                f"{path / foreign[0]} is a pickle; only safetensors are read: see python -m repro.checkpoint convert"
            )
        if (path / EXPORT).is_file():
            raise ValueError(
                f"{path} was written by `checkpoint export` and is no run; give the run that was exported"
            )
        raise ValueError(
            f"no checkpoint in {path}: no step_* folder with a state.json, and no config.json of released weights; give"
            " the --out folder of a training run, or copy the released weights again from their source"
        )
    path = folder / "state.json"
    state = read_json(path, _State)
    if state.format != FORMAT:
        raise ValueError(
            f"{path} has format {state.format}, this code reads {FORMAT}; use the release of the package that wrote it"
        )
    if "model.safetensors" not in state.files:
        raise ValueError(f"{path} lists no 'model.safetensors'; copy this checkpoint again from its source")
    try:
        recipe = parts.read(state.recipe, Recipe)
    except ValueError as error:
        raise ValueError(f"the recipe in {path} cannot be read ({error})") from None
    known = (state.seed, state.step, state.data, state.resolved, state.files, state.base)
    return Checkpoint(folder, recipe, *known)


def network(checkpoint: Checkpoint, weights: Weights) -> Denoiser:
    """The denoiser with the checkpoint's raw or averaged weights, in float32 and evaluation mode.

    Adapters are merged into the weights that they change. Raises ValueError if `weights` is "ema" and the checkpoint
    has no averaged weights, and if its adapters were trained on other frozen weights than those that are found here.
    """
    from repro.models.denoiser import trained_parameters

    if weights == "ema" and not checkpoint.has_ema:
        raise ValueError(f"{checkpoint.folder} holds no averaged weights; use --weights raw")
    denoiser = checkpoint.recipe.resumed_network()
    checkpoint.check_base(denoiser)
    file = "ema.safetensors" if weights == "ema" else "model.safetensors"
    checkpoint.copy(file, trained_parameters(denoiser))
    return denoiser.merged().eval()
