"""Released weights in a GGUF file, llama.cpp's format: unpacked once into a folder of safetensors, which is loaded.

    folder = unpacked(file)                 runs/data/gguf2-DIGEST/NAME, made at the first call

Architectures (llama.cpp's names): `llama`, `qwen2`, `llada`, `dream`. Quantised tensors are dequantised to float32 by
the package `gguf`; configuration, tokenizer and chat template come from the file's metadata. The folder is in the
layout of the family's authors (`repro.hub.llama`, `.llada`, `.dream`), so its tensors pass the same checks.

llama.cpp stores the rows of the query and key matrices of `llama` and `llada` in another order, because it rotates
neighbouring pairs of features where transformers rotates the two halves (ggml-org/llama.cpp@051139f
conversion/llada.py: permute); the order is undone here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from repro.core.errors import nearest
from repro.core.files import atomically, file_digest, runs
from repro.core.reading import convert, foreign
from repro.hub import packaged
from repro.hub.gguf_header import check_header, check_places
from repro.hub.mapping import WHOLE

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from tokenizers import Tokenizer

SUFFIX = ".gguf"
LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Tensors of a layer: llama.cpp's name -> transformers' name."""
LLADA_LAYERS = {
    "attn_norm": "attn_norm",
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "attn_out",
    "ffn_norm": "ff_norm",
    "ffn_gate": "ff_proj",
    "ffn_up": "up_proj",
    "ffn_down": "ff_out",
}
"""Tensors of a layer: llama.cpp's name -> LLaDA's name."""
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt-2": None,
    "smollm": "digits",
    "llama-bpe": QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
    "qwen2": QWEN2_SPLIT,
    "deepseek-r1-qwen": QWEN2_SPLIT,
    "llada-moe": QWEN2_SPLIT,
    "bailingmoe": QWEN2_SPLIT,
}
"""How text is split before byte-pair encoding, by the name in `tokenizer.ggml.pre` (ggml-org/llama.cpp@00ad355
src/llama-vocab.cpp): a pattern; "digits": each digit alone, then GPT-2's pattern; None: GPT-2's pattern."""
AGAIN = "convert the weights again"
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
"""A number of layers, heads, features or tokens."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens (`tokenizer.ggml.token_type`) that are never split: special ones, and plain ones that were added."""


@dataclass(frozen=True)
class Architecture:
    """How a GGUF file of one of llama.cpp's architectures is converted to the layout in which its authors released it.

    `config`: function from the metadata to config.json; `layer`: prefix of the authors' names of the tensors of layer
    {i}; `layers`, `top`: llama.cpp's name -> authors' name of tensors in and outside layers; `pairs`: whether the rows
    of query and key matrices must be reordered (`_halves`).
    """

    config: Callable[[Metadata], dict[str, Any]]
    layer: str
    layers: Mapping[str, str]
    top: Mapping[str, str]
    pairs: bool

    def name(self, theirs: str) -> str:
        """The authors' name of the tensor that llama.cpp calls `theirs`; an unknown name is returned unchanged."""
        stem, _, kind = theirs.rpartition(".")
        if stem in self.top:
            return f"{self.top[stem]}.{kind}"
        block, _, rest = stem.removeprefix("blk.").partition(".")
        if stem.startswith("blk.") and rest in self.layers:
            return f"{self.layer.format(i=block)}.{self.layers[rest]}.{kind}"
        return theirs


