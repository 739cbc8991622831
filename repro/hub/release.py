"""Weights that others released, in a local folder of their authors' layout: config.json, tokenizer.json, safetensors.

    opened = open_release(folder)                  configuration, and which parameter each stored tensor fills
    denoiser = network(opened)                     the network with these weights, in float32 or bfloat16

Nothing in the folder is executed, and no pickle is read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repro.core import parts
from repro.core.files import EXPORT, file_digest
from repro.core.parts import Part, part
from repro.core.reading import read_json, read_text
from repro.data import sources
from repro.data.corpus import Data
from repro.data.released import Released, read_tokenizer, store_tokenizer
from repro.hub import layout as layouts
from repro.hub import mapping
from repro.hub.layout import Config, Layout
from repro.hub.mapping import StoredTensor
from repro.hub.templates import SEED, OwnChat, SeedChat, SeedReadme
from repro.models.backbone import Backbone
from repro.processes.prediction import Meaning, Role
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
    """Description of released weights for sampling and scoring; unlike a recipe, it has no training settings.

    `data`: tokenizer and vocabulary; `process`: noise process of the weights' training; `meaning`: what the network's
    output estimates (`repro.processes.prediction`); `score`: the kind of likelihood bound that the weights' training
    loss is (`Objective.score`); `suite`: name of the default evaluation suite.
    """

    name: str
    data: Data
    backbone: Backbone
    process: Process
    meaning: Meaning
    score: str
    suite: str

    def digest(self) -> str:
        """SHA-256 of this description in canonical JSON, without its name, so that renaming the folder of the weights
        does not change it."""
        data = parts.canonical(self)
        del data["name"]
        return parts.sha256(parts.to_json(data))

    def role(self) -> Role:
        """What the backbone needs to know to build its network: the data, the ids that are never a clean token (such as
        the mask), and the meaning of the output."""
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.meaning)


@dataclass(frozen=True)
class Opened:
    """A folder of released weights of which all but the weights has been read. `layout`: how folders of the family are
    read; `release`: network, tokenizer and noise process of the weights; `tensors`: each stored tensor with the
    parameter that it fills; `blank`: the network with its parameters on torch's meta device, where they take no
    memory."""

    folder: Path
    layout: Layout
    release: Release
    tensors: list[StoredTensor]
    blank: Denoiser

    def digest(self) -> str:
        """SHA-256 of everything in the folder that results depend on: the digest of the release, and the bytes of every
        weights file."""
        shards = [file_digest(self.folder / file) for file in files(self)]
        return parts.sha256(" ".join([self.release.digest(), *shards]))


def agree(opened: Opened, name: str, ours: Part, theirs: Part, free: Collection[str]) -> None:
    """Raise ValueError for the first setting in which a recipe's part `ours` differs from `theirs`, the corresponding
    part of the opened folder. `name`: the part's field in the recipe, such as "backbone". Settings named in `free` may
    differ; if `free` contains `name`, the class of the part may differ too.

    Comparing tensor shapes would not be enough: shapes show widths, but not the computation (such as the epsilon of
    norms).
    """
    mine, given = parts.leaves(ours), parts.leaves(theirs)
    kinds = (name, parts.part_name(type(ours)), parts.part_name(type(theirs)))
    pins = ((f"{name}.{pin}", mine[pin], given.get(pin)) for pin in mine if pin not in free)
    for pin, own, other in (kinds, *pins):
        if own != other and pin not in free:
            raise ValueError(
                f"{opened.folder}: {pin} is {parts.to_json(own)} in the recipe and {parts.to_json(other)} in these"
                " weights; give weights trained with the recipe's value, or change the recipe"
            )


def fingerprint(opened: Opened) -> str:
    """SHA-256 of the bytes of all weights files of the opened folder, sorted by name and concatenated, by which
    `repro.hub.catalogue` tells checkpoints of the same configuration apart."""
    return sources.fingerprint([opened.folder / file for file in files(opened)])


def files(opened: Opened) -> list[str]:
    """Names of the safetensors files that hold the weights of an opened folder, sorted."""
    return list(dict.fromkeys(tensor.file for tensor in opened.tensors))


def is_release(folder: Path) -> bool:
    """Whether a folder holds weights that others released (a config.json) rather than a checkpoint of this suite
    (a state.json) or its exported weights (a repro.json)."""
    ours = (folder / "state.json").is_file() or (folder / EXPORT).is_file()
    return os.path.lexists(folder / "config.json") and not ours


def open_release(folder: Path, name: str | None = None, template: Template = "none") -> Opened:
    """Open a folder of released weights: read its configuration, its tokenizer and the headers of its tensors.

    `name`: name of the release (None: that of the folder); `template`: chat template of its prompts, "none", "own" (the
    tokenizer's), "seed" or "seed_readme" (two of tom-pollak/dllm; `repro.hub.templates`). Raises ValueError,
    with a one-line message, if a file is missing, the network is not supported, or config.json, tokenizer and tensors
    do not belong together.
    """
    layout, backbone = layouts.recognise(folder)
    config = layouts.read_config(folder)
    release = Release(
        name=folder.resolve().name if name is None else name,
        data=_templated(folder, layout, _data(folder, layout, config), template),
        backbone=backbone,
        process=layout.process_of(backbone),
        meaning=layout.meaning,
        score=layout.score,
        suite="released",
    )
    blank = unfilled(release.backbone, release.role())
    shapes = {name: tensor.shape for name, tensor in _weights(blank).items()}
    tensors = mapping.account(folder, layout.tensor_names, shapes, _tied(blank))
    return Opened(folder, layout, release, tensors, blank)


def network(opened: Opened, dtype: torch.dtype | None = None) -> Denoiser:
    """The denoiser with the weights of the opened folder, in `dtype` (None: float32), in evaluation mode.

    Peak memory is that of the network and of the mapped pages of one safetensors file.
    """
    return fill(opened, opened.blank, dtype).eval()


def fill(opened: Opened, denoiser: Denoiser, dtype: torch.dtype | None = None) -> Denoiser:
    """The network `denoiser` (made by `unfilled`, so without memory for its weights), filled in place with the weights
    of the opened folder in `dtype` (None: float32)."""
    import torch

    for parameter in denoiser.parameters():
        if parameter.is_meta:
            empty = torch.empty(parameter.shape, dtype=dtype or torch.float32)
            torch.utils.swap_tensors(parameter, torch.nn.Parameter(empty))
    mapping.fill(opened.folder, opened.tensors, _weights(denoiser))
    return denoiser


def _weights(denoiser: Denoiser) -> dict[str, Tensor]:
    """Name -> tensor for all that released weights fill in a network: its parameters (a tied parameter under its first
    name only) and its persistent buffers."""
    saved = denoiser.state_dict().keys()
    buffers = {name: buffer for name, buffer in denoiser.named_buffers() if name in saved}
    return {**dict(denoiser.named_parameters()), **buffers}


def _tied(denoiser: Denoiser) -> dict[str, str]:
    """Second name -> first name of each tied parameter of a network (a parameter that two modules share)."""
    first = {id(parameter): name for name, parameter in denoiser.named_parameters()}
    every = denoiser.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in every if first[id(p)] != name}


def unfilled(backbone: Backbone, role: Role) -> Denoiser:
    """The network that `backbone` builds, with its parameters on torch's meta device (they take no memory and are not
    initialised) and its buffers computed. `role`: vocabulary of the network, and what its output estimates."""
    from accelerate import init_empty_weights
    from transformers import PreTrainedModel

    with init_empty_weights(include_buffers=False):
        denoiser = backbone.module(role, 0)
    for module in denoiser.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()  # the meta device made a new parameter for each name
    return denoiser


def _data(folder: Path, layout: Layout, config: Config) -> Released:
    """The tokenizer, vocabulary size, special ids and longest row of a folder, from its tokenizer files and `config`,
    the fields of its config.json; ValueError if one is missing or invalid, or if the tokenizer has more ids than the
    network."""
    path = folder / TOKENIZER
    total, length = (_first(folder, config, fields) for fields in (layouts.VOCAB_SIZES, layouts.LENGTHS))
    tokenizer = read_tokenizer(path)
    vocab_size = tokenizer.get_vocab_size()
    if vocab_size > total:
        raise ValueError(
            f"{path} has {vocab_size} ids, more than the network's {total}; copy the tokenizer of these weights there"
        )
    mask = _mask(path, layout, config, tokenizer, total)
    return Released(
        tokenizer_sha256=store_tokenizer(path),
        size=total - 1 if mask == total - 1 else total,
        total=total,
        mask=mask,
        bos=_special(folder, config, tokenizer, "bos", total),
        eos=_special(folder, config, tokenizer, "eos", total),
        pad=_special(folder, config, tokenizer, "pad", total),
        length=length,
    )


def _templated(folder: Path, layout: Layout, data: Released, template: Template) -> Data:
    """`data` with prompts written in the chat template that `template` names: "none", "own" (the tokenizer's), "seed"
    or "seed_readme" (`repro.hub.templates`).

    Raises ValueError if the folder has no chat template ("own"), or lacks a special token that the template needs.
    """
    if template == "none":
        return data
    config = _tokenizer_config(folder)
    if template == "own":
        file = folder / JINJA
        text = read_text(file) if file.is_file() else config.get("chat_template")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{folder / TOKENIZER_CONFIG} has no chat_template, and there is no {JINJA}; use --chat-template none"
            )
        added = (
            layout.process.causal and data.vocabulary().bos_rule == "text"
        )  # the tokenizer puts it in front
        bos = "" if added else _token(config, "bos")
        return OwnChat(data=data, template=text, bos=bos, eos=_token(config, "eos"))
    sep, cls = _token(config, "sep"), _token(config, "cls")
    (*rest, begin), one = data.encode(cls) if cls else [-1, -1], data.encode(sep) if sep else []
    if not sep or not cls or rest or len(one) != 1:
        raise ValueError(
            f"{folder / TOKENIZER_CONFIG} has sep_token {sep or None!r} and cls_token {cls or None!r}, but the chat"
            " template needs both, each with one id; use --chat-template none"
        )
    if template == "seed_readme":
        return SeedReadme(data=data, template=SEED, sep=sep)
    return SeedChat(data=data, template=SEED, cls=begin, sep=sep)


def _token(config: Config, kind: str) -> str:
    """The text of the special token `kind` ("bos", "eos", ...) in the fields of a tokenizer_config.json, `config`;
    empty if there is none. ValueError for a token that is no text."""
    token = config.get(f"{kind}_token")
    found = token.get("content", token) if isinstance(token, dict) else token
    if not isinstance(found, str | None):
        raise ValueError(
            f"{kind}_token in {TOKENIZER_CONFIG} of these weights is {token!r}, not a text; copy that file again"
        )
    return found or ""


def _first(folder: Path, config: Config, fields: Sequence[str]) -> int:
    """The value of the first of `fields` that config.json has; ValueError if it has none of them."""
    for field in fields:
        if config.get(field) is not None:
            return layouts.positive(folder / "config.json", config, field)
    raise ValueError(
        f"{folder / 'config.json'} lacks {fields[-1]!r}; copy the configuration of these weights"
    )


def _mask(path: Path, layout: Layout, config: Config, tokenizer: Tokenizer, total: int) -> int | None:
    if layout.mask is None:
        return None
    if layout.mask == "last":
        return total - 1
    found = {layout.mask: config.get(layout.mask, tokenizer.token_to_id(layout.mask))}
    ids = layouts.token_ids(path.with_name("config.json"), found, layout.mask, total)
    if len(ids) != 1:
        raise ValueError(
            f"{path.parent}: no single mask id as {layout.mask!r} in config.json or {path.name}; add it to one of them"
        )
    return ids[0]


def _special(folder: Path, config: Config, tokenizer: Tokenizer, kind: str, total: int) -> int | None:
    """The id of the special token `kind` ("bos", "eos", "pad"), the first if there are several, or None: from
    config.json, else from tokenizer_config.json."""
    ids = layouts.token_ids(folder / "config.json", config, f"{kind}_token_id", total)
    if ids:
        return ids[0]
    content = _token(_tokenizer_config(folder), kind)
    found = tokenizer.token_to_id(content) if content else None
    if content and found is None:
        raise ValueError(
            f"{folder / TOKENIZER_CONFIG}: {kind}_token is {content!r}, which is no token of {TOKENIZER}; correct it"
        )
    return found


def stop_ids(folder: Path, data: Data) -> tuple[int, ...]:
    """Token ids at which a text generated with the weights in `folder` ends: EOS, and the `eos_token_id` of
    generation_config.json (for example ends of a turn). ValueError if the mask is one of them."""
    path = folder / "generation_config.json"
    vocabulary, config = data.vocabulary(), _optional(path)
    named = layouts.token_ids(path, config, "eos_token_id", vocabulary.total)
    ids = tuple(dict.fromkeys((*(() if vocabulary.eos is None else (vocabulary.eos,)), *named)))
    if vocabulary.mask in ids:
        file = path.name if vocabulary.mask in named else "config.json"
        raise ValueError(
            f"{path.parent}: the mask's id {vocabulary.mask} is also an id that ends texts; correct eos_token_id in"
            f" {file}"
        )
    return ids


def _tokenizer_config(folder: Path) -> Config:
    """The fields of a folder's tokenizer_config.json; empty if the folder has none."""
    return _optional(folder / TOKENIZER_CONFIG)


def _optional(path: Path) -> Config:
    """The JSON object in the file `path`; an empty dict if there is no such file."""
    return read_json(path, dict) if os.path.lexists(path) else {}


def table(tensors: Sequence[StoredTensor]) -> list[str]:
    """Lines of text: one per stored tensor (name, shape, dtype, and the parameter that it fills or why it is ignored),
    and one of totals."""
    lines = [
        f"{tensor.name}  {'x'.join(map(str, tensor.shape)) or 'scalar'} {tensor.dtype}  "
        + (f"-> {tensor.ours}" if tensor.ours is not None else f"ignored: {tensor.reason}")
        for tensor in tensors
    ]
    used, files = sum(tensor.ours is not None for tensor in tensors), {tensor.file for tensor in tensors}
    total = f"{len(tensors)} tensors in {len(files)} files: {used} used, {len(tensors) - used} ignored"
    return [*lines, total]
