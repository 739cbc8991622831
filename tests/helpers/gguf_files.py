"""GGUF files of tiny networks, written by the package `gguf` as llama.cpp does it, and their bytes taken apart."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from helpers import released, tiny_tokenizer
from repro.hub import gguf as ours

WIDTH = 64  # a whole number of blocks of 32, the unit of quantisation
SHAPE = {
    "vocab_size": tiny_tokenizer.SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def folder_of(kind: str, folder: Path, tokenizer: Path, tied: bool = False) -> Path:
    """A folder of the authors' layout with random weights."""
    torch.manual_seed(0)
    if kind in ("llama", "qwen2"):
        config = (LlamaConfig if kind == "llama" else Qwen2Config)(**SHAPE, tie_word_embeddings=tied)
        theirs = (LlamaForCausalLM if kind == "llama" else Qwen2ForCausalLM)(config)
        for parameter in theirs.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        theirs.save_pretrained(folder)
        shutil.copy(tokenizer, folder)
        return folder
    return getattr(released, kind)(folder, tokenizer, **({"shards": False} if kind == "llada" else {}))[0]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def swapped(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows in llama.cpp's order: rows i and i + half of a head become neighbours."""
    half = len(rows) // heads // 2
    order = [
        head * 2 * half + i + side * half for head in range(heads) for i in range(half) for side in (0, 1)
    ]
    return rows[order]


def write(kind: str, folder: Path, file: Path, quantised=None, **changed) -> Path:
    """The folder's weights as a GGUF file; `quantised`: type of the matrices; `changed`: other metadata (an empty
    text, and None as `add_bos`: the key is left out)."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    heads = config.get("num_attention_heads", config.get("n_heads"))
    kv_heads = config.get("num_key_value_heads", config.get("n_kv_heads"))
    writer = gguf.GGUFWriter(file, changed.pop("architecture", kind))
    numbers = {
        "block_count": config.get("num_hidden_layers", config.get("n_layers")),
        "embedding_length": config.get("hidden_size", config.get("d_model")),
        "feed_forward_length": config.get("intermediate_size", config.get("mlp_hidden_size")),
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "context_length": config.get("max_position_embeddings", config.get("max_sequence_length")),
    }
    for key, value in numbers.items():
        writer.add_uint32(f"{kind}.{key}", value)
    writer.add_float32(f"{kind}.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    base = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10_000.0))
    writer.add_float32(f"{kind}.rope.freq_base", base)
    bpe = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    special = set(tiny_tokenizer.SPECIALS.values())
    text = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2"} | {
        key: value for key, value in changed.items() if isinstance(value, str)
    }
    for key, value in text.items():
        if value:
            writer.add_string(key, value)
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [3 if token in special else 1 for token in tokens])
    writer.add_array("tokenizer.ggml.merges", [" ".join(merge) for merge in bpe["merges"]])
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    if changed.get("add_bos", False) is not None:
        writer.add_bool("tokenizer.ggml.add_bos_token", changed.get("add_bos", False))
    if kind in ("llada", "dream"):
        writer.add_uint32("tokenizer.ggml.mask_token_id", tiny_tokenizer.MASK)
    to = ours.ARCHITECTURES[kind]
    back = {to.name(f"{stem}.{end}"): f"{stem}.{end}" for stem in to.top for end in ("weight", "bias")}
    for layer in range(2):
        stems = [f"blk.{layer}.{stem}" for stem in to.layers]
        back |= {to.name(f"{stem}.{end}"): f"{stem}.{end}" for stem in stems for end in ("weight", "bias")}
    for name, tensor in tensors_of(folder).items():
        theirs = back[name]
        if kind in ("llama", "llada") and theirs.split(".")[-2] in ("attn_q", "attn_k"):
            tensor = swapped(tensor, heads if "attn_q" in theirs else kv_heads)
        values = tensor.float().contiguous().numpy()
        if quantised is not None and values.ndim == 2:
            packed = gguf.quants.quantize(values, quantised)
            writer.add_tensor(theirs, packed, raw_dtype=quantised)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of metadata values (ggml-org/ggml (its file gguf.md)) -> their format in `struct`."""


@dataclass
class Parts:
    """The bytes of a GGUF file taken apart, so that a test can put wrong ones together: `pairs` as (key, type, bytes of
    the value), `tensors` as [name, dimensions, type, offset]; `counts` None: the true numbers of both."""

    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int, int] | None = None
    pairs: list[tuple[str, int, bytes]] = field(default_factory=list)
    tensors: list[list[Any]] = field(default_factory=list)
    data: bytes = b""

    def data_of(self) -> bytes:
        """The file."""
        counts = self.counts or (len(self.tensors), len(self.pairs))
        head = [self.magic, struct.pack("<IQQ", self.version, *counts)]
        head += [string(key) + struct.pack("<I", kind) + value for key, kind, value in self.pairs]
        for name, dims, kind, offset in self.tensors:
            head.append(string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        found = b"".join(head)
        return found + bytes(-len(found) % 32) + self.data


def string(text: str, length: int | None = None) -> bytes:
    """A string of a GGUF file; `length`: the one that it claims to have (None: its own)."""
    data = text.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def scalar(kind: int, value: Any) -> bytes:
    return struct.pack(f"<{SCALARS[kind]}", value)


def array(kind: int, items: list[bytes], length: int | None = None) -> bytes:
    """An array of values of one type; `length`: the number that it claims to have (None: its own)."""
    return struct.pack("<IQ", kind, len(items) if length is None else length) + b"".join(items)


def parts(file: Path) -> Parts:
    """A sound GGUF file taken apart; `parts(file).data_of()` are its bytes."""
    reader, whole = gguf.GGUFReader(file), file.read_bytes()
    pairs = []
    for key, each in reader.fields.items():
        if not key.startswith("GGUF."):
            kind, *values = each.parts[2:]
            pairs.append((key, int(kind[0]), b"".join(value.tobytes() for value in values)))
    start = reader.data_offset
    tensors = [[t.name, t.shape.tolist(), int(t.tensor_type), t.data_offset - start] for t in reader.tensors]
    return Parts(pairs=pairs, tensors=tensors, data=whole[start:])
