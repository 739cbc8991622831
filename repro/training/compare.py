"""Comparison of two checkpoints, tensor by tensor; each is one of this suite or a folder of released weights.

python -m repro.checkpoint diff A B                             exit code 1 if they differ
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.core import parts
from repro.core.reading import open_tensors
from repro.hub import mapping, release
from repro.training.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One of two compared checkpoints.

    `data`: canonical JSON of its recipe or release; `shapes`: shape of each parameter, by name; `read`: function from a
    parameter's name to its tensor.
    """

    data: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


def diff(one: Path, other: Path) -> list[str]:
    """Differences between two checkpoints, one line of text each: recipe settings, then tensors; empty if equal."""
    with _opened(one) as a, _opened(other) as b:
        lines = list(_pins(a, b))
        for name in sorted(a.shapes.keys() | b.shapes.keys()):
            if name not in b.shapes or name not in a.shapes:
                lines.append(f"{name}  only in {one if name in a.shapes else other}")
            elif a.shapes[name] != b.shapes[name]:
                lines.append(f"{name}  shape {a.shapes[name]} against {b.shapes[name]}")
            else:
                lines += _values(name, a.read(name).double(), b.read(name).double())
    return lines


def _values(name: str, x: Tensor, y: Tensor) -> Iterator[str]:
    if not x.equal(y):
        away, size = (x - y).norm().item(), x.norm().item()
        count = int((x != y).sum())
        yield (
            f"{name}  {count} of {x.numel()} differ, by {(x - y).abs().max().item():.3g} at most,"
            f" norm of the difference {away / size if size else float('inf'):.3g} of its own"
        )


def _pins(a: Side, b: Side) -> Iterator[str]:
    """One line of text for each field of the two recipes or releases that differs, except the name."""
    for field in sorted(a.data.keys() | b.data.keys()):
        one, other = a.data.get(field), b.data.get(field)
        if field != "name" and one != other:
            yield f"{field}: {parts.to_json(one)} against {parts.to_json(other)}"


@contextmanager
def _opened(path: Path) -> Generator[Side]:
    if release.is_release(path):
        opened = release.open_release(path)
        used = {e.ours: e for e in opened.tensors if e.ours is not None and e.reason != mapping.TIED}
        shapes = {name: entry.shape for name, entry in used.items()}

        def read(name: str) -> Tensor:
            with open_tensors(path / used[name].file) as shard:
                return shard.get_tensor(used[name].name)

        yield Side(parts.canonical(opened.release), shapes, read)
        return
    found = open_checkpoint(path)
    with open_tensors(found.folder / "model.safetensors") as whole:
        shapes = {name: tuple(whole.get_slice(name).get_shape()) for name in whole.keys()}  # noqa: SIM118
        yield Side(parts.canonical(found.recipe), shapes, whole.get_tensor)
