"""Copying of released tensors into a network of this suite: all stored tensors are first matched with parameters by
name, then copied.

    stored = account(folder, names, shapes, tied)    each tensor is used, or ignored with a reason; else ValueError
    fill(folder, stored, parameters)                 copies the used tensors from the safetensors files

Peak memory is that of the network and of one stored tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from repro.core.reading import open_tensors, read_json

if TYPE_CHECKING:
    from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TIED = "tied: compared with the weight that it copies"
ROTARY = "rates of the rotary positions, computed from the base"
DTYPES = ("F64", "F32", "F16", "BF16")
"""Supported dtypes of stored tensors (safetensors' names); integers and 8-bit floats would need a scale, and no
layout has one."""


@dataclass(frozen=True)
class TensorNames:
    """Name patterns of the tensors in a folder of released weights.

    `used`: pattern -> name of the parameter that the tensor fills; `ignored`: pattern -> why the tensor is not needed.
    `{i}` stands for a layer number, the same in pattern and parameter; an ignored pattern may end with `*`, which
    matches any ending.
    """

    used: Mapping[str, str]
    ignored: Mapping[str, str]

    def knows(self, name: str) -> bool:
        """Whether a stored tensor of this name fills a parameter, i.e. matches a `used` pattern."""
        return any(_match(pattern, name) is not None for pattern in self.used)


def within(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Tensor name -> parameter name PREFIX.NAME, for each of `names`: for networks of this suite that hold a module of
    transformers as their attribute `prefix`."""
    return {name: f"{prefix}.{name}" for name in names}


class _Index(Struct, frozen=True):
    """Content of model.safetensors.index.json: tensor name -> name of the file that holds it."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors `file` (a name in the folder). `ours`: name of the parameter that the tensor fills,
    None if it is ignored; `reason`: why it is ignored, or "used", "renamed" (its parameter has another name) or "tied:
    ..." (it is a second copy of a weight, and only compared with the first)."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    ours: str | None
    reason: str


def account(
    folder: Path, names: TensorNames, shapes: Mapping[str, Sequence[int]], tied: Mapping[str, str]
) -> list[StoredTensor]:
    """Every stored tensor of a folder with the parameter that it fills, read from the safetensors headers alone.

    `names`: patterns of the tensors' names; `shapes`: parameter name -> shape, for each parameter that must be filled;
    `tied`: second name of a tied parameter -> its name in `shapes`. Raises ValueError, with a one-line message, for an
    unknown tensor name, a parameter filled by no tensor or by more than one, a wrong shape, an unsupported dtype, and a
    missing or truncated safetensors file.
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
            f"{folder} has no tensor for {lacking[0]!r} ({len(lacking)} are missing); copy the folder from its source"
            " again"
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
            f"{tensor} would fill {ours!r}, which the network of config.json does not have; give the"
            " config.json of these weights"
        )
    if ours in filled and stored.reason != TIED:
        raise ValueError(f"{tensor} fills the same parameter as {filled[ours]!r}; remove one of them")
    if stored.dtype not in DTYPES:
        raise ValueError(f"{tensor} is stored as {stored.dtype}; convert it to one of {', '.join(DTYPES)}")
    if stored.shape != tuple(shapes[ours]):
        raise ValueError(
            f"{tensor} has shape {stored.shape}, config.json needs {tuple(shapes[ours])}; give the config.json of these"
            " weights"
        )


def fill(folder: Path, stored: Sequence[StoredTensor], parameters: Mapping[str, Tensor]) -> None:
    """Copy those tensors of `stored` that are not ignored from the files in `folder` into `parameters` (name ->
    tensor), one at a time, cast to the parameter's dtype.

    Raises ValueError if the stored copy of a tied weight differs from the weight, and for weights that are not finite.
    """
    used = [tensor for tensor in stored if tensor.ours is not None]
    for is_copy in (False, True):  # tied copies are compared once all weights are there
        some = [tensor for tensor in used if (tensor.reason == TIED) == is_copy]
        for file in dict.fromkeys(tensor.file for tensor in some):
            with open_tensors(folder / file) as shard:
                for tensor in some:
                    if tensor.file != file or tensor.ours is None:
                        continue
                    theirs, ours = shard.get_tensor(tensor.name), parameters[tensor.ours].data
                    if not is_copy:
                        ours.copy_(theirs)
                        check_finite(f"{folder / file}: {tensor.name!r}", ours)
                    elif not theirs.to(ours.dtype).equal(ours):
                        raise ValueError(
                            f"{folder / file}: {tensor.name!r} differs from the weight that config.json ties it to;"
                            " set tie_word_embeddings (or weight_tying) to false there"
                        )


def check_finite(name: str, weights: Tensor) -> None:
    """Raise ValueError, whose message begins with `name`, for weights that hold NaN or an infinity, as damaged files
    do: a network with such weights would generate text without an error."""
    if weights.numel() and not all(end.isfinite() for end in weights.aminmax()):
        raise ValueError(f"{name} holds NaN or infinite weights; copy the file from its source again")


def shards(folder: Path) -> list[str]:
    """Names of a folder's safetensors files; ValueError if there are none, or if a file that the folder's
    model.safetensors.index.json lists is missing."""
    if (folder / INDEX).is_file():
        files = sorted(set(read_json(folder / INDEX, _Index).weight_map.values()))
        if not files:
            raise ValueError(f"{folder / INDEX} names no shards; copy the file from its source again")
        for file in files:
            if file != Path(file).name or not file.endswith(".safetensors"):
                raise ValueError(
                    f"{folder / INDEX} names {file!r}, no safetensors file beside it; copy the index again"
                )
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
    """Shape and dtype of each tensor of a safetensors file, by name, from the header alone."""
    found = {}
    with open_tensors(path) as shard:
        for name in shard.keys():  # noqa: SIM118 (a shard is not a dict)
            header = shard.get_slice(name)
            found[name] = (tuple(header.get_shape()), header.get_dtype())
    return found


def _place(folder: Path, names: TensorNames, name: str) -> tuple[str | None, str]:
    """For the stored tensor `name`: (name of the parameter that it fills, "used" or, if the names differ, "renamed"),
    or (None, why it is ignored). ValueError if no pattern of `names` matches."""
    for pattern, ours in names.used.items():
        number = _match(pattern, name)
        if number is not None:
            return ours.replace("{i}", number), "renamed" if pattern != ours else "used"
    for pattern, reason in names.ignored.items():
        begins = pattern.endswith("*") and name.startswith(pattern[:-1])
        if begins or _match(pattern, name) is not None:
            return None, reason
    raise ValueError(
        f"{folder}: unknown tensor {name!r}; the network of config.json has no such weight, give the matching"
        " config.json"
    )


def _match(pattern: str, name: str) -> str | None:
    """The number that `{i}` stands for in `name` ("" for a pattern without `{i}`); None if the name does not match."""
    head, mark, tail = pattern.partition("{i}")
    found = re.fullmatch(
        f"{re.escape(head)}(0|[1-9][0-9]*){re.escape(tail)}" if mark else re.escape(head), name
    )
    if found is None:
        return None
    return found[1] if mark else ""
