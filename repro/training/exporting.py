"""Export of checkpoints to folders that other programs read: weights, configuration and tokenizer. The file
`repro.json` beside them says what the model is, so that this suite's `load` reads the folder as well.

    OUT/config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json  repro.json

Where transformers has the network (Llama and Qwen2 without learned positions, ModernBERT), config and tensor names are
transformers' own; for any other network the tensors have the names of this suite.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from repro.core import parts
from repro.core.files import EXPORT, file_digest
from repro.core.reading import foreign, read_json
from repro.data.corpus import Data
from repro.training.checkpoint import Checkpoint, Natural, Sha256, Weights
from repro.training.checkpoint import network as network_of
from repro.training.recipe import Recipe

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser

FORMAT = 1
OURS = "repro"
"""model_type in the config.json of a network that transformers does not have."""


class Exported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of repro.json. `format`: version of the file format; `recipe`: canonical form; `weights`: whether the raw
    or the averaged (ema) weights of the run were exported; `digest`: digest of the checkpoint with these weights
    (`Checkpoint.digest`), by which evaluation records name the model; `corpus`: digest of the prepared training data;
    `resolved`: dotted path -> value of the data's settings that are UNRESOLVED in the recipe; `file`: SHA-256 of
    model.safetensors."""

    format: int
    recipe: dict[str, Any]
    seed: Natural
    step: Natural
    weights: Literal["raw", "ema"]
    digest: Sha256
    corpus: Sha256
    resolved: dict[str, str | int]
    file: Sha256

    @property
    def made(self) -> Recipe:
        """The recipe, read from its canonical form; ValueError if this version of the suite cannot read it."""
        return parts.read(self.recipe, Recipe)

    @property
    def data(self) -> Data:
        """The recipe's data source; where it leaves a setting open (placeholder UNRESOLVED), with the value that the
        run found on the Hub or in the files (`resolved`)."""
        return parts.derive(self.made.data, dict(self.resolved))


def in_transformers(denoiser: Denoiser) -> bool:
    """Whether transformers has a class for the network, so that it can load the exported folder without this suite."""
    from repro.models.llama_network import LlamaDenoiser
    from repro.models.modernbert_network import ModernBertDenoiser

    return isinstance(denoiser, ModernBertDenoiser) or (
        isinstance(denoiser, LlamaDenoiser) and denoiser.place is None
    )


@contextmanager
def _without_bar() -> Generator[None]:
    """Context manager that hides transformers' progress bar for saving weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def write_weights(checkpoint: Checkpoint, weights: Weights, folder: Path) -> bool:
    """Write config.json, model.safetensors and repro.json for the raw or averaged `weights` of the checkpoint into
    `folder`; returns whether transformers has a class for the network. ValueError if `weights` is "ema" and the
    checkpoint has no averaged weights."""
    from safetensors.torch import save_file

    denoiser = network_of(checkpoint, weights)
    theirs = in_transformers(denoiser)
    if theirs:
        inner: Any = denoiser.network
        inner.config._attn_implementation = "sdpa"
        with _without_bar():
            inner.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: weight.detach().contiguous() for name, weight in denoiser.named_parameters()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = {"model_type": OURS, "architectures": [type(denoiser).__name__]}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    found = Exported(
        format=FORMAT,
        recipe=parts.canonical(checkpoint.recipe),
        seed=checkpoint.seed,
        step=checkpoint.step,
        weights="ema" if weights == "ema" else "raw",
        digest=checkpoint.digest(weights),
        corpus=checkpoint.corpus,
        resolved=dict(checkpoint.resolved),
        file=file_digest(folder / "model.safetensors"),
    )
    (folder / EXPORT).write_text(json.dumps(msgspec.to_builtins(found), indent=1) + "\n", "utf-8")
    return theirs


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `python -m repro.checkpoint export`."""
    return (folder / EXPORT).is_file()


def open_export(folder: Path) -> Exported:
    """The contents of repro.json in an exported folder; ValueError if that file is invalid, and if model.safetensors is
    missing or was changed."""
    found = read_json(folder / EXPORT, Exported)
    if found.format != FORMAT:
        raise ValueError(
            f"{folder / EXPORT} has format {found.format}, this code reads {FORMAT}; export the checkpoint again"
        )
    path = folder / "model.safetensors"
    if not path.is_file() or file_digest(path) != found.file:
        fault = f"was changed (its SHA-256 is not that in {EXPORT})" if path.is_file() else "is missing"
        raise ValueError(f"{path} {fault}; export the checkpoint again")
    return found


def exported_network(folder: Path, found: Exported) -> Denoiser:
    """The denoiser with the weights of an exported folder, in float32 and evaluation mode; `found`: the content of its
    repro.json. ValueError if names or shapes of tensors are not those of the recipe."""
    from safetensors.torch import load_file

    from repro.models.denoiser import copy_weights

    denoiser = found.made.blank_network()
    path = folder / "model.safetensors"
    with foreign(path, "safetensors file"):
        tensors = load_file(path)
    prefix = "network." if in_transformers(denoiser) else ""
    copy_weights(
        dict(denoiser.named_parameters()), {f"{prefix}{name}": t for name, t in tensors.items()}, str(path)
    )
    return denoiser.eval()
