"""Weights that others released, in a local folder of their authors' layout: config.json, tokenizer.json, safetensors.

    opened = open_release(folder)                  its configuration, and what becomes of each of its tensors
    denoiser = network(opened)                     filled one tensor at a time, float32 or bfloat16

Nothing in the folder is executed, and no pickle is read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repro.core import parts, registry
from repro.core.files import file_digest
from repro.core.parts import Part, part
from repro.data import sources
from repro.data.corpus import Data
from repro.data.released import Released, store_tokenizer
from repro.hub import layout as layouts
from repro.hub import mapping
from repro.hub.layout import Config, Layout
from repro.hub.mapping import StoredTensor
from repro.hub.templates import SEED, OwnChat, SeedChat, SeedReadme
from repro.models.backbone import Backbone, Role
from repro.processes.prediction import Meaning
from repro.processes.process import Process

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

    from repro.models.denoiser import Denoiser

Template = Literal["none", "own", "seed", "seed_readme"]
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
JINJA = "chat_template.jinja"


@part
class Release(Part):
    """What sampling and scoring need to know of released weights; how they were trained is not part of it.

    `score`: the kind of likelihood bound that their training loss is (`Objective.score`); `suite`: the evaluation suite
    by default.
    """

    name: str
    data: Data
    backbone: Backbone
    process: Process
    meaning: Meaning
    score: str
    suite: str

    def digest(self) -> str:
        """SHA-256 of the canonical form without the name, so that a renamed folder keeps its digest."""
        data = parts.canonical(self)
        del data["name"]
        return parts.sha256(parts.to_json(data))

    def role(self) -> Role:
        """What the backbone is built for."""
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.meaning)


@dataclass(frozen=True)
class Opened:
    """A folder of released weights; `tensors`: what becomes of each stored tensor; `blank`: its network, without memory
    for the weights (on the meta device)."""

    folder: Path
    layout: Layout
    release: Release
    tensors: list[StoredTensor]
    blank: Denoiser

    def digest(self) -> str:
        """SHA-256 of what the numbers depend on: the release and the bytes of every shard."""
        shards = [file_digest(self.folder / file) for file in files(self)]
        return parts.sha256(" ".join([self.release.digest(), *shards]))


def agree(opened: Opened, name: str, ours: Part, theirs: Part, free: Collection[str]) -> None:
    """ValueError that names the first pin in which a recipe's part `name` differs from the folder's; pins in `free`
    may.

    Equal tensor shapes are not enough: they show the widths, not what the network computes.
    """
    mine, given = parts.leaves(ours), parts.leaves(theirs)
    kinds = (name, registry.part_name(type(ours)), registry.part_name(type(theirs)))
    pins = ((f"{name}.{pin}", mine[pin], given.get(pin)) for pin in mine if pin not in free)
    for pin, own, other in (kinds, *pins):
        if own != other:
            raise ValueError(
                f"{opened.folder}: {pin} is {parts.to_json(own)} in the recipe and {parts.to_json(other)} in these"
                " weights; give those that belong to it"
            )


def fingerprint(opened: Opened) -> str:
    """SHA-256 of the weights' bytes in the order of their files, by which repro.hub.catalogue tells checkpoints of one
    configuration apart."""
    return sources.fingerprint([opened.folder / file for file in files(opened)])


def files(opened: Opened) -> list[str]:
    """Names of the files that hold the weights, in order."""
    return list(dict.fromkeys(tensor.file for tensor in opened.tensors))


def is_release(folder: Path) -> bool:
    """Whether a folder holds released weights rather than a training run of this suite."""
    return (folder / "config.json").is_file() and not (folder / "state.json").is_file()


def open_release(folder: Path, name: str | None = None, template: Template = "none") -> Opened:
    """Read what is in a folder, from configuration, tokenizer and tensor headers.

    `name`: what to call it (None: as the folder); `template`: chat template of its prompts. Raises ValueError in one
    line for what is missing, not supported, or does not fit together.
    """
    layout, backbone = layouts.recognise(folder)
    config = layouts.read_config(folder)
    release = Release(
        name=folder.resolve().name if name is None else name,
        data=_templated(folder, layout, _data(folder, layout, config), template),
        backbone=backbone,
        process=layout.process,
        meaning=layout.meaning,
        score=layout.score,
        suite="released",
    )
    blank = _blank(release)
    shapes = {name: tensor.shape for name, tensor in _weights(blank).items()}
    tensors = mapping.account(folder, layout.tensor_names, shapes, _tied(blank))
    return Opened(folder, layout, release, tensors, blank)


def network(opened: Opened, dtype: torch.dtype | None = None) -> Denoiser:
    """The denoiser with the folder's weights, in `dtype` (None: float32); peak memory is that of the network and of
    what is mapped of one shard."""
    import torch

    for parameter in opened.blank.parameters():
        if parameter.is_meta:
            empty = torch.empty(parameter.shape, dtype=dtype or torch.float32)
            torch.utils.swap_tensors(parameter, torch.nn.Parameter(empty))
    mapping.fill(opened.folder, opened.tensors, _weights(opened.blank))
    return opened.blank.eval()


def _weights(denoiser: Denoiser) -> dict[str, Tensor]:
    """What a folder has to fill: parameters (tied ones once) and persistent buffers."""
    saved = denoiser.state_dict().keys()
    buffers = {name: buffer for name, buffer in denoiser.named_buffers() if name in saved}
    return {**dict(denoiser.named_parameters()), **buffers}


def _tied(denoiser: Denoiser) -> dict[str, str]:
    """Further names of tied weights -> the name under which they are filled."""
    first = {id(parameter): name for name, parameter in denoiser.named_parameters()}
    every = denoiser.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in every if first[id(p)] != name}


def _blank(release: Release) -> Denoiser:
    """The network with parameters on the meta device and real buffers."""
    from accelerate import init_empty_weights
    from transformers import PreTrainedModel

    with init_empty_weights(include_buffers=False):
        denoiser = release.backbone.module(release.role(), 0)
    for module in denoiser.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()  # the meta device made a new parameter for each name
    return denoiser


def _data(folder: Path, layout: Layout, config: Config) -> Released:
    """Vocabulary and special ids; ValueError where tokenizer and network do not belong together."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy the tokenizer of these weights beside them")
    total, length = (_first(folder, config, fields) for fields in (layouts.VOCAB_SIZES, layouts.LENGTHS))
    try:
        json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is truncated or not a tokenizer; copy it again") from None
    tokenizer = Tokenizer.from_file(str(path))
    vocab_size = tokenizer.get_vocab_size()
    if vocab_size > total:
        raise ValueError(
            f"{path} has {vocab_size} ids, the network {total}; copy the tokenizer of these weights"
        )
    mask = _mask(path, layout, config, tokenizer, total)
    return Released(
        tokenizer_sha256=store_tokenizer(path),
        size=total - 1 if mask == total - 1 else total,
        total=total,
        mask=mask,
        bos=_special(folder, config, tokenizer, "bos"),
        eos=_special(folder, config, tokenizer, "eos"),
        pad=_special(folder, config, tokenizer, "pad"),
        length=length,
    )


