"""Weights moved and compared: pickles into safetensors, and two checkpoints tensor by tensor.

    python -m repro.checkpoint convert last.ckpt --out OUT          Lightning or .bin; --weights ema takes the average
    python -m repro.checkpoint diff A B                             exit code 1 where they differ

A folder that is converted keeps its authors' names, configuration and tokenizer, so it loads like any other of theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repro import checkpoint, parts
from repro.files import atomically
from repro.released import layouts, mapping, pickles, release

if TYPE_CHECKING:
    from torch import Tensor

BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""What a converted folder takes along."""


def convert(source: Path, out: Path, weights: Literal["raw", "ema"]) -> int:
    """Write the tensors of a pickle, or of a folder of them, as safetensors with configuration and tokenizer beside;
    returns how many. ValueError in one line where there is none, and where a configuration is missing."""
    from safetensors.torch import save_file

    if out.exists():
        raise ValueError(f"{out} exists; give another --out, or remove it")
    folder = source if source.is_dir() else source.parent
    files = (
        sorted(p for p in folder.iterdir() if p.suffix in pickles.PICKLES) if source.is_dir() else [source]
    )
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"{source} is no pickle and no folder of them ({', '.join(pickles.PICKLES)})")
    layout, _ = layouts.recognise(folder)
    found: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in pickles.read(file, weights, layout.mapping).items():
            if name in found:
                raise ValueError(
                    f"{file}: tensor {name!r} stands in another file too; convert one of them alone"
                )
            found[name] = tensor
    with atomically(out) as temporary:
        temporary.mkdir(parents=True)
        # a clone each: tied weights share memory, which safetensors refuses
        plain = {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}
        save_file(plain, temporary / mapping.WHOLE, {"format": "pt"})
        for name in BESIDE:
            if (folder / name).is_file():
                shutil.copy(folder / name, temporary / name)
    return len(found)


# --- diff ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One of two checkpoints: what is said of it as a part, and its tensors by our names, read one at a time."""

    data: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


def diff(one: Path, other: Path) -> list[str]:
    """What differs between two checkpoints, one line each; none where they are the same network."""
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
    """Pins that differ, names apart."""
    for field in sorted(a.data.keys() | b.data.keys()):
        mine, theirs = a.data.get(field), b.data.get(field)
        if field != "name" and mine != theirs:
            yield f"{field}: {parts.to_json(mine)} against {parts.to_json(theirs)}"


@contextmanager
def _opened(path: Path) -> Generator[Side]:
    from safetensors import safe_open

    if release.is_release(path):
        opened = release.open_release(path)
        used = {e.ours: e for e in opened.entries if e.ours is not None and e.reason != mapping.TIED}
        shapes = {name: entry.shape for name, entry in used.items()}

        def theirs(name: str) -> Tensor:
            with safe_open(path / used[name].file, "pt") as shard:
                return shard.get_tensor(used[name].name)

        yield Side(parts.canonical(opened.release), shapes, theirs)
        return
    found = checkpoint.open_checkpoint(path)
    with safe_open(found.folder / "model.safetensors", "pt") as whole:
        shapes = {name: tuple(whole.get_slice(name).get_shape()) for name in whole.keys()}  # noqa: SIM118
        yield Side(parts.canonical(found.recipe), shapes, whole.get_tensor)
