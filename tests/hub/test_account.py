"""What becomes of each tensor of a folder; defects of its files are one line."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from helpers import released
from helpers.released import (
    LLADA,
    llada,
    mdlm,
    sharded,
)
from safetensors.torch import load_file

from repro import checkpoint as checkpoint_command
from repro.hub.release import open_release

tokenizer = released.tokenizer  # a fixture


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


# --- what becomes of each tensor ----------------------------------------------------------------------------


def test_inspect_lists_what_becomes_of_every_tensor(tmp_path, tokenizer, capsys):
    folder, weights = mdlm(tmp_path / "mdlm", tokenizer, True)
    assert checkpoint_command.main(["inspect", str(folder)]) == 0
    head, *lines, sums, fingerprint = capsys.readouterr().out.splitlines()
    bytes_of = b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))
    assert fingerprint == f"fingerprint {hashlib.sha256(bytes_of).hexdigest()}"
    assert head.startswith("MDLM's DiT: mdlm")
    assert {line.split()[0] for line in lines} == set(weights)
    (ignored,) = [line for line in lines if "ignored" in line]
    assert ignored.startswith("backbone.rotary_emb.inv_freq") and "computed from the base" in ignored
    assert sums == f"{len(weights)} tensors in 2 files: {len(weights) - 1} used, 1 ignored"


def drop(weights, folder):
    del weights["model.transformer.blocks.1.up_proj.weight"]
    sharded(weights, folder)


def add(weights, folder):
    sharded({**weights, "model.transformer.blocks.0.extra.weight": torch.zeros(3)}, folder)


def layer(weights, folder):
    name = "model.transformer.blocks.{}.q_proj.weight"
    sharded({**weights, name.format(7): weights[name.format(0)]}, folder)


def integers(weights, folder):
    name = "model.transformer.wte.weight"
    sharded({**weights, name: weights[name].to(torch.int8)}, folder)


def wide(weights, folder):
    name = "model.transformer.wte.weight"
    sharded({**weights, name: torch.zeros(released.V + 24, 32)}, folder)


def truncate(weights, folder):
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose(weights, folder):
    (folder / "model-00001-of-00002.safetensors").unlink()


def pickle(weights, folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def strip(weights, folder):
    (folder / "tokenizer.json").unlink()


def halve(weights, folder):
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])


def merge_ids(weights, folder):
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    vocabulary = data["model"]["vocab"]
    one, other = list(vocabulary)[50:52]
    vocabulary[one] = vocabulary[other]
    path.write_text(json.dumps(data), "utf-8")


def sizeless(weights, folder):
    config = {key: value for key, value in LLADA.items() if key not in ("vocab_size", "embedding_size")}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def break_config(weights, folder):
    (folder / "config.json").write_text("{", "utf-8")


def other_kind(weights, folder):
    (folder / "config.json").write_text('{"model_type": "lama"}', "utf-8")


def biased(weights, folder):
    (folder / "config.json").write_text(json.dumps({**LLADA, "include_bias": True}), "utf-8")


def with_config(**values):
    def changed(weights, folder):
        (folder / "config.json").write_text(json.dumps({**LLADA, **values}), "utf-8")

    return changed


def with_index(content: bytes):
    return lambda weights, folder: (folder / "model.safetensors.index.json").write_bytes(content)


def narrow(weights, folder):
    (folder / "config.json").write_text(
        json.dumps({**LLADA, "vocab_size": 900, "embedding_size": 900}), "utf-8"
    )


def lacking(weights, folder):
    config = {key: value for key, value in LLADA.items() if key != "rope_theta"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            drop,
            r"no tensor for 'network.model.layers.1.mlp.up_proj.weight' \(1 are missing\); copy the folder from",
        ),
        (add, "unknown tensor 'model.transformer.blocks.0.extra.weight'"),
        (layer, "'model.transformer.blocks.7.q_proj.weight' would fill .* does not have"),
        (integers, "stored as I8; convert it to one of F64, F32"),
        (wide, r"has shape \(1024, 32\), config.json needs \(1000, 32\)"),
        (truncate, "model-00002-of-00002.safetensors is truncated or not a safetensors"),
        (lose, "model-00001-of-00002.safetensors is missing; .* names 2 shards"),
        (pickle, "pytorch_model.bin is a pickle; only safetensors are read"),
        (strip, "tokenizer.json: No such file or directory; give an existing file"),
        (halve, "tokenizer.json: not sound JSON"),
        (merge_ids, "tokenizer.json has the id .* for .* and for "),
        (sizeless, "config.json lacks 'vocab_size'"),
        (break_config, "config.json: not sound JSON"),
        (other_kind, "model_type 'lama' is not supported; nearest is 'llama'; networks of other families"),
        (biased, "include_bias is True; only False is supported for LLaDA"),
        (narrow, "tokenizer.json has 1000 ids, more than the network.s 900"),
        (lacking, "lacks 'rope_theta'"),
        (with_config(clip_qkv=8.0), "clip_qkv is 8.0; only None is supported for LLaDA"),
        (
            with_config(n_heads=0),
            "config.json: n_heads is 0, not an integer from 1 to 16777216; copy the file from its source again",
        ),
        (with_config(embedding_size="x"), "config.json: embedding_size is 'x', not an integer"),
        (with_config(max_sequence_length=0), "config.json: max_sequence_length is 0, not an integer"),
        (with_config(d_model=None), "config.json: d_model is None, not an integer"),
        (with_config(rms_norm_eps="x"), "config.json: rms_norm_eps is 'x', not a positive number"),
        (with_config(rope_theta=None), "config.json: rope_theta is None, not a positive number"),
        (with_config(n_kv_heads="x"), "config.json: n_kv_heads is 'x', not an integer from 1"),
        (with_config(n_heads=5), "config.json: n_heads is 5, no divisor of d_model=32"),
        (with_index(b"[]"), "index.json: expected 'object', got 'array'; copy it from its source again"),
        (with_index(b'{"weight_map": []}'), "index.json: expected 'object', got 'array' - at 'weight_map'"),
        (with_index(b'{"weight_map": {"a": 1}}'), "index.json: expected 'str', got 'int'"),
        (with_index(b"\xff\xfe"), "index.json is not UTF-8 text"),
        (with_index(b"{"), "index.json: not sound JSON"),
        (
            with_index(b'{"weight_map": {"a": "../x.safetensors"}}'),
            "index.json names '../x.safetensors', no safetens",
        ),
        (with_index(b'{"weight_map": {"a": "b"}, "weight_map": {}}'), "the key 'weight_map' stands twice"),
    ],
)
def test_errors_are_one_line(spoil, message, tmp_path, tokenizer):
    folder, weights = llada(tmp_path / "llada", tokenizer)
    open_release(folder)
    spoil(weights, folder)
    with pytest.raises(ValueError, match=message) as error:
        open_release(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_opening_reads_headers_only(tmp_path, tokenizer):
    """Opening allocates no memory for weights: all parameters are on the meta device, buffers are not."""
    folder, _ = llada(tmp_path / "llada", tokenizer)
    opened = open_release(folder)
    assert all(parameter.is_meta for parameter in opened.blank.parameters())
    assert not any(buffer.is_meta for buffer in opened.blank.buffers())
    assert sum(tensor.ours is not None for tensor in opened.tensors) == len(
        dict(opened.blank.named_parameters())
    )
    assert load_file(folder / opened.tensors[0].file)
