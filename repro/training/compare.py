"""Comparison of two checkpoints, setting by setting and tensor by tensor; each is one of this suite or a folder of
released weights.

python -m repro.checkpoint diff A B                             exit code 1 if they differ
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from repro.core import parts
from repro.core.reading import open_tensors
from repro.hub import mapping, release
from repro.training.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from repro.core.parts import Part


@dataclass(frozen=True)
class Side:
    """One of two compared checkpoints.

    `part`: its recipe or release; `unfinished`: `step 39 of 900` for a run that was stopped before its last step, else
    ""; `shapes`: shape of each parameter, by name; `read`: function from a parameter's name to its tensor.
    """

    part: Part
    unfinished: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


@dataclass(frozen=True)
class Difference:
    """What differs between two checkpoints, as rows of plain JSON.

    `unfinished`: for each of the two checkpoints "step 39 of 900" if its training stopped early, else "" (not a
    difference of settings, but often the reason why tensors differ). `settings`: for each setting that differs, except
    the recipe's name, its dotted path `setting` and its values `a` and `b`. `tensors`: for each tensor that differs its
    name `tensor`, and: `only_in`, the checkpoint that has the tensor, if the other lacks it; or `shapes`, the two
    shapes, if they differ; or else `differing`, the number of entries that differ, `of`, the number of all entries,
    `largest`, the largest absolute difference of an entry, and `relative`, the Euclidean norm of the difference divided
    by that of the first tensor (None if the first tensor is zero).
    """

    unfinished: tuple[str, str]
    settings: list[dict[str, Any]]
    tensors: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.settings or self.tensors)


def diff(one: Path, other: Path) -> Difference:
    """The `Difference` of the checkpoints in the folders `one` and `other`; `bool` of it is False if they are the same
    network."""
    with _opened(one) as a, _opened(other) as b:
        settings = [
            {"setting": path, "a": x, "b": y} if path else _kinds(x, y)
            for path, x, y in parts.changes(a.part, b.part)
            if path != "name"
        ]
        tensors = []
        for name in sorted(a.shapes.keys() | b.shapes.keys()):
            if name not in b.shapes or name not in a.shapes:
                tensors.append({"tensor": name, "only_in": str(one if name in a.shapes else other)})
            elif a.shapes[name] != b.shapes[name]:
                tensors.append({"tensor": name, "shapes": [list(a.shapes[name]), list(b.shapes[name])]})
            else:
                tensors += _values(name, a.read(name).double(), b.read(name).double())
        unfinished = a.unfinished, b.unfinished
    return Difference(unfinished, settings, tensors)


def lines(found: Difference, one: Path, other: Path, room: int) -> list[str]:
    """Lines of text that show the `Difference` of the checkpoints in the folders `one` and `other`, at most `room`
    characters wide where names allow: the two folders as A and B, a table of settings, a line per tensor. For the same
    network one line says so, and the folders are listed only if its training stopped early."""
    names = zip("AB", (one, other), found.unfinished, strict=True)
    said = [f"{letter}  {path}" + (f" ({mark})" if mark else "") for letter, path, mark in names]
    if not found:
        return ["the same network", *(said if any(found.unfinished) else ())]
    if found.settings:
        rows = [(each["setting"], parts.brief(each["a"]), parts.brief(each["b"])) for each in found.settings]
        first = max(7, min(max(len(name) for name, *_ in rows), room // 2))
        widths = [first, *[max((room - first - 4) // 2, 12)] * 2]
        table = tabulate(rows, ["setting", "A", "B"], "simple", disable_numparse=True, maxcolwidths=widths)
        said += ["", *table.splitlines()]
    if found.tensors:
        said += ["", *(f"{each['tensor']}  {_sentence(each)}" for each in found.tensors)]
    return said


def _kinds(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The only row of `Difference.settings` if a run is compared with released weights, which have no settings in
    common: it says that one of the two is a "recipe" and the other a "release". `one`, `other`: canonical forms of the
    recipe and of the release, in either order."""
    return {"setting": "part", "a": one["part"], "b": other["part"]}


def _sentence(row: dict[str, Any]) -> str:
    if "only_in" in row:
        return f"only in {row['only_in']}"
    if "shapes" in row:
        one, other = ("x".join(map(str, shape)) for shape in row["shapes"])
        return f"shape {one} against {other}"
    relative = "infinite" if row["relative"] is None else f"{row['relative']:.3g}"
    return (
        f"{row['differing']} of {row['of']} differ, by {row['largest']:.3g} at most, norm of the difference {relative} "
        "of its own"
    )


def _values(name: str, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """[row of `Difference.tensors`] for the tensors `x` and `y` called `name`, which have the same shape; [] if they
    are equal."""
    if x.equal(y):
        return []
    away, size = (x - y).norm().item(), x.norm().item()
    row = {"tensor": name, "differing": int((x != y).sum()), "of": x.numel()}
    return [row | {"largest": (x - y).abs().max().item(), "relative": away / size if size else None}]


@contextmanager
def _opened(path: Path) -> Generator[Side]:
    if release.is_release(path):
        opened = release.open_release(path)
        used = {e.ours: e for e in opened.tensors if e.ours is not None and e.reason != mapping.TIED}
        shapes = {name: entry.shape for name, entry in used.items()}

        def read(name: str) -> Tensor:
            with open_tensors(path / used[name].file) as shard:
                return shard.get_tensor(used[name].name)

        yield Side(opened.release, "", shapes, read)
        return
    found = open_checkpoint(path)
    with open_tensors(found.folder / "model.safetensors") as whole:
        shapes = {name: tuple(whole.get_slice(name).get_shape()) for name in whole.keys()}  # noqa: SIM118
        yield Side(found.recipe, found.recipe.unfinished(found.step), shapes, whole.get_tensor)
