"""A checkpoint against what was recorded of it elsewhere: logits, likelihoods, decoded tokens (docs/parity.md).

    python -m repro.checkpoint parity X --fixture DIR              exit code 1 where something is further off than told
    python -m repro.checkpoint parity X --fixture DIR --record     write what X says here

A fixture is `fixture.json` and `fixture.safetensors`, so that it can be recorded beside the authors' code by anyone.

Symbols: B rows, L tokens, N positions asked for (True in `where`, row by row), V ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from repro.core.files import atomically
from repro.model import Model
from repro.processes.absorbing import mask_id

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
NOTE, TENSORS = "fixture.json", "fixture.safetensors"
ROWS, LENGTH = 2, 32
"""Of what `record` asks; a network that writes blocks is asked for two of them at least."""


class Decode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prompt decoded by a preset without draws, and the ids that were written."""

    preset: str
    gen_length: int
    block_length: int
    steps: int | None
    prompt: list[int]
    ids: list[int]


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """fixture.json. `of`: the checkpoint's name; `recorded`: with which code, commit, device and precision; the largest
    differences that count as equal: of a logit, and of the negative log-likelihood of a row, in nats."""

    format: int
    of: str
    recorded: str
    logits_within: float
    nll_within: float
    decodes: list[Decode]


@dataclass(frozen=True)
class Fixture:
    """`ids` [B, L] are read at times `t` ([B] or [B, L]; None: the network is not told); `logits` [N, V] before any id
    is forbidden and `nll` [B], summed over `where`, of the ids `target` [B, L]."""

    note: Note
    ids: Tensor
    t: Tensor | None
    where: Tensor
    target: Tensor
    logits: Tensor
    nll: Tensor


@dataclass(frozen=True)
class Deviation:
    """One comparison: what, the largest difference (or how many tokens differ), what was allowed."""

    what: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.found <= self.allowed


def read(folder: Path) -> Fixture:
    """A fixture; ValueError in one line for what is missing or malformed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (NOTE, TENSORS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; docs/parity.md says how a fixture is recorded")
    try:
        note = msgspec.json.decode((folder / NOTE).read_bytes(), type=Note)
        tensors = load_file(folder / TENSORS)
    except (msgspec.DecodeError, SafetensorError) as error:
        raise ValueError(f"{folder} is no fixture ({error}); docs/parity.md gives the format") from None
    if note.format != FORMAT:
        raise ValueError(f"{folder / NOTE}: format {note.format}, this code reads {FORMAT}")
    names = {"ids", "where", "target", "logits", "nll"}
    odd = sorted((tensors.keys() - {"t"}) ^ names)
    if odd:
        raise ValueError(
            f"{folder / TENSORS}: tensor {odd[0]!r} is missing or not known; it holds {sorted(names)}"
        )
    ids, where = tensors["ids"].long(), tensors["where"].bool()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if ids.ndim != 2:
        raise ValueError(f"{folder / TENSORS}: 'ids' has shape {shapes['ids']}; give rows of tokens, [B, L]")
    wanted = {"where": [ids.shape], "target": [ids.shape], "nll": [ids.shape[:1]]}
    wanted |= {"t": [ids.shape[:1], ids.shape]} if "t" in tensors else {}
    for name, fitting in wanted.items():
        if shapes[name] not in fitting:
            asked = " or ".join(str(tuple(shape)) for shape in fitting)
            raise ValueError(f"{folder / TENSORS}: {name!r} has shape {shapes[name]}, ids ask for {asked}")
    if not where.any():
        raise ValueError(f"{folder / TENSORS}: 'where' asks for no position; set some of it")
    if tensors["logits"].ndim != 2 or len(tensors["logits"]) != int(where.sum()):
        raise ValueError(
            f"{folder / TENSORS}: {len(tensors['logits'])} rows of logits for {int(where.sum())} positions"
        )
    for number, each in enumerate(note.decodes):
        if not each.prompt or len(each.ids) != each.gen_length:
            raise ValueError(
                f"{folder / NOTE}: decode {number} has {len(each.prompt)} ids of prompt and {len(each.ids)} written;"
                f" give 1 or more, and gen_length={each.gen_length}"
            )
    target, logits = tensors["target"].long(), tensors["logits"].double()
    return Fixture(note, ids, tensors.get("t"), where, target, logits, tensors["nll"].double())


def compare(model: Model, fixture: Fixture) -> list[Deviation]:
    """Every number of a fixture against the model's; ids that never stand for a clean token are left out."""
    total = len(model.denoiser.forbidden)
    if fixture.logits.shape[1] != total:
        raise ValueError(f"the fixture has {fixture.logits.shape[1]} ids, this network {total}")
    named = {"ids": fixture.ids.flatten().tolist(), "target": fixture.target.flatten().tolist()}
    named |= {f"decode {n}": [*each.prompt, *each.ids] for n, each in enumerate(fixture.note.decodes)}
    for name, ids in named.items():
        odd = next((i for i in ids if not 0 <= i < total), None)
        if odd is not None:
            raise ValueError(
                f"{name} of the fixture holds {odd}, and this network's ids are 0 to {total - 1}"
            )
    if (fixture.t is not None) != model.denoiser.time_conditioned:
        raise ValueError(
            "the network is told the time, and the fixture has no t"
            if model.denoiser.time_conditioned
            else "the fixture has t, and this network is told no time"
        )
    logits = _logits(model, fixture.ids, fixture.t, fixture.where)
    allowed = ~model.denoiser.forbidden.cpu()
    found = [
        Deviation(
            "logits",
            (logits - fixture.logits)[:, allowed].abs().max().item(),
            fixture.note.logits_within,
        ),
        Deviation(
            "nll",
            (_nll(model, logits, fixture.where, fixture.target) - fixture.nll).abs().max().item(),
            fixture.note.nll_within,
        ),
    ]
    for number, each in enumerate(fixture.note.decodes):
        written = _decode(model, each)
        differ = sum(a != b for a, b in zip(written, each.ids, strict=True))
        found.append(Deviation(f"tokens of decode {number} ({each.preset})", differ, 0))
    return found


