"""Compare a checkpoint with logits, likelihoods and decoded tokens that were recorded elsewhere (docs/parity.md).

    python -m repro.checkpoint parity X --fixture DIR              exit code 1 if a deviation exceeds its tolerance
    python -m repro.checkpoint parity X --fixture DIR --record     write a fixture of checkpoint X

A fixture holds inputs and the recorded outputs of a network, in the files `fixture.json` and `fixture.safetensors` of
one folder; anyone can record one with the authors' code.

Shapes: B rows, L positions, N selected positions (True in `where`, row by row), V vocabulary size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from repro.core.files import atomically
from repro.core.reading import foreign, read_json, regular
from repro.model import Model
from repro.processes.absorbing import mask_id

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
NOTE, TENSORS = "fixture.json", "fixture.safetensors"
ROWS, LENGTH = 2, 32
"""Number of rows and tokens per row of a fixture written by `record`; a row has at least two blocks if the network
generates block by block."""


Tolerance = Annotated[float, msgspec.Meta(ge=0)]


class Decode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded decode: the `prompt` (token ids), the deterministic sampler preset, number of tokens, tokens per block
    and steps with which it was decoded, and the `gen_length` generated `ids`."""

    preset: str
    gen_length: int
    block_length: int
    steps: int | None
    prompt: list[int]
    ids: list[int]


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of fixture.json. `format`: version of the file format; `of`: name of the checkpoint; `recorded`: code,
    commit, device and precision with which the outputs were computed; `logits_within`, `nll_within`: largest difference
    allowed in a logit, and in the negative log-likelihood of a row, in nats."""

    format: int
    of: str
    recorded: str
    logits_within: Tolerance
    nll_within: Tolerance
    decodes: list[Decode]


@dataclass(frozen=True)
class Fixture:
    """Inputs and recorded outputs of a network. Inputs: `ids` [B, L] at diffusion times `t` ([B] or [B, L]; None for a
    network without time conditioning). Outputs at the N positions where the tensor `where` [B, L] is True: raw `logits`
    [N, V], before forbidden ids are set to -inf, and the negative log-likelihood `nll` [B], in nats, of the ids
    `target` [B, L], summed over these positions of a row. `note`: content of fixture.json."""

    note: Note
    ids: Tensor
    t: Tensor | None
    where: Tensor
    target: Tensor
    logits: Tensor
    nll: Tensor


@dataclass(frozen=True)
class Deviation:
    """Result of one comparison of a model with recorded outputs (a fixture): `what` is compared, the largest difference
    `found` (of decodes: the number of tokens that differ), and the tolerance `allowed`."""

    what: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.found <= self.allowed


def read(folder: Path) -> Fixture:
    """The fixture (recorded inputs and outputs of a network) in `folder`; ValueError names the file or tensor that is
    missing or malformed."""
    from safetensors.torch import load_file

    for name in (NOTE, TENSORS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; docs/parity.md says how a fixture is recorded")
    note = read_json(folder / NOTE, Note, "docs/parity.md gives the format")
    with foreign(regular(folder / TENSORS), "safetensors file", "docs/parity.md gives the format"):
        tensors = load_file(folder / TENSORS)
    if note.format != FORMAT:
        raise ValueError(
            f"{folder / NOTE}: format is {note.format}, but this code reads {FORMAT}; record the fixture again"
        )
    names = {"ids", "where", "target", "logits", "nll"}
    odd = sorted((tensors.keys() - {"t"}) ^ names)
    if odd:
        fault = "is missing" if odd[0] in names else "is unknown"
        raise ValueError(
            f"{folder / TENSORS}: tensor {odd[0]!r} {fault}, expected are {', '.join(sorted(names))}; record the"
            " fixture again"
        )
    ids, where = tensors["ids"].long(), tensors["where"].bool()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if ids.ndim != 2:
        raise ValueError(f"{folder / TENSORS}: 'ids' has shape {shapes['ids']}; give rows of tokens, [B, L]")
    wanted = {"where": [ids.shape], "target": [ids.shape], "nll": [ids.shape[:1]]}
    wanted |= {"t": [ids.shape[:1], ids.shape]} if "t" in tensors else {}
    for name, fitting in wanted.items():
        if shapes[name] not in fitting:
            wanted_shapes = " or ".join(str(tuple(shape)) for shape in fitting)
            raise ValueError(
                f"{folder / TENSORS}: {name!r} has shape {shapes[name]}, expected {wanted_shapes}; record the fixture"
                " again"
            )
    if not where.any():
        raise ValueError(f"{folder / TENSORS}: 'where' selects no position; set at least one")
    if tensors["logits"].ndim != 2 or len(tensors["logits"]) != int(where.sum()):
        raise ValueError(
            f"{folder / TENSORS}: 'logits' has shape {shapes['logits']}; give one row of V logits for each of the "
            f"{int(where.sum())} positions that 'where' selects"
        )
    for number, each in enumerate(note.decodes):
        if not each.prompt or len(each.ids) != each.gen_length:
            raise ValueError(
                f"{folder / NOTE}: decode {number} has {len(each.prompt)} ids of a prompt and {len(each.ids)} "
                f"generated ids; give 1 or more ids of a prompt, and gen_length={each.gen_length} generated ids"
            )
    target, logits = tensors["target"].long(), tensors["logits"].double()
    return Fixture(note, ids, tensors.get("t"), where, target, logits, tensors["nll"].double())


def compare(model: Model, fixture: Fixture) -> list[Deviation]:
    """How far the outputs of a model are from those recorded in a fixture, one `Deviation` each: for logits (except
    those of ids that are never clean tokens), for negative log-likelihoods, and for each decode. ValueError if ids or
    times of the fixture do not fit the network."""
    vocab_size = len(model.denoiser.forbidden)
    if fixture.logits.shape[1] != vocab_size:
        raise ValueError(
            f"the logits of the fixture have {fixture.logits.shape[1]} ids, those of this network {vocab_size}; "
            f"give the checkpoint from which the fixture was recorded, {fixture.note.of}"
        )
    named = {"ids": fixture.ids.flatten().tolist(), "target": fixture.target.flatten().tolist()}
    named |= {f"decode {n}": [*each.prompt, *each.ids] for n, each in enumerate(fixture.note.decodes)}
    for name, ids in named.items():
        odd = next((i for i in ids if not 0 <= i < vocab_size), None)
        if odd is not None:
            raise ValueError(
                f"{name} of the fixture contains id {odd}, but this network's ids are 0 to {vocab_size - 1}; "
                f"give the checkpoint from which the fixture was recorded, {fixture.note.of}"
            )
    if (fixture.t is not None) != model.denoiser.time_conditioned:
        raise ValueError(
            "the network is conditioned on time, but the fixture has no tensor 't'; give a fixture of this checkpoint"
            if model.denoiser.time_conditioned
            else "the fixture has a tensor 't', but the network is not conditioned on time; "
            "give a fixture of this checkpoint"
        )
    logits = _logits(model, fixture.ids, fixture.t, fixture.where)
    nll = _nll(model, logits, fixture.where, fixture.target)
    gaps = (logits - fixture.logits)[:, ~model.denoiser.forbidden.cpu()].abs()
    found = [
        Deviation("logits", gaps.max().item(), fixture.note.logits_within),
        Deviation("nll", (nll - fixture.nll).abs().max().item(), fixture.note.nll_within),
    ]
    for number, each in enumerate(fixture.note.decodes):
        written = _decode(model, each)
        differ = sum(a != b for a, b in zip(written, each.ids, strict=True))
        found.append(Deviation(f"tokens of decode {number} ({each.preset})", differ, 0))
    return found


def record(model: Model, folder: Path) -> None:
    """Write a fixture (recorded inputs and outputs) of a model into the new folder `folder`: the outputs for random
    ids, of which about half are noisy, at time t = 0.5 (of a block diffusion network: clean ids with a noisy last
    block), and one deterministic decode (none under uniform noise)."""
    from safetensors.torch import save_file

    fixture = _recorded(model)
    with atomically(folder) as temporary:
        temporary.mkdir(parents=True)
        tensors = {"ids": fixture.ids, "where": fixture.where, "target": fixture.target}
        tensors |= {"logits": fixture.logits.float(), "nll": fixture.nll}
        save_file(tensors | ({} if fixture.t is None else {"t": fixture.t}), temporary / TENSORS)
        note = json.dumps(msgspec.to_builtins(fixture.note), indent=1)
        (temporary / NOTE).write_text(note + "\n", "utf-8")


def _recorded(model: Model) -> Fixture:
    from repro.core import rng
    from repro.core.lazy import torch

    block = model.denoiser.required_block_size or 0
    vocabulary, length = model.data.vocabulary(), min(max(LENGTH, 2 * block), model.data.row_length())
    keys = rng.keys(0, rng.PARITY, 0, torch.arange(ROWS))
    u = rng.uniform(keys, 3, length)
    target = (u[:, 0] * vocabulary.size).long().clamp_max(vocabulary.size - 1)
    where = u[:, 1] < 0.5
    times = torch.full((ROWS,), 0.5, dtype=torch.float64)
    if block:  # the last block is noisy, all before it is clean
        last = torch.arange(length) >= length - block
        where, times = last.expand(ROWS, length).clone(), (0.5 * last).expand(ROWS, length).clone()
    noise = (u[:, 2] * vocabulary.size).long().clamp_max(vocabulary.size - 1)
    if model.recipe.process.masks:
        noise = torch.full_like(target, mask_id(vocabulary))
    ids = torch.where(where, noise, target)
    if model.recipe.process.causal:
        ids, target = target, target.roll(-1, 1)  # the logits of a position are about the next one
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
    """A list of one decode by a deterministic preset, whose prompt is the beginning of the token ids `ids`; empty for a
    model of uniform noise, which has no deterministic preset."""
    process = model.recipe.process
    if process.redraws:
        return []
    block = model.denoiser.required_block_size or 8
    empty = Decode(
        preset="low_confidence" if process.masks else "greedy",
        gen_length=2 * block,
        block_length=block if process.masks else 2 * block,
        steps=2 * block,
        prompt=ids[: max(1, min(8, model.data.row_length() - 2 * block))],
        ids=[],
    )
    return [msgspec.structs.replace(empty, ids=_decode(model, empty))]


def _decode(model: Model, given: Decode) -> list[int]:
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    plan = Plan(gen_length=given.gen_length, block_length=given.block_length, steps=given.steps)
    rule, process = preset(given.preset), model.recipe.process
    return decode(model.denoiser, process, rule, plan, [given.prompt], seed=0, names=[0]).ids[0].tolist()


def _logits(model: Model, ids: Tensor, t: Tensor | None, where: Tensor) -> Tensor:
    """Raw logits [N, V] of the network for `ids` [B, L] at diffusion times `t` ([B] or [B, L], None without time
    conditioning), at the N positions where `where` [B, L] is True; float64 on the CPU, forbidden ids not set to
    -inf."""
    from repro.core.lazy import torch
    from repro.models.attention import Mask

    device = model.denoiser.device
    with torch.no_grad():
        times = None if t is None else t.to(device)
        features = model.denoiser.encode(ids.to(device), t=times, attention=Mask())
        return model.denoiser.raw_logits(features[where.to(device)]).double().cpu()


def _nll(model: Model, logits: Tensor, where: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood per row [B], in nats, of the ids `target` [B, L], summed over the N positions where
    `where` [B, L] is True; from the raw logits `logits` [N, V] at these positions."""
    from repro.core.lazy import torch

    clean = logits.masked_fill(model.denoiser.forbidden.cpu(), -torch.inf).log_softmax(-1)
    each = torch.zeros(where.shape, dtype=torch.float64)
    each[where] = -clean.gather(1, target[where][:, None])[:, 0]
    return each.sum(1)
