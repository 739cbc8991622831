"""Load a model for sampling and scoring, from a checkpoint folder or by name.

load("runs/mdlm@nano-s0")            the last checkpoint of a run
load("oracle:mdlm@nano")             the exact denoiser of that recipe's language; there is no file
load("LLaDA-8B-Base")                a local folder in its authors' layout (repro.hub.release)
load("GSAI-ML/LLaDA-8B-Base")        by its name on the Hub, at the revision of evals/checkpoints.toml
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repro.core.errors import nearest
from repro.data import sources
from repro.data.corpus import UNRESOLVED, Data
from repro.hub import quantise
from repro.hub.catalogue import known, read
from repro.hub.release import Release, Template, is_release
from repro.models.backbone import Size
from repro.training.checkpoint import Checkpoint, Weights, open_checkpoint
from repro.training.recipe import Recipe

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True)
class Model:
    """A network with its recipe or release; `weights`: raw, averaged (ema), or exact for an oracle."""

    recipe: Recipe | Release
    denoiser: Denoiser
    weights: Weights
    digest: str
    seed: int
    step: int
    data: Data
    """The recipe's data with every pin resolved."""
    corpus: str | None
    """Digest of the prepared training data; None for an oracle and for a release."""
    folder: Path | None
    """Checkpoint folder; None for an oracle and for a release, whose records go to runs/NAME."""

    @property
    def precision(self) -> str:
        """Precision of the weights: float64 for an oracle, else float32, bfloat16 or int8 (layers only)."""
        if self.weights == "exact":
            return "float64"
        if self.denoiser.quantised is not None:
            return self.denoiser.quantised
        return str(next(self.denoiser.parameters()).dtype).removeprefix("torch.")

    def size(self) -> Size | None:
        """Sizes that determine the cost of a forward; None for an oracle, which has no network."""
        return None if self.weights == "exact" else self.recipe.backbone.size(self.data)


Precision = Literal["float32", "bfloat16", "int8"]


def load(
    ckpt: str | Path,
    weights: Literal["auto", "raw", "ema"] = "auto",
    precision: Precision = "float32",
    template: Template | Literal["auto"] = "auto",
) -> Model:
    """Load a checkpoint folder (run or step), released weights or an oracle by name, on the best device.

    `weights`: auto takes averaged weights if the recipe has them. `precision` and `template` (the chat template of
    prompts; auto: as evals/checkpoints.toml has it for the name, else none) are for released weights only.
    Raises ValueError for a missing, truncated or foreign checkpoint, and for an unknown name (with the nearest one);
    ConnectionError if the Hub cannot be reached.
    """
    if str(ckpt).startswith("oracle:"):
        from repro.recipes.scale import by_name

        recipe = by_name(str(ckpt))
        if weights != "auto":
            raise ValueError(f"an oracle has no weights; leave out --weights {weights}")
        if precision != "float32":
            raise ValueError(f"an oracle has no weights; leave out --precision {precision}")
        denoiser = recipe.network(0).eval()
        return Model(recipe, denoiser, "exact", recipe.digest(), 0, 0, recipe.data, None, None)
    folder, name = _place(ckpt)
    if is_release(folder):
        if weights == "ema":
            raise ValueError(f"{ckpt} holds one set of released weights; leave out --weights ema")
        return _released(folder, name, precision, template)
    if template != "auto":
        raise ValueError(
            f"{ckpt} is a checkpoint of ours, whose data has its template; leave out --chat-template"
        )
    if precision != "float32":
        raise ValueError(f"{ckpt} is a checkpoint of ours, in float32; leave out --precision {precision}")
    return _trained(open_checkpoint(Path(ckpt)), weights)


def _place(ckpt: str | Path) -> tuple[Path, str | None]:
    """The folder of a checkpoint and, if it is from the Hub, its name there."""
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
            f"no folder {text}, and the Hub is out of reach (no network); copy its folder here and give that{near}"
        ) from None


def _trained(checkpoint: Checkpoint, weights: Literal["auto", "raw", "ema"]) -> Model:
    from repro.training.checkpoint import network

    chosen: Weights = ("ema" if checkpoint.has_ema else "raw") if weights == "auto" else weights
    denoiser = network(checkpoint, chosen).to(_device())
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
    """The chat template `wanted`; auto: that of the checkpoint of this name in evals/checkpoints.toml, else none."""
    if wanted != "auto":
        return wanted
    entry = known(name)
    return "none" if entry is None or entry.template == "unknown" else entry.template


def _released(
    folder: Path, name: str | None, precision: Precision, template: Template | Literal["auto"]
) -> Model:
    from repro.core.lazy import torch
    from repro.hub.release import fingerprint, network, open_release

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
    return Model(
        recipe=opened.release,
        denoiser=denoiser.to(_device()),
        weights="raw",
        digest=opened.digest(),
        seed=0,
        step=0,
        data=opened.release.data,
        corpus=None,
        folder=None,
    )


def take_device() -> None:
    """Under a launcher, use the GPU of this process's local rank, modulo the number of GPUs."""
    from repro.core.lazy import torch

    if "LOCAL_RANK" in os.environ and _device() == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def _device() -> str:
    from repro.core.lazy import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