def _templated(folder: Path, layout: Layout, data: Released, template: Template) -> Data:
    """The data with a chat template; ValueError where the folder has none, or lacks a token that the template needs."""
    if template == "none":
        return data
    config = _tokenizer_config(folder)
    if template == "own":
        file = folder / JINJA
        text = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
        if not isinstance(text, str):
            raise ValueError(
                f"{folder / TOKENIZER_CONFIG} has no chat_template, and there is no {JINJA}; use --chat-template none"
            )
        causal = layout.process.causal
        return OwnChat(
            data=data, template=text, bos="" if causal else _token(config, "bos"), eos=_token(config, "eos")
        )
    sep, cls = _token(config, "sep"), _token(config, "cls")
    (*rest, begin), one = data.encode(cls) if cls else [-1, -1], data.encode(sep) if sep else []
    if not sep or not cls or rest or len(one) != 1:
        raise ValueError(
            f"{folder / TOKENIZER_CONFIG} has no sep_token or no cls_token; use --chat-template none"
        )
    if template == "seed_readme":
        return SeedReadme(data=data, template=SEED, sep=sep)
    return SeedChat(data=data, template=SEED, cls=begin, sep=sep)


def _token(config: Config, kind: str) -> str:
    """The text of a special token in tokenizer_config.json; empty where there is none."""
    token = config.get(f"{kind}_token")
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _first(folder: Path, config: Config, fields: Sequence[str]) -> int:
    """The first of several fields that config.json has; ValueError where it has none."""
    for field in fields:
        if config.get(field) is not None:
            return layouts.positive(folder / "config.json", config, field)
    raise ValueError(
        f"{folder / 'config.json'} lacks {fields[-1]!r}; copy the configuration of these weights"
    )


def _mask(path: Path, layout: Layout, config: Config, tokenizer: Tokenizer, total: int) -> int | None:
    if layout.mask is None:
        return None
    mask = total - 1 if layout.mask == "last" else config.get(layout.mask, tokenizer.token_to_id(layout.mask))
    if mask is None or not 0 <= mask < total:
        raise ValueError(
            f"{path}: no id below {total} for the mask {layout.mask!r}; add it to config.json or to the tokenizer"
        )
    return mask


def _special(folder: Path, config: Config, tokenizer: Tokenizer, kind: str) -> int | None:
    """A special id (the first where there are several): from config.json, else from tokenizer_config.json."""
    value = config.get(f"{kind}_token_id")
    if value is None:
        content = _token(_tokenizer_config(folder), kind)
        return tokenizer.token_to_id(content) if content else None
    return value[0] if isinstance(value, list) else value


def _tokenizer_config(folder: Path) -> Config:
    """tokenizer_config.json; empty where there is none."""
    path = folder / TOKENIZER_CONFIG
    return layouts.read_json(path) if path.is_file() else {}


def table(tensors: Sequence[StoredTensor]) -> list[str]:
    """One line a tensor (name, shape, dtype, and our name or why it is ignored), and a line of totals."""
    lines = [
        f"{tensor.name}  {'x'.join(map(str, tensor.shape)) or 'scalar'} {tensor.dtype}  "
        + (f"-> {tensor.ours}" if tensor.ours is not None else f"ignored: {tensor.reason}")
        for tensor in tensors
    ]
    used, files = sum(tensor.ours is not None for tensor in tensors), {tensor.file for tensor in tensors}
    total = f"{len(tensors)} tensors in {len(files)} files: {used} used, {len(tensors) - used} ignored"
    return [*lines, total]
