"""Cases of files that the package writes for itself and reads again: chunks of the work queue, prepared corpora; and of
launch files, of which it reads what accelerate makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz import mutations
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import fields, from_json, whole

LAUNCH = ("ddp_8", "fsdp2_8", "zero2_8", "gpu_1")
"""Launch files that are spoilt (recipes/launch)."""


def cases(out: Path) -> Iterator[Case]:
    """Every case of these files; `out`: folder of the worlds."""
    yield from _chunks(out)
    yield from _corpora(out)
    yield from _launch_files(out)


# --- chunks of the work queue ----------------------------------------------------------------------------------------
def _chunks(out: Path) -> Iterator[Case]:
    from fuzz.worlds import ASKED

    for world, argv in ASKED.items():
        for path in sorted((out / world).glob("out/chunks/*/*.json")):
            file = str(path.relative_to(out / world))
            more = {"writes": ("out/*",), "keeps": ("out/chunks/*.json",)}
            yield from from_json("chunks", out, world, file, argv, **more)
            content = json.loads(json.loads(path.read_text("utf-8"))["chunk"])
            yield from fields("chunks", world, file, content, argv, _inner, **more)
            # other numbers under a right hash are right numbers
            yield from fields(
                "resealed chunks",
                world,
                file,
                content,
                argv,
                _sealed,
                valid=True,
                also=("perplexity",),
                **more,
            )


def _inner(file: str, data: Any) -> Spoil:
    """The chunk changed, and its hash not."""

    def spoil(folder: Path) -> None:
        stored = json.loads((folder / file).read_text("utf-8"))
        (folder / file).write_text(json.dumps({**stored, "chunk": json.dumps(data)}), "utf-8")

    return spoil


def _sealed(file: str, data: Any) -> Spoil:
    """The chunk changed under a hash that is right, as another version of the package might write it."""
    from repro.core.parts import sha256

    body = json.dumps(data)
    return mutations.write_json(file, {"sha256": sha256(body), "chunk": body})


# --- prepared corpora ------------------------------------------------------------------------------------------------
def _corpora(out: Path) -> Iterator[Case]:
    from fuzz.worlds import prepared_folder, toy_pins

    name = str(prepared_folder(out / "corpus").relative_to(out / "corpus"))
    argv = ("repro.recipes.mdlm", "--scale", "nano", "--steps", "1", "--out", "run", *toy_pins())
    more: dict[str, Any] = {"also": (name,), "keeps": ("runs/data/*/*",), "writes": ("run*",)}
    yield from from_json("prepared corpus", out, "corpus", f"{name}/meta.json", argv, **more)
    arrays = sorted((out / "corpus" / name).glob("*.npy"))
    for path in arrays:
        yield from whole("prepared corpus", "corpus", f"{name}/{path.name}", argv, **more)
        for what, change in _array_changes(np.load(path)):
            file = f"{name}/{path.name}"
            named = (name, path.name)
            what = f"{path.name}: {what}"
            kept = {"keeps": more["keeps"], "writes": more["writes"]}
            yield Case("prepared corpus", what, "corpus", argv, named, _saved(file, change), **kept)


def _array_changes(array: np.ndarray) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(what, the changed array) of wrong types, shapes and values."""
    for kind in (np.float64, np.int8, np.uint64, np.complex64, "U3", object, [("a", "i4")]):
        if np.dtype(kind) != array.dtype:
            yield f"as {np.dtype(kind)}", lambda kind=kind: np.zeros(array.shape, kind)
    for shape in ((), (0,), (1,), (0, *array.shape[1:]), (*array.shape, 1), array.shape[::-1]):
        if shape != array.shape:
            yield f"of shape {shape}", lambda shape=shape: np.zeros(shape, array.dtype)
    yield "one row less", lambda: array[:-1]
    yield "one column less", lambda: array[..., :-1]
    yield "in the order of Fortran", lambda: np.asfortranarray(~array if array.dtype == bool else array + 1)
    other = array.copy()
    other.flat[5] ^= True if array.dtype == bool else 1
    yield "another value", lambda: other
    largest = 1 if array.dtype == bool else np.iinfo(array.dtype).max
    yield "the largest value", lambda: np.full_like(array, largest)


def _saved(file: str, change: Callable[[], np.ndarray]) -> Spoil:
    return lambda folder: np.save(folder / file, change(), allow_pickle=True)


# --- launch files ----------------------------------------------------------------------------------------------------
def _launch_files(out: Path) -> Iterator[Case]:
    def write(file: str, data: Any) -> Spoil:
        return lambda folder: (folder / file).write_text(yaml.safe_dump(data), "utf-8")

    for name in LAUNCH:
        file = f"{name}.yaml"
        argv = ("python:launch", file)
        yield from whole("launch files", "launch", file, argv)
        data = yaml.safe_load((out / "launch" / file).read_text("utf-8"))
        more = {"also": ("ACCELERATE", "FSDP", "invalid truth value")}
        yield from fields("launch files", "launch", file, data, argv, write, **more)
        for key, value in EXTRA.items():
            changed = {**data, key: value}
            named = (file, "ACCELERATE", "FSDP")
            yield Case("launch files", f"{file}: {key}={value}", "launch", argv, named, write(file, changed))


EXTRA: dict[str, Any] = {
    "mixed_precision": "bf16",
    "gradient_accumulation_steps": 4,
    "downcast_bf16": "yes",
    "dynamo_config": {"dynamo_backend": "INDUCTOR"},
    "fp8_config": {"backend": "TE"},
    "megatron_lm_config": {"megatron_lm_tp_degree": 2},
    "parallelism_config": {"parallelism_config_tp_size": 2},
    "tpu_use_cluster": True,
    "deepspeed_config": {"zero_stage": 3},
    "fsdp_config": {"fsdp_offload_params": True},
    "unknown": 1,
}
"""Settings of accelerate beside those of the launch files."""
