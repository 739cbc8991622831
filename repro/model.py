"""Load a model for sampling and scoring, from a checkpoint folder or by name.

load("runs/mdlm@nano-s0")            last checkpoint of a training run
load("mdlm@nano")                    run of recipe mdlm@nano in runs/mdlm@nano-s0, else its adapters in results/adapters
load("oracle:mdlm@nano")             exact denoiser (oracle) of the synthetic language of recipe mdlm@nano; needs no run
load("LLaDA-8B-Base")                local folder of released weights, in its authors' layout (repro.hub.release)
load("GSAI-ML/LLaDA-8B-Base")        released weights on the Hugging Face Hub, at the revision in evals/checkpoints.toml
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repro.core import devices, registry
from repro.core.arguments import checked
from repro.core.errors import nearest
from repro.core.files import ADAPTERS, runs
from repro.data import sources
from repro.data.corpus import UNRESOLVED, Data
from repro.data.exported import keep_tokenizer_of
from repro.hub import quantise
from repro.hub.catalogue import known, read
from repro.hub.gguf import gguf_folder
from repro.hub.release import Release, Template, is_release
from repro.models.backbone import Size
from repro.training.checkpoint import Checkpoint, Weights, open_checkpoint
from repro.training.exporting import exported_network, is_export, open_export
from repro.training.recipe import Recipe

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True)
class Model:
    """A loaded network, `denoiser`, with its recipe, or with a description (`Release`) if others published the weights.

    `weights`: "raw", "ema" (averaged), or "exact" for an oracle, the exact denoiser of a synthetic language. `digest`:
    SHA-256 that identifies the weights. `seed`, `step`: of the training run; 0 for oracles and releases.
    """

    recipe: Recipe | Release
    denoiser: Denoiser
    weights: Weights
    digest: str
    seed: int
    step: int
    data: Data
    """The recipe's data, with values in place of all placeholders (settings known only after a download)."""
    corpus: str | None
    """Digest of the prepared training data; None for an oracle and for a release."""
    folder: Path | None
    """Checkpoint folder; None for an oracle and for a release, whose records go to runs/NAME."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a text of released weights: EOS and ends of a turn; () for a checkpoint of ours."""

    @property
    def precision(self) -> str:
        """Precision of the weights: "float64" for an oracle, else "float32", "bfloat16" or "int8" (layers only)."""
        if self.weights == "exact":
            return "float64"
        if self.denoiser.quantised is not None:
            return self.denoiser.quantised
        return str(next(self.denoiser.parameters()).dtype).removeprefix("torch.")

    @property
    def unfinished(self) -> str:
        """`step 39 of 900` for a network whose training stopped before the last step of its recipe, else ""."""
        return self.recipe.unfinished(self.step) if isinstance(self.recipe, Recipe) else ""

    @property
    def unaveraged(self) -> str:
        """`raw weights` for the raw weights of a recipe that averages them, else ""."""
        averages = isinstance(self.recipe, Recipe) and self.recipe.ema is not None
        return "raw weights" if averages and self.weights == "raw" else ""

    def before_stop(self, ids: Sequence[int]) -> list[int]:
        """The generated ids before the first id that ends a text: EOS, or one of `stop_ids`."""
        ends = {*self.stop_ids, self.data.vocabulary().eos}
        return list(itertools.takewhile(lambda each: each not in ends, ids))

    def size(self) -> Size | None:
        """Parameter counts and widths that determine the cost of a forward pass; None for an oracle (no network)."""
        return None if self.weights == "exact" else self.recipe.backbone.size(self.data)


Precision = Literal["float32", "bfloat16", "int8"]


@checked
def load(
    ckpt: str | Path,
    weights: Literal["auto", "raw", "ema"] = "auto",
    precision: Precision = "float32",
    template: Template | Literal["auto"] = "auto",
    device: str | None = None,
) -> Model:
    """The model that `ckpt` names: a checkpoint folder (of a run or of one step), released weights (folder, Hub name or
    GGUF file), a recipe with a run, or an oracle.

    `device`: "cuda", "cuda:1", "mps" or "cpu"; None: the GPU if there is one (CUDA, then MPS), else the CPU; an oracle
    runs on the CPU unless `device` is given. `weights`: "auto" takes averaged weights if the checkpoint has them.
    `precision` and `template` (chat template of prompts; "auto": the one that evals/checkpoints.toml lists for the
    name, else none) are for released weights only. Raises ValueError for a missing, truncated or unsupported
    checkpoint, for an unknown name (with the most similar valid one) and for a device that this machine lacks;
    ConnectionError if the Hub cannot be reached.
    """
    if str(ckpt).startswith("oracle:"):
        from repro.recipes.scale import by_name

        recipe = by_name(str(ckpt))
        if weights != "auto":
            raise ValueError(f"{ckpt}: an oracle has no weights; leave out --weights {weights}")
        if precision != "float32":
            raise ValueError(f"{ckpt}: an oracle has no weights; leave out --precision {precision}")
        denoiser = recipe.network(0).eval()
        if device is not None:
            denoiser = denoiser.to(devices.device(device))
        return Model(recipe, denoiser, "exact", recipe.digest(), 0, 0, recipe.data, None, None)
    folder, name = _place(_run_of(ckpt) or ckpt)
    if is_release(folder):
        if weights == "ema":
            raise ValueError(
                f"{ckpt} holds one set of released weights, without a separate average; leave out --weights ema"
            )
        return _released(folder, name, precision, template, devices.device(device))
    _check_ours(ckpt, precision, template)
    if is_export(folder):
        return _exported(folder, weights, devices.device(device))
    return _trained(open_checkpoint(folder), weights, devices.device(device))