class Metadata:
    """Keys and values of a GGUF file; the key `block_count` finds that of its architecture, `llama.block_count`."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path, self._fields = path, fields
        self.architecture = str(fields.get("general.architecture"))[:100]

    def need(self, key: str, kind: Any) -> Any:
        """The value of the metadata key `key`, converted by msgspec to the type `kind`; ValueError, naming the file and
        the key, if it is missing or of another type."""
        value = self.get(key, kind)
        if value is None:
            raise ValueError(f"{self.path} has no {key!r} in its metadata; {AGAIN}")
        return value

    def get(self, key: str, kind: Any, default: Any = None) -> Any:
        """Value of the metadata key `key` as type `kind`; `default` if it is missing, ValueError for another type."""
        full = f"{self.architecture}.{key}"
        name = full if full in self._fields else key
        if name not in self._fields:
            return default
        found = convert(self._fields[name], kind, f"{self.path}: {name}", AGAIN)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{self.path}: {name} is {found}, not a finite number; {AGAIN}")
        return found

    def tokens(self) -> list[str]:
        """The texts of all tokens, in the order of their ids; ValueError if two ids have the same text."""
        found = self.need("tokenizer.ggml.tokens", list[str])
        if len(set(found)) < len(found):
            twice = next(token for token, times in Counter(found).items() if times > 1)
            raise ValueError(f"{self.path}: tokenizer.ggml.tokens has {twice!r} twice; {AGAIN}")
        return found

    def specials(self) -> dict[str, int]:
        """Ids of the special tokens that the file names: "bos", "eos", "pad", "unk", "eot", "mask"; ValueError for an
        id that no token has."""
        keys = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "eot": "eot", "mask": "mask"}
        size, found = len(self.tokens()), {}
        for name, key in keys.items():
            value = self.get(full := f"tokenizer.ggml.{key}_token_id", int)
            if value is not None:
                if not 0 <= value < size:
                    raise ValueError(
                        f"{self.path}: {full} is {value}, but ids of tokens are 0 to {size - 1}; {AGAIN}"
                    )
                found[name] = value
        return found


def unpacked(path: Path) -> Path:
    """The folder with the contents of the GGUF file `path`: config.json, tokenizer.json and float32 safetensors.

    Written at the first call, under a name with the file's SHA-256. Raises ValueError, with a one-line message, if the
    file is truncated or of an unsupported architecture, tokenizer or quantisation, or the package `gguf` is missing.
    """
    check_header(path)
    folder = runs() / "data" / f"gguf2-{file_digest(path)[:16]}" / path.stem
    if folder.is_dir():
        return folder
    reader = _reader(path)
    with foreign(path, "GGUF file"):
        fields = {key: _value(field.contents()) for key, field in reader.fields.items()}
    metadata = Metadata(path, fields)
    if metadata.architecture not in ARCHITECTURES:
        raise ValueError(
            f"{path}: architecture {metadata.architecture!r} is not supported;"
            f" {nearest(metadata.architecture, ARCHITECTURES)}"
        )
    tokenizer = _tokenizer(metadata)
    tensors = _tensors(path, reader, metadata, ARCHITECTURES[metadata.architecture])
    config = ARCHITECTURES[metadata.architecture].config(metadata) | {
        f"{name}_token_id": token for name, token in metadata.specials().items() if name != "eot"
    }
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config.setdefault("tie_word_embeddings", tied)
    from safetensors.numpy import save_file

    with atomically(folder) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / WHOLE, {"format": "pt"})
        tokenizer.save(str(temporary / "tokenizer.json"))
        for name, content in _described(metadata, config).items():
            (temporary / name).write_text(json.dumps(content, indent=1), "utf-8")
    return folder


def gguf_folder(name: str | Path) -> Path | None:
    """Unpacked folder of the GGUF file `name`: a path, or a name of `repro.hub.packaged` ("smollm2"); else None."""
    path = packaged.file(str(name)) if packaged.named(name) else Path(name)
    return unpacked(path) if path.suffix.lower() == SUFFIX and path.is_file() else None


def _reader(path: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise ValueError(f"{path}: GGUF files need the package gguf; pip install 'dlm-repro[gguf]'") from None
    with foreign(path, "GGUF file"):
        reader = GGUFReader(path)
    check_places(path, reader)
    return reader


def _value(content: Any) -> Any:
    """A value of the metadata; a float32 becomes the shortest decimal that rounds to it (1e-05, not 9.99999975e-06)."""
    return float(str(np.float32(content))) if isinstance(content, float) else content


def _tensors(path: Path, reader: GGUFReader, metadata: Metadata, to: Architecture) -> dict[str, np.ndarray]:
    """Authors' name -> float32 array of every tensor of the file; `to` says what the authors call each tensor."""
    heads = {"attn_q": metadata.need("attention.head_count", Size)}
    heads["attn_k"] = metadata.get("attention.head_count_kv", Size, heads["attn_q"])
    found: dict[str, np.ndarray] = {}
    for tensor in reader.tensors:
        values = _dequantised(path, tensor)
        part = tensor.name.rpartition(".")[0].rpartition(".")[2]
        if to.pairs and part in heads:
            if values.size == 0 or len(values) % (2 * heads[part]):
                raise ValueError(
                    f"{path}: tensor {tensor.name!r} has {len(values)} rows, not an even number in each"
                    f" of {heads[part]} heads (attention.head_count, attention.head_count_kv); {AGAIN}"
                )
            values = _halves(values, heads[part])
        found[to.name(tensor.name)] = values
    return found


