"""Weights under other people's names: patterns of names as data, a strict account, one tensor at a time.

    found = account(folder, mapping, shapes)       every tensor of the folder used or ignored with a reason, or an error
    fill(folder, found, parameters)                copied one by one out of the shards; nothing is ever unpickled

A `Mapping` says for each of their names which of our parameters it is; `{i}` stands for a number, the same on both
sides; in ignored names a `*` at the end stands for whatever begins so. Memory: the network and what one shard's tensor
takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TIED = "tied: compared with the weight that it is"
DTYPES = ("F64", "F32", "F16", "BF16")
"""What weights may be stored in; integers and 8-bit floats need a scale that no name here carries."""


@dataclass(frozen=True)
class Mapping:
    """`used`: their name -> ours; `ignored`: their name -> why it is not needed."""

    used: Table[str, str]
    ignored: Table[str, str]

    def knows(self, name: str) -> bool:
        """Whether one of our parameters has this name there."""
        return any(_match(pattern, name) is not None for pattern in self.used)


@dataclass(frozen=True)
class Entry:
    """One tensor of a folder: where it lies, what it is, and what becomes of it (`ours`, or None and a `reason`)."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    ours: str | None
    reason: str


def account(
    folder: Path, mapping: Mapping, shapes: Table[str, Sequence[int]], tied: Table[str, str]
) -> list[Entry]:
    """What becomes of every tensor in the folder; `shapes`: our parameters; `tied`: other names that they have.

    Raises ValueError, in one line, for a name that the mapping lacks, a tensor of ours that nothing fills or two fill,
    a shape or dtype that does not fit, and a shard that is missing or truncated.
    """
    found, filled = [], {}
    for file in shards(folder):
        for name, (shape, dtype) in sorted(_tensors(folder / file).items()):
            ours, reason = _place(folder, mapping, name)
            if ours is not None and ours in tied:
                ours, reason = tied[ours], TIED
                _check(folder / file, name, shape, dtype, ours, shapes, {})
            elif ours is not None:
                _check(folder / file, name, shape, dtype, ours, shapes, filled)
                filled[ours] = name
            found.append(Entry(name, file, shape, dtype, ours, reason))
    lacking = [name for name in shapes if name not in filled]
    if lacking:
        raise ValueError(
            f"{folder} has no tensor for {lacking[0]!r} ({len(lacking)} are missing); copy it again"
        )
    return found


def _check(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    ours: str,
    shapes: Table[str, Sequence[int]],
    filled: Table[str, str],
) -> None:
    if ours not in shapes:
        raise ValueError(
            f"{path}: tensor {name!r} would be {ours!r}, for which config.json has no place; is it the right one?"
        )
    if ours in filled:
        raise ValueError(f"{path}: tensors {filled[ours]!r} and {name!r} are the same weight; remove one")
    if dtype not in DTYPES:
        raise ValueError(
            f"{path}: tensor {name!r} is stored as {dtype}; convert it to one of {', '.join(DTYPES)}"
        )
    if shape != tuple(shapes[ours]):
        expected = f"config.json asks for {tuple(shapes[ours])}"
        raise ValueError(
            f"{path}: tensor {name!r} has shape {shape}, {expected}; give the config that belongs to it"
        )


def fill(folder: Path, entries: Sequence[Entry], parameters: Table[str, Tensor]) -> None:
    """Copy what is used into our parameters, one tensor at a time; ValueError where a stored copy of a tied weight is
    another one."""
    from safetensors import safe_open

    used = [entry for entry in entries if entry.ours is not None]
    for some in ([e for e in used if e.reason != TIED], [e for e in used if e.reason == TIED]):
        for file in dict.fromkeys(entry.file for entry in some):
            with safe_open(folder / file, "pt") as shard:
                for entry in some:
                    if entry.file != file or entry.ours is None:
                        continue
                    theirs, ours = shard.get_tensor(entry.name), parameters[entry.ours].data
                    if entry.reason != TIED:
                        ours.copy_(theirs)
                    elif not theirs.to(ours.dtype).equal(ours):
                        raise ValueError(
                            f"{folder / file}: {entry.name!r} differs from the weight that config.json ties it to;"
                            " untie them there"
                        )


def shards(folder: Path) -> list[str]:
    """Names of the folder's safetensors files; ValueError where there are none, or one of the index is missing."""
    if (folder / INDEX).is_file():
        try:
            index = json.loads((folder / INDEX).read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            index = None
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
            raise ValueError(f"{folder / INDEX} is no index of shards; copy it again")
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
            for name in shard.keys():  # noqa: SIM118 (a shard is no dict)
                piece = shard.get_slice(name)
                found[name] = (tuple(piece.get_shape()), piece.get_dtype())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}); copy it again") from None
    return found


def _place(folder: Path, mapping: Mapping, name: str) -> tuple[str | None, str]:
    """Our name for theirs and a word on it, or None and the reason why it is ignored."""
    for pattern, ours in mapping.used.items():
        numbers = _match(pattern, name)
        if numbers is not None:
            return ours.replace("{i}", numbers), "renamed" if pattern != ours else "used"
    for pattern, reason in mapping.ignored.items():
        begins = pattern.endswith("*") and name.startswith(pattern[:-1])
        if begins or _match(pattern, name) is not None:
            return None, reason
    raise ValueError(f"{folder}: nothing is known of tensor {name!r}; this layout has no such weight")


def _match(pattern: str, name: str) -> str | None:
    """The number that `{i}` stands for ("" in a pattern without), or None where the name is another."""
    head, mark, tail = pattern.partition("{i}")
    found = re.fullmatch(
        f"{re.escape(head)}(0|[1-9][0-9]*){re.escape(tail)}" if mark else re.escape(head), name
    )
    if found is None:
        return None
    return found[1] if mark else ""


PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
