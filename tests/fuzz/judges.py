"""Cases of judges: folders of causal language models whose tokenizer, weights or files are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz import mutations, worlds
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import fields

ARGV = ("repro.evals", "judge", "samples.jsonl", "--judge", "judge", "--rule", "duo:length=40,chunk=40")
ARGV = (*ARGV, "--out", "out")
AREA = "judge folder"
WEIGHTS = "judge/model.safetensors"


def cases(out: Path) -> Iterator[Case]:
    """Every case of a judge; `out`: folder of the worlds."""
    more: dict[str, Any] = {"also": ("/judge is", "judge"), "writes": ("out*",)}
    for file in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((out / "judge" / "judge" / file).read_text("utf-8"))
        yield from fields(AREA, "judge", f"judge/{file}", data, ARGV, mutations.write_json, **more)
    head, _ = worlds.header(out / "judge" / WEIGHTS)
    names = [name for name in head if name != "__metadata__"]
    for what, spoil in (*_forged(names), *_folders()):
        yield Case(AREA, what, "judge", ARGV, ("judge",), spoil, writes=("out*",))
    for name in JUDGES:
        argv = (*ARGV[:4], name, *ARGV[5:])
        yield Case(
            AREA, f"--judge {name[:30]}", "judge", argv, (name[:30], "judge"), _others, writes=("out*",)
        )


def _forged(names: list[str]) -> Iterator[tuple[str, Spoil]]:
    """Headers of tensors that lie, and tensors that are missing, twice or too many."""

    def of(change: Callable[[dict[str, Any]], Any]) -> Spoil:
        def spoil(folder: Path) -> None:
            found, rest = worlds.header(folder / WEIGHTS)
            change(found)
            worlds.write_header(folder / WEIGHTS, found, rest)

        return spoil

    for name in (names[0], names[-1]):
        yield f"{name} missing", of(lambda found, n=name: found.pop(n))
        yield f"{name} called x", of(lambda found, n=name: found.__setitem__("x", found.pop(n)))
        yield f"{name} once more", of(lambda found, n=name: found.__setitem__("x", found[n]))
        for key, values in {
            "shape": [[10**9, 10**9], [-1, 4], [0], [], "x", None],
            "dtype": ["F64", "I8", "X", None],
            "data_offsets": [[0, 10**12], [8, 0], [0], None],
        }.items():
            for value in values:
                yield f"{name}.{key}={value}", of(lambda f, n=name, k=key, v=value: f[n].__setitem__(k, v))


def _folders() -> Iterator[tuple[str, Spoil]]:
    """Other files in the folder."""

    def config(**fields: Any) -> Spoil:
        def spoil(folder: Path) -> None:
            path = folder / "judge" / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}), "utf-8")
            for name in ("mine.py", "modeling_mine.py"):
                (folder / "judge" / name).write_text("open('../owned', 'w')\n", "utf-8")

        return spoil

    code = {"AutoModelForCausalLM": "modeling_mine.Mine", "AutoConfig": "modeling_mine.Config"}
    for kind in ("mine", "bert", "t5", "gpt2", "llama4", "clip", "mamba"):
        yield f"model_type {kind}", config(model_type=kind)
        yield f"model_type {kind} with auto_map", config(model_type=kind, auto_map=code)
    yield "quantised", config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    yield "quantised by nothing", config(quantization_config={"quant_method": "zzz"})
    yield "empty folder", _emptied()
    yield "pickle alone", _emptied("pytorch_model.bin", b"\x80\x04cposix\nsystem\n(X\x05\0\0\0touchtR.")
    yield "index of no shards", _emptied("model.safetensors.index.json", b'{"weight_map": {}}')
    escape = b'{"metadata": {}, "weight_map": {"lm_head.weight": "../samples.jsonl"}}'
    yield "index of a shard elsewhere", _emptied("model.safetensors.index.json", escape)


def _emptied(name: str = "", content: bytes = b"") -> Spoil:
    """The folder without weights (and without anything, if `name` is empty), and one file more."""

    def spoil(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        if name:
            (folder / "judge" / name).write_bytes(content)
        else:
            shutil.rmtree(folder / "judge")
            (folder / "judge").mkdir()

    return spoil


JUDGES = (
    "empty",
    "samples.jsonl",
    "nothing",
    "",
    "..",
    "/",
    "judge/config.json",
    "a" * 5000,
    "x.gguf",
    "loop",
    "\n",
)
"""What `--judge` gives that is no judge."""


def _others(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "x.gguf").write_bytes(b"GGUF")
    (folder / "loop").symlink_to("loop")
