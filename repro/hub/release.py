"""Weights that someone released, in their authors' own layout: a local folder with config.json, tokenizer.json and
safetensors, whole or in shards.

    released = open_release(folder)                what it is, and what becomes of each of its tensors
    denoiser = network(released)                   filled one tensor at a time, float32 or bfloat16

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
from repro.data.released import Released, keep
from repro.hub import layouts, mapping
from repro.hub.configs import Config
from repro.hub.layouts import Layout
from repro.hub.mapping import Entry
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
TOKENIZER, WORDS = "tokenizer.json", "tokenizer_config.json"
JINJA = "chat_template.jinja"


@part
class Release(Part):
    """What must be known of released weights to sample and to score them; how they were trained is not ours to say.

    `score`: what their training loss was, in the words of objectives; `suite`: what they are scored on.
    """

    name: str
    data: Data
    backbone: Backbone
    process: Process
    meaning: Meaning
    score: str
    suite: str

    def digest(self) -> str:
        """SHA-256 of the canonical form without the name, which is the folder's."""
        data = parts.canonical(self)
        del data["name"]
        return parts.sha256(parts.to_json(data))

    def role(self) -> Role:
        return Role(self.data, self.process.forbidden(self.data.vocabulary()), self.meaning)


@dataclass(frozen=True)
class Opened:
    """A folder of released weights, its tensors accounted for; `blank`: its network, on the meta device."""

    folder: Path
    layout: Layout
    release: Release
    entries: list[Entry]
    blank: Denoiser

    def digest(self) -> str:
        """Digest of what the numbers depend on: the release and the bytes of every shard."""
        each = [file_digest(self.folder / file) for file in files(self)]
        return parts.sha256(" ".join([self.release.digest(), *each]))


def agree(opened: Opened, name: str, ours: Part, theirs: Part, free: Collection[str]) -> None:
    """ValueError that names the first pin of a recipe's part `name` that is another one in the folder; shapes tell of
    widths alone, not of what a network computes with them. Pins in `free` may differ."""
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
    """SHA-256 of the weights' bytes in the order of their files, which tells namesakes apart (repro.hub.catalogue)."""
    return sources.fingerprint([opened.folder / file for file in files(opened)])


def files(opened: Opened) -> list[str]:
    """Names of the files that hold the weights, in order."""
    return list(dict.fromkeys(entry.file for entry in opened.entries))


def is_release(folder: Path) -> bool:
    """Whether a folder looks like someone's release rather than a run of ours."""
    return (folder / "config.json").is_file() and not (folder / "state.json").is_file()


def open_release(folder: Path, name: str | None = None, template: Template = "none") -> Opened:
    """The release in a folder, called `name` (None: as the folder), its prompts behind a chat template; ValueError in
    one line for what is missing, foreign, or does not fit."""
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
    entries = mapping.account(folder, layout.mapping, shapes, _tied(blank))
    return Opened(folder, layout, release, entries, blank)


def network(opened: Opened, dtype: torch.dtype | None = None) -> Denoiser:
    """The denoiser with the folder's weights, in `dtype` (None: float32); peak memory is the network and what is mapped
    of one shard."""
    import torch

    for parameter in opened.blank.parameters():
        if parameter.is_meta:
            empty = torch.empty(parameter.shape, dtype=dtype or torch.float32)
            torch.utils.swap_tensors(parameter, torch.nn.Parameter(empty))
    mapping.fill(opened.folder, opened.entries, _weights(opened.blank))
    return opened.blank.eval()


def _weights(denoiser: Denoiser) -> dict[str, Tensor]:
    """What a folder has to fill: parameters, tied ones once, and the buffers that are saved with them."""
    kept = denoiser.state_dict().keys()
    saved = {name: buffer for name, buffer in denoiser.named_buffers() if name in kept}
    return {**dict(denoiser.named_parameters()), **saved}


def _tied(denoiser: Denoiser) -> dict[str, str]:
    """Other names of tied weights -> the one under which they are filled."""
    first = {id(parameter): name for name, parameter in denoiser.named_parameters()}
    every = denoiser.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in every if first[id(p)] != name}


def _blank(release: Release) -> Denoiser:
    """The network without memory for its weights; its buffers are real."""
    from accelerate import init_empty_weights
    from transformers import PreTrainedModel

    with init_empty_weights(include_buffers=False):
        denoiser = release.backbone.module(release.role(), 0)
    for module in denoiser.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()  # made anew on the meta device, tied weights have come apart
    return denoiser