def _dequantised(path: Path, tensor: ReaderTensor) -> np.ndarray:
    from gguf.quants import dequantize

    try:
        flat = dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: tensor {tensor.name!r} is stored as {tensor.tensor_type.name}, which cannot be read here"
            f" ({error}); convert the weights to another quantisation"
        ) from None
    return np.ascontiguousarray(flat.reshape(tuple(reversed(tensor.shape.tolist()))), dtype=np.float32)


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """The `rows` [heads * 2 P, ...] of a query or key matrix or bias, reordered as in transformers: the P pairs of
    neighbours in a head, which the rotary embedding rotates, become all first members, then all second members."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _tokenizer(metadata: Metadata) -> Tokenizer:
    """The byte-level BPE tokenizer of the metadata; ValueError for another kind, and for an unknown word splitting."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    kind = metadata.need("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise ValueError(
            f"{metadata.path}: tokenizer {kind!r} is not supported, only 'gpt2' (byte-level BPE) is; give the folder of"
            " the original weights"
        )
    split = metadata.need("tokenizer.ggml.pre", str)
    if split not in SPLITS:
        raise ValueError(f"{metadata.path}: unknown tokenizer.ggml.pre {split!r}; {nearest(split, SPLITS)}")
    # Llama 3: a word that is a token is not split by merges, and BOS comes first unless the file says otherwise
    # (`ignore_merges` and `add_bos` in ggml-org/llama.cpp@eb6a99c src/llama-vocab.cpp)
    whole = split == "llama-bpe"
    tokens, merges = metadata.tokens(), metadata.need("tokenizer.ggml.merges", list[str])
    with foreign(metadata.path, "GGUF file with a byte-level tokenizer"):
        pairs = [tuple(merge.split(" ")) for merge in merges]
        made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, pairs, ignore_merges=whole))
    pattern = SPLITS[split]
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern in (None, "digits"))
    before = {None: [], "digits": [pre_tokenizers.Digits(individual_digits=True)]}.get(
        pattern, [pre_tokenizers.Split(Regex(pattern or ""), "isolated")]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, by_bytes])
    made.decoder = decoders.ByteLevel()
    kinds = metadata.get("tokenizer.ggml.token_type", list[int], [0] * len(tokens))
    if len(kinds) != len(tokens):
        raise ValueError(
            f"{metadata.path}: tokenizer.ggml.token_type has {len(kinds)} values for {len(tokens)} tokens; {AGAIN}"
        )
    added = [
        AddedToken(token, normalized=False, special=kind == CONTROL)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    made.add_tokens(added)
    bos = metadata.specials().get("bos")
    if metadata.get("tokenizer.ggml.add_bos_token", bool, whole) and bos is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return made


def _described(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    """File name -> content of each JSON file of the unpacked folder; `config`: content of config.json."""
    tokens, ids = metadata.tokens(), metadata.specials()
    named = {f"{name}_token": tokens[token] for name, token in ids.items() if name not in ("eot", "mask")}
    ends = [ids[name] for name in ("eos", "eot") if name in ids]
    return {
        "config.json": config,
        "tokenizer_config.json": named
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": metadata.get("tokenizer.chat_template", str),
        },
        "generation_config.json": {"eos_token_id": ends},
    }


def _vocab_size(metadata: Metadata) -> int:
    return metadata.get("vocab_size", Size, len(metadata.tokens()))


def _like_llama(kind: str) -> Callable[[Metadata], dict[str, Any]]:
    """A function from the metadata to the fields of a config.json of transformers' Llama with the model_type `kind`."""

    def config(metadata: Metadata) -> dict[str, Any]:
        heads, width = metadata.need("attention.head_count", Size), metadata.need("embedding_length", Size)
        return {
            "model_type": kind,
            "vocab_size": _vocab_size(metadata),
            "hidden_size": width,
            "num_hidden_layers": metadata.need("block_count", Size),
            "num_attention_heads": heads,
            "num_key_value_heads": metadata.get("attention.head_count_kv", Size, heads),
            "head_dim": metadata.get(
                "attention.key_length", Size, metadata.get("rope.dimension_count", Size)
            ),
            "intermediate_size": metadata.need("feed_forward_length", Size),
            "rms_norm_eps": metadata.need("attention.layer_norm_rms_epsilon", Positive),
            "max_position_embeddings": metadata.need("context_length", Size),
            "hidden_act": "silu",
            "rope_parameters": {
                "rope_theta": metadata.get("rope.freq_base", Positive, 10_000.0),
                "rope_type": _unscaled(metadata),
            },
        }

    return config


def _llada(metadata: Metadata) -> dict[str, Any]:
    """The fields of a config.json in the format of LLaDA's authors, from the metadata."""
    heads = metadata.need("attention.head_count", Size)
    _unscaled(metadata)
    return {
        "model_type": "llada",
        "vocab_size": _vocab_size(metadata),
        "embedding_size": _vocab_size(metadata),
        "d_model": metadata.need("embedding_length", Size),
        "n_layers": metadata.need("block_count", Size),
        "n_heads": heads,
        "n_kv_heads": metadata.get("attention.head_count_kv", Size, heads),
        "mlp_hidden_size": metadata.need("feed_forward_length", Size),
        "rms_norm_eps": metadata.need("attention.layer_norm_rms_epsilon", Positive),
        "rope_theta": metadata.get("rope.freq_base", Positive, 10_000.0),
        "max_sequence_length": metadata.need("context_length", Size),
        "weight_tying": False,
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
    }


def _unscaled(metadata: Metadata) -> str:
    """transformers' `rope_type` for positions without rescaling, "default"; ValueError if the metadata rescale them."""
    kind = metadata.get("rope.scaling.type", str, "none")
    if kind != "none":
        raise ValueError(
            f"{metadata.path}: rope.scaling.type is {kind!r}; only unscaled positions are supported"
        )
    return "default"


_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLADA_TOP = {
    "token_embd": "model.transformer.wte",
    "output_norm": "model.transformer.ln_f",
    "output": "model.transformer.ff_out",
}
ARCHITECTURES = {
    "llama": Architecture(_like_llama("llama"), "model.layers.{i}", LAYERS, _TOP, pairs=True),
    "qwen2": Architecture(_like_llama("qwen2"), "model.layers.{i}", LAYERS, _TOP, pairs=False),
    "dream": Architecture(_like_llama("dream"), "model.layers.{i}", LAYERS, _TOP, pairs=False),
    "llada": Architecture(_llada, "model.transformer.blocks.{i}", LLADA_LAYERS, _LLADA_TOP, pairs=True),
}
"""llama.cpp's name of an architecture (`general.architecture`) -> how it is read."""