def record(model: Model, folder: Path) -> None:
    """Write what this model says: random ids, half of them noisy at t = 0.5, and a decode where none is drawn."""
    from safetensors.torch import save_file

    fixture = _asked(model)
    with atomically(folder) as temporary:
        temporary.mkdir(parents=True)
        tensors = {"ids": fixture.ids, "where": fixture.where, "target": fixture.target}
        tensors |= {"logits": fixture.logits.float(), "nll": fixture.nll}
        save_file(tensors | ({} if fixture.t is None else {"t": fixture.t}), temporary / TENSORS)
        note = json.dumps(msgspec.to_builtins(fixture.note), indent=1)
        (temporary / NOTE).write_text(note + "\n", "utf-8")


def _asked(model: Model) -> Fixture:
    from repro.core import rng
    from repro.core.lazy import torch

    block = model.denoiser.required_block_size or 0
    vocabulary, length = model.data.vocabulary(), min(max(LENGTH, 2 * block), model.data.row_length())
    keys = rng.keys(0, rng.PARITY, 0, torch.arange(ROWS))
    u = rng.uniform(keys, 3, length)
    target = (u[:, 0] * vocabulary.size).long().clamp_max(vocabulary.size - 1)
    where = u[:, 1] < 0.5
    times = torch.full((ROWS,), 0.5, dtype=torch.float64)
    if block:  # the last block is being written, all before it is clean
        last = torch.arange(length) >= length - block
        where, times = last.expand(ROWS, length).clone(), (0.5 * last).expand(ROWS, length).clone()
    noise = (u[:, 2] * vocabulary.size).long().clamp_max(vocabulary.size - 1)
    if model.recipe.process.masks:
        noise = torch.full_like(target, mask_id(vocabulary))
    ids = torch.where(where, noise, target)
    if model.recipe.process.causal:
        ids, target = target, target.roll(-1, 1)  # what is said at a position is about the one behind it
    t = times if model.denoiser.time_conditioned else None
    logits = _logits(model, ids, t, where)
    note = Note(
        format=FORMAT,
        of=model.recipe.name,
        recorded=f"dlm-repro, {model.precision} on {model.denoiser.device.type}, checkpoint {model.digest}",
        logits_within=1e-4,
        nll_within=1e-3,
        decodes=_decodes(model, target[0].tolist()),
    )
    return Fixture(note, ids, t, where, target, logits, _nll(model, logits, where, target))


def _decodes(model: Model, ids: list[int]) -> list[Decode]:
    """One decode by a preset that draws nothing; uniform noise has none."""
    process = model.recipe.process
    if process.redraws:
        return []
    block = model.denoiser.required_block_size or 8
    asked = Decode(
        preset="low_confidence" if process.masks else "greedy",
        gen_length=2 * block,
        block_length=block if process.masks else 2 * block,
        steps=2 * block,
        prompt=ids[: max(1, min(8, model.data.row_length() - 2 * block))],
        ids=[],
    )
    return [msgspec.structs.replace(asked, ids=_decode(model, asked))]


def _decode(model: Model, asked: Decode) -> list[int]:
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    plan = Plan(gen_length=asked.gen_length, block_length=asked.block_length, steps=asked.steps)
    rule, process = preset(asked.preset), model.recipe.process
    return decode(model.denoiser, process, rule, plan, [asked.prompt], seed=0, names=[0]).ids[0].tolist()


def _logits(model: Model, ids: Tensor, t: Tensor | None, where: Tensor) -> Tensor:
    """[N, V] float64 on the CPU, nothing forbidden."""
    from repro.core.lazy import torch
    from repro.models.attention import Mask

    device = model.denoiser.device
    with torch.no_grad():
        told = None if t is None else t.to(device)
        features = model.denoiser.encode(ids.to(device), t=told, attention=Mask())
        return model.denoiser.raw_logits(features[where.to(device)]).double().cpu()


def _nll(model: Model, logits: Tensor, where: Tensor, target: Tensor) -> Tensor:
    """[B] nats, summed over `where`."""
    from repro.core.lazy import torch

    clean = logits.masked_fill(model.denoiser.forbidden.cpu(), -torch.inf).log_softmax(-1)
    each = torch.zeros(where.shape, dtype=torch.float64)
    each[where] = -clean.gather(1, target[where][:, None])[:, 0]
    return each.sum(1)