def _data(folder: Path, layout: Layout, config: Config) -> Released:
    """Vocabulary and special ids; ValueError where tokenizer and network do not belong together."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy the tokenizer of these weights beside them")
    total, length = (_first(folder, config, fields) for fields in (layouts.SIZES, layouts.LENGTHS))
    try:
        json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is truncated or no tokenizer; copy it again") from None
    tokenizer = Tokenizer.from_file(str(path))
    if tokenizer.get_vocab_size() > total:
        count = tokenizer.get_vocab_size()
        raise ValueError(f"{path} has {count} ids, the network {total}; copy the tokenizer of these weights")
    mask = _mask(path, layout, config, tokenizer, total)
    return Released(
        tokenizer_sha256=keep(path),
        size=total - 1 if mask == total - 1 else total,
        total=total,
        mask=mask,
        bos=_special(folder, config, tokenizer, "bos"),
        eos=_special(folder, config, tokenizer, "eos"),
        pad=_special(folder, config, tokenizer, "pad"),
        length=length,
    )


def _templated(folder: Path, layout: Layout, data: Released, template: Template) -> Data:
    """The data behind a template; ValueError where the folder has none, or lacks a token that it is made of."""
    if template == "none":
        return data
    words = _words(folder)
    if template == "own":
        file = folder / JINJA
        text = file.read_text("utf-8") if file.is_file() else words.get("chat_template")
        if not isinstance(text, str):
            raise ValueError(
                f"{folder / WORDS} has no chat_template, nor is there a {JINJA}; use --chat-template none"
            )
        causal = layout.process.causal
        return OwnChat(
            data=data, template=text, bos="" if causal else _token(words, "bos"), eos=_token(words, "eos")
        )
    sep, cls = _token(words, "sep"), _token(words, "cls")
    (*rest, begin), one = data.encode(cls) if cls else [-1, -1], data.encode(sep) if sep else []
    if not sep or not cls or rest or len(one) != 1:
        raise ValueError(f"{folder / WORDS} names no sep_token and cls_token; use --chat-template none")
    if template == "seed_readme":
        return SeedReadme(data=data, template=SEED, sep=sep)
    return SeedChat(data=data, template=SEED, cls=begin, sep=sep)


def _token(words: Config, kind: str) -> str:
    """The text of a special token; empty where there is none."""
    token = words.get(f"{kind}_token")
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _first(folder: Path, config: Config, fields: Sequence[str]) -> int:
    """The first of several fields of config.json that holds a number."""
    for field in fields:
        if config.get(field) is not None:
            return layouts.count(folder / "config.json", config, field)
    raise ValueError(
        f"{folder / 'config.json'} lacks {fields[-1]!r}; copy the configuration of these weights"
    )


def _mask(path: Path, layout: Layout, config: Config, tokenizer: Tokenizer, total: int) -> int | None:
    if layout.mask is None:
        return None
    mask = total - 1 if layout.mask == "last" else config.get(layout.mask, tokenizer.token_to_id(layout.mask))
    if mask is None or not 0 <= mask < total:
        raise ValueError(
            f"{path}: no mask id {layout.mask!r} among {total}; name it in config.json or the tokenizer"
        )
    return mask


def _special(folder: Path, config: Config, tokenizer: Tokenizer, kind: str) -> int | None:
    """A special id, of several the first: of config.json, else the token that tokenizer_config.json calls so."""
    value = config.get(f"{kind}_token_id")
    if value is None:
        content = _token(_words(folder), kind)
        return tokenizer.token_to_id(content) if content else None
    return value[0] if isinstance(value, list) else value


def _words(folder: Path) -> Config:
    """tokenizer_config.json, where there is one."""
    path = folder / WORDS
    return layouts.read_json(path) if path.is_file() else {}


def table(entries: Sequence[Entry]) -> list[str]:
    """The account, one line a tensor, and a line that sums it up."""
    lines = [
        f"{entry.name}  {'x'.join(map(str, entry.shape)) or 'scalar'} {entry.dtype}  "
        + (f"-> {entry.ours}" if entry.ours is not None else f"ignored: {entry.reason}")
        for entry in entries
    ]
    used = sum(entry.ours is not None for entry in entries)
    return [
        *lines,
        f"{len(entries)} tensors in {len({e.file for e in entries})} files: {used} used, "
        f"{len(entries) - used} ignored",
    ]