def _run_of(name: str | Path) -> Path | None:
    """For a recipe's name (RECIPE or RECIPE@SCALE): the folder of its run with seed 0, else that of its adapters in
    results/adapters; None for any other name, and if a file or folder is called `name`. Raises ValueError, which says
    how to train, if neither folder exists."""
    recipe, at, scale = str(name).partition("@")
    if recipe not in registry.RECIPES or Path(name).exists():
        return None
    own, released = runs() / f"{name}-s0", ADAPTERS / str(name)
    for folder in (own, released):
        if folder.is_dir():
            return folder
    train = f"python -m repro.recipes.{recipe}" + (f" --scale {scale}" if at else "")
    raise ValueError(f"recipe {name} has no run at {own}; train it ({train}), or give the folder of a run")


def local_folder(ckpt: str) -> Path:
    """The folder of a checkpoint on this machine: for a recipe's name that of its run or released adapters, for a GGUF
    file or a name of `repro.hub.packaged` the unpacked one, else the path `ckpt` itself. ValueError for a recipe
    without a run, and for a GGUF file that cannot be read or was not fetched."""
    return _run_of(ckpt) or gguf_folder(ckpt) or Path(ckpt)


def _check_ours(ckpt: str | Path, precision: Precision, template: Template | Literal["auto"]) -> None:
    """Raise ValueError if `precision` or `template`, which are for released weights only, are given with a checkpoint
    of this suite."""
    if template != "auto":
        raise ValueError(
            f"{ckpt} is a checkpoint of ours (trained by this suite), with prompts as in its training data; leave out"
            " --chat-template"
        )
    if precision != "float32":
        raise ValueError(
            f"{ckpt} is a checkpoint of ours, in float32 (trained by this suite); leave out --precision {precision}"
        )


def _exported(folder: Path, weights: Literal["auto", "raw", "ema"], device: str) -> Model:
    """The model of a folder that `python -m repro.checkpoint export` wrote; ValueError if the folder holds the raw
    weights and `weights` is "ema", or the reverse."""
    found = open_export(folder)
    if weights not in ("auto", found.weights):
        raise ValueError(f"{folder} holds {found.weights} weights; leave out --weights {weights}")
    keep_tokenizer_of(found.data, folder)
    return Model(
        recipe=found.made,
        denoiser=exported_network(folder, found).to(device),
        weights=found.weights,
        digest=found.digest,
        seed=found.seed,
        step=found.step,
        data=found.data,
        corpus=found.corpus,
        folder=None,
    )


def _place(ckpt: str | Path) -> tuple[Path, str | None]:
    """(local folder of a checkpoint, its name on the Hub or None for a local one); the folder is downloaded from the
    Hub, or unpacked from a GGUF file, if needed."""
    if Path(ckpt).is_dir():
        return Path(ckpt), None
    unpacked = gguf_folder(ckpt)
    if unpacked is not None:
        return unpacked, None
    text = str(ckpt)
    named = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text)
    if named is None or Path(ckpt).exists() or Path(text.partition("/")[0]).is_dir():
        return Path(ckpt), None
    entry = known(text)
    try:
        return sources.weights(text, UNRESOLVED if entry is None else entry.revision), text
    except ConnectionError:
        near = "" if entry is not None else f" ({nearest(text, read())})"
        raise ConnectionError(
            f"no folder {text}, and the Hub is out of reach (no network); copy its folder here and give the path{near}"
        ) from None


def _trained(checkpoint: Checkpoint, weights: Literal["auto", "raw", "ema"], device: str) -> Model:
    from repro.training.checkpoint import network

    chosen: Weights = ("ema" if checkpoint.has_ema else "raw") if weights == "auto" else weights
    denoiser = network(checkpoint, chosen).to(device)
    return Model(
        recipe=checkpoint.recipe,
        denoiser=denoiser,
        weights=chosen,
        digest=checkpoint.digest(chosen),
        seed=checkpoint.seed,
        step=checkpoint.step,
        data=checkpoint.data,
        corpus=checkpoint.corpus,
        folder=checkpoint.folder,
    )


def chat_template(name: str, wanted: Template | Literal["auto"]) -> Template:
    """The chat template `wanted`; for "auto" the one that evals/checkpoints.toml gives for the checkpoint `name`, or
    "none" if it gives none."""
    if wanted != "auto":
        return wanted
    entry = known(name)
    return "none" if entry is None or entry.template == "unknown" else entry.template


def _released(
    folder: Path, name: str | None, precision: Precision, template: Template | Literal["auto"], device: str
) -> Model:
    from repro.core.lazy import torch
    from repro.hub.release import fingerprint, network, open_release, stop_ids

    if precision == "int8":
        quantise.check()
    opened = open_release(folder, name, chat_template(name or folder.resolve().name, template))
    entries = read()
    entry = known(name or folder.resolve().name)
    if entry is not None and any(each.fingerprint != UNRESOLVED for each in entries.values()):
        entry.check(fingerprint(opened), entries)
    denoiser = network(opened, torch.float32 if precision == "float32" else torch.bfloat16)
    if precision == "int8":
        quantise.quantise(denoiser)
    turn = () if entry is None or not isinstance(entry.eot, int) else (entry.eot,)
    stops = dict.fromkeys((*stop_ids(folder, opened.release.data), *turn))
    return Model(
        stop_ids=tuple(stops),
        recipe=opened.release,
        denoiser=denoiser.to(device),
        weights="raw",
        digest=opened.digest(),
        seed=0,
        step=0,
        data=opened.release.data,
        corpus=None,
        folder=None,
    )
