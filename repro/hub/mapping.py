"""From the authors' tensor names to our parameters: every tensor of a folder is accounted for, then copied one by one.

    stored = account(folder, names, shapes, tied)    every tensor is used, or ignored with a reason; else ValueError
    fill(folder, stored, parameters)                 copied out of the shards; only safetensors are read

Peak memory is that of the network and of one stored tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TIED = "tied: compared with the weight that it copies"
ROTARY = "rates of the rotary positions, computed from the base"
DTYPES = ("F64", "F32", "F16", "BF16")
"""Supported storage types; integers and 8-bit floats would need a scale, which no mapping has."""


@dataclass(frozen=True)
class TensorNames:
    """Patterns of the authors' names. `used`: pattern -> our parameter; `ignored`: pattern -> why it is not needed.

    `{i}` stands for a number, the same on both sides; an ignored pattern may end with `*` for any rest.
    """

    used: Mapping[str, str]
    ignored: Mapping[str, str]

    def knows(self, name: str) -> bool:
        """Whether a tensor of this name fills one of our parameters."""
        return any(_match(pattern, name) is not None for pattern in self.used)


def within(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Authors' names -> the same names below `prefix`, where our module holds a network of transformers."""
    return {name: f"{prefix}.{name}" for name in names}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a folder; `ours`: the parameter that it fills, or None with the `reason` why it is ignored."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    ours: str | None
    reason: str


def account(
    folder: Path, names: TensorNames, shapes: Mapping[str, Sequence[int]], tied: Mapping[str, str]
) -> list[StoredTensor]:
    """What becomes of every tensor in a folder, read from the headers alone.

    `shapes`: of our parameters, by name; `tied`: further names of tied parameters -> their name in `shapes`. Raises
    ValueError in one line for an unknown name, a parameter that no tensor or more than one fills, a wrong shape, an
    unsupported dtype, and a missing or truncated shard.
    """
    found: list[StoredTensor] = []
    filled: dict[str, str] = {}
    for file in shards(folder):
        for name, (shape, dtype) in sorted(_tensors(folder / file).items()):
            ours, reason = _place(folder, names, name)
            if ours is not None and ours in tied:
                ours, reason = tied[ours], TIED
            stored = StoredTensor(name, file, shape, dtype, ours, reason)
            if ours is not None:
                _check(folder, stored, ours, shapes, filled)
                if reason != TIED:
                    filled[ours] = name
            found.append(stored)
    lacking = [name for name in shapes if name not in filled]
    if lacking:
        raise ValueError(
            f"{folder} has no tensor for {lacking[0]!r} ({len(lacking)} are missing); copy it again"
        )
    return found


def _check(
    folder: Path,
    stored: StoredTensor,
    ours: str,
    shapes: Mapping[str, Sequence[int]],
    filled: Mapping[str, str],
) -> None:
    tensor = f"{folder / stored.file}: tensor {stored.name!r}"
    if ours not in shapes:
        raise ValueError(
            f"{tensor} would fill {ours!r}, which the network of config.json does not have; is it the right config?"
        )
    if ours in filled and stored.reason != TIED:
        raise ValueError(f"{tensor} is the same weight as {filled[ours]!r}; remove one of them")
    if stored.dtype not in DTYPES:
        raise ValueError(f"{tensor} is stored as {stored.dtype}; convert it to one of {', '.join(DTYPES)}")
    if stored.shape != tuple(shapes[ours]):
        raise ValueError(
            f"{tensor} has shape {stored.shape}, config.json needs {tuple(shapes[ours])}; give the config that belongs"
            " to it"
        )


def fill(folder: Path, stored: Sequence[StoredTensor], parameters: Mapping[str, Tensor]) -> None:
    """Copy the used tensors into our parameters, one at a time, cast to their dtype.

    Raises ValueError where the stored copy of a tied weight differs from it.
    """
    from safetensors import safe_open

    used = [tensor for tensor in stored if tensor.ours is not None]
    for is_copy in (False, True):  # tied copies are compared once all weights are there
        some = [tensor for tensor in used if (tensor.reason == TIED) == is_copy]
        for file in dict.fromkeys(tensor.file for tensor in some):
            with safe_open(folder / file, "pt") as shard:
                for tensor in some:
                    if tensor.file != file or tensor.ours is None:
                        continue
                    theirs, ours = shard.get_tensor(tensor.name), parameters[tensor.ours].data
                    if not is_copy:
                        ours.copy_(theirs)
                    elif not theirs.to(ours.dtype).equal(ours):
                        raise ValueError(
                            f"{folder / file}: {tensor.name!r} differs from the weight that config.json ties it to;"
                            " untie them there"
                        )


def shards(folder: Path) -> list[str]:
    """Names of the safetensors files; ValueError where there are none, or where one that the index names is missing."""
    if (folder / INDEX).is_file():
        try:
            index = json.loads((folder / INDEX).read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            index = None
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
            raise ValueError(f"{folder / INDEX} is not an index of shards; copy it again")
        files = sorted(set(named.values()))
        for file in files:
            if not (folder / file).is_file():
                raise ValueError(
                    f"{folder / file} is missing; {INDEX} names {len(files)} shards, copy them all"
                )
        return files
    if (folder / WHOLE).is_file():
        return [WHOLE]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{folder / pickles[0]} is a pickle; only safetensors are read:"
            f" python -m repro.checkpoint convert {folder} --out OUT"
        )
    raise ValueError(f"{folder} has neither {WHOLE} nor {INDEX}; copy the weights too")


def _tensors(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype by name, from the header alone."""
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        with safe_open(path, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (a shard is not a dict)
                header = shard.get_slice(name)
                found[name] = (tuple(header.get_shape()), header.get_dtype())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from None
    return found


def _place(folder: Path, names: TensorNames, name: str) -> tuple[str | None, str]:
    """Our name for a tensor and "used" or "renamed", or None and the reason why it is ignored."""
    for pattern, ours in names.used.items():
        number = _match(pattern, name)
        if number is not None:
            return ours.replace("{i}", number), "renamed" if pattern != ours else "used"
    for pattern, reason in names.ignored.items():
        begins = pattern.endswith("*") and name.startswith(pattern[:-1])
        if begins or _match(pattern, name) is not None:
            return None, reason
    raise ValueError(f"{folder}: unknown tensor {name!r}; this layout has no such weight")


def _match(pattern: str, name: str) -> str | None:
    """The number that `{i}` stands for ("" in a pattern without), or None where the pattern does not match."""
    head, mark, tail = pattern.partition("{i}")
    found = re.fullmatch(
        f"{re.escape(head)}(0|[1-9][0-9]*){re.escape(tail)}" if mark else re.escape(head), name
    )
    if found is None:
        return None
    return found[1] if mark else ""
