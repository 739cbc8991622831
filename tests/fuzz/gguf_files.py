"""Cases of GGUF files: wrong bytes, lengths and counts that lie, and each value of the metadata in other types."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz import mutations
from fuzz.machine import Case
from helpers.gguf_files import ARRAY, STRING, Parts, array, parts, scalar, string

SAMPLE = ("repro.sample", "--ckpt", "tiny.gguf", "--gen-length", "4", "--n", "1")
JUDGE = ("repro.evals", "judge", "samples.jsonl", "--judge", "tiny.gguf", "--rule", "duo:length=40,chunk=40")
JUDGE = (*JUDGE, "--out", "out")
AREA = "GGUF"
HUGE = 1 << 60
VALUES: dict[str, tuple[int, bytes]] = {
    "0": (4, scalar(4, 0)),
    "-1": (5, scalar(5, -1)),
    "2**31": (4, scalar(4, 1 << 31)),
    "2**63": (10, scalar(10, 1 << 63)),
    "nan": (6, scalar(6, float("nan"))),
    "1.5": (6, scalar(6, 1.5)),
    "true": (7, b"\x01"),
    "byte 7": (7, b"\x07"),
    "text": (STRING, string("zzz")),
    "empty": (STRING, string("")),
    "not UTF-8": (STRING, (2).to_bytes(8, "little") + b"\xff\xfe"),
    "text over the end": (STRING, string("zzz", HUGE)),
    "list": (ARRAY, array(4, [])),
    "numbers": (ARRAY, array(4, [scalar(4, 1), scalar(4, 2)])),
    "texts": (ARRAY, array(STRING, [string("a"), string("b")])),
    "endless numbers": (ARRAY, array(4, [scalar(4, 1)], HUGE)),
    "endless texts": (ARRAY, array(STRING, [string("a")], HUGE)),
    "nested": (ARRAY, array(ARRAY, [array(4, [scalar(4, 1)])])),
    "deeply nested": (ARRAY, array(ARRAY, [array(ARRAY, []) * 30_000], 1)),
    "unknown type": (77, b""),
    "array of an unknown type": (ARRAY, array(77, [b"abcd"])),
}
"""Name -> type and bytes of a value of the metadata."""
RIGHT = {
    "rope.freq_base": ("2**31", "1.5", "2**63", "0"),
    "context_length": ("2**31",),
    "attention.layer_norm_rms_epsilon": ("0", "1.5", "2**31", "2**63"),
    "tokenizer.ggml.add_bos_token": ("true", "byte 7"),
    "tokenizer.ggml.bos_token_id": ("0",),
    "tokenizer.ggml.eos_token_id": ("0",),
    "tokenizer.ggml.mask_token_id": ("0",),
}
"""End of a key -> values of `VALUES` that are right too."""


def cases(out: Path) -> Iterator[Case]:
    """Every case of a GGUF file; `out`: folder of the worlds."""
    yield from _whole()
    for world in ("gguf", "gguf_llada"):
        sound = parts(out / world / "tiny.gguf")
        for make in (_headers, _metadata, _tensors):
            for what, changed, valid, named in make(sound):
                yield _case(world, what, changed, valid, named)


def _case(world: str, what: str, changed: Parts, valid: bool, named: tuple[str, ...]) -> Case:
    def spoil(folder: Path) -> None:
        (folder / "tiny.gguf").write_bytes(changed.data_of())

    return Case(AREA, f"{world}: {what}", world, SAMPLE, ("tiny.gguf", *named), spoil, valid=valid)


def _whole() -> Iterator[Case]:
    for argv, writes in ((SAMPLE, ()), (JUDGE, ("out*",))):
        for what, spoil in (*mutations.kinds("tiny.gguf"), *mutations.texts("tiny.gguf")):
            yield Case(AREA, f"{argv[1]} {what}", "gguf", argv, ("tiny.gguf",), spoil, writes=writes)
    for share in range(12):

        def cut(folder: Path, share: int = share) -> None:
            path = folder / "tiny.gguf"
            data = path.read_bytes()
            path.write_bytes(data[: len(data) * share // 12])

        yield Case(AREA, f"the first {share} twelfths", "gguf", SAMPLE, ("tiny.gguf",), cut)


Changed = tuple[str, Parts, bool, tuple[str, ...]]


def _with(sound: Parts, change: Callable[[Parts], Any]) -> Parts:
    found = copy.deepcopy(sound)
    change(found)
    return found


def _headers(sound: Parts) -> Iterator[Changed]:
    """Wrong magic, version and counts."""
    for magic in (b"GGML", b"gguf", b"FUGG", b"\0\0\0\0"):
        yield f"magic {magic!r}", _with(sound, lambda p, m=magic: setattr(p, "magic", m)), False, ()
    for version in (0, 1, 99, 3 << 24, 0xFFFFFFFF):
        yield f"version {version}", _with(sound, lambda p, v=version: setattr(p, "version", v)), False, ()
    tensors, pairs = len(sound.tensors), len(sound.pairs)
    for wrong in ((tensors - 1, pairs), (tensors + 1, pairs), (tensors, pairs - 1), (tensors, pairs + 1)):
        yield f"counts {wrong}", _with(sound, lambda p, c=wrong: setattr(p, "counts", c)), False, ("weight",)
    for wrong in ((0, pairs), (tensors, 0), (0, 0), (HUGE, pairs), (tensors, HUGE), (1 << 63, (1 << 64) - 1)):
        yield f"counts {wrong}", _with(sound, lambda p, c=wrong: setattr(p, "counts", c)), False, ("weight",)


def _metadata(sound: Parts) -> Iterator[Changed]:
    """Each value of the metadata missing, given twice, and replaced by `VALUES`."""
    for at, (key, _, _) in enumerate(sound.pairs):
        named = (key, key.rpartition(".")[2], *_ours(key))
        free = key == "general.architecture" or key.startswith("general.")
        yield f"{key} missing", _with(sound, lambda p, i=at: p.pairs.pop(i)), _optional(key), named
        yield f"{key} twice", _with(sound, lambda p, i=at: p.pairs.append(p.pairs[i])), False, named
        for what, (kind, data) in VALUES.items():
            right = any(key.endswith(end) and what in values for end, values in RIGHT.items())
            pair = (key, kind, data)
            changed = _with(sound, lambda p, i=at, pair=pair: p.pairs.__setitem__(i, pair))
            yield f"{key}={what}", changed, right, (*named, *(("architecture",) if free else ()))
    for what in ("0", "text", "2**31", "list"):
        pair = ("general.alignment", *VALUES[what])
        yield f"alignment {what}", _with(sound, lambda p, pair=pair: p.pairs.append(pair)), False, ("weight",)
    for key in ("rope.scaling.type", "attention.key_length", "rope.dimension_count", "vocab_size"):
        name = f"{_architecture(sound)}.{key}"
        for what, (kind, data) in VALUES.items():
            pair = (name, kind, data)
            changed = _with(sound, lambda p, pair=pair: p.pairs.append(pair))
            yield f"{key}={what}", changed, False, (key, *_ours(key))


OURS = {
    "block_count": ("num_hidden_layers", "n_layers", "layers"),
    "embedding_length": ("hidden_size", "d_model", "width"),
    "feed_forward_length": ("intermediate_size", "mlp_hidden_size"),
    "head_count": ("num_attention_heads", "heads"),
    "head_count_kv": ("num_key_value_heads", "heads", "k_proj"),
    "key_length": ("head_dim",),
    "dimension_count": ("head_dim",),
    "context_length": ("max_position_embeddings", "max_sequence_length"),
    "layer_norm_rms_epsilon": ("rms_norm_eps",),
    "freq_base": ("rope_theta",),
    "mask_token_id": ("mask",),
    "vocab_size": ("embedding_size",),
}
"""End of a key -> names of the same in the unpacked folder."""


def _ours(key: str) -> tuple[str, ...]:
    return OURS.get(key.rpartition(".")[2], ())


def _optional(key: str) -> bool:
    ends = (
        "freq_base",
        "head_count_kv",
        "add_bos_token",
        "bos_token_id",
        "eos_token_id",
        "pre",
        "token_type",
    )
    return key.endswith(ends)


def _architecture(sound: Parts) -> str:
    return next(value[8:].decode() for key, _, value in sound.pairs if key == "general.architecture")


def _tensors(sound: Parts) -> Iterator[Changed]:
    """Tensors with wrong names, dimensions, types and places."""
    for at in (0, 3, len(sound.tensors) - 1):
        name, dims, _, _ = sound.tensors[at]

        def to(place: int, value: Any, at: int = at) -> Parts:
            return _with(sound, lambda p: p.tensors[at].__setitem__(place, value))

        for other in ("", "x", "blk.99.attn_q.weight", "../../x", "a" * 9999, sound.tensors[1][0]):
            if other != name:
                yield f"{name} called {other[:30]!r}", to(0, other), False, ("tensor", "weight", "x")
        for wrong in (
            *([], [0], [1], [*dims, 1], [*dims, 0], dims[:-1], [d + 1 for d in dims], [HUGE], [HUGE, HUGE]),
            *([1 << 63, 2], [1 << 32] * 2, [2] * 9, [1] * 200, [d * 2 for d in dims], list(reversed(dims))),
        ):
            if wrong != dims:
                yield f"{name} {str(wrong)[:30]}", to(1, wrong), False, ("weight", "model.", name)
        for kind in (1, 2, 8, 15, 24, 250, 0xFFFFFFFF):
            yield f"{name} type {kind}", to(2, kind), False, ("weight", "model.", name)
        for offset in (1, 4, 1 << 20, HUGE, (1 << 64) - 4):
            yield f"{name} at {offset}", to(3, offset), offset in (4, 1 << 20), ("weight", name)
        yield f"{name} missing", _with(sound, lambda p, i=at: p.tensors.pop(i)), False, ("weight", "norm")
        twice = _with(sound, lambda p, i=at: p.tensors.append(p.tensors[i]))
        yield f"{name} twice", twice, False, ("weight", name)
    nans = _with(sound, lambda p: setattr(p, "data", b"\xff" * len(p.data)))
    yield "all weights NaN", nans, False, ("weight", "NaN", "finite")
