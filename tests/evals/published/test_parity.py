"""Weights converted from pickles, compared tensor by tensor, and checked against a fixture recorded by other code."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import OrderedDict

import pytest
import torch
from helpers import literal, released, tiny_tokenizer
from helpers.released import IDS, V, bd3, diffusion_gemma, dream, duo, llada, mdlm
from safetensors.torch import load_file, save_file

from repro import checkpoint as checkpoint_command
from repro.hub.release import open_release

tokenizer = released.tokenizer  # its fixture


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


def run(*argv):
    return checkpoint_command.main([str(word) for word in argv])


# --- convert --------------------------------------------------------------------------------------------


class Bomb:
    """A hostile pickle: Python's own unpickler executes it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Schedule:
    """An object of the authors' own code, with state; used nested, in a list and as a key."""

    def __init__(self):
        self.betas = [1, {"a": 2}]


def lightning(folder, tokenizer, bomb=None):
    """A checkpoint in the layout of MDLM's trainer: state, averages as a list, objects of its own classes."""
    mdlm(folder, tokenizer)
    weights = load_file(folder / "model-00001-of-00002.safetensors")
    weights |= load_file(folder / "model-00002-of-00002.safetensors")
    for path in folder.glob("model*"):
        path.unlink()
    rates = {name: tensor for name, tensor in weights.items() if "inv_freq" in name}
    state = OrderedDict(rates | {name: w for name, w in weights.items() if name not in rates})
    shadow = [torch.nn.Parameter(w + 1) for name, w in state.items() if name not in rates]
    content = {"state_dict": state, "ema": {"decay": 0.9999, "shadow_params": shadow}, "epoch": 3}
    content |= {"hyper_parameters": {"config": Schedule(), "all": [Schedule(), Bomb(bomb)] if bomb else []}}
    torch.save(content, folder / "last.ckpt")
    return folder, weights


@pytest.mark.parametrize("kind", ["raw", "ema"])
def test_a_lightning_file_is_converted(kind, tmp_path, tokenizer, capsys):
    folder, weights = lightning(tmp_path / "run", tokenizer)
    with pytest.raises(ValueError, match=r"last.ckpt is a pickle; .*repro.checkpoint convert"):
        open_release(folder)
    assert run("convert", folder / "last.ckpt", "--out", tmp_path / "out", "--weights", kind) == 0
    assert f"wrote {len(weights)} tensors" in capsys.readouterr().out
    found = load_file(tmp_path / "out" / "model.safetensors")
    added = 0 if kind == "raw" else 1
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor if "inv_freq" in name else tensor + added), name
    assert len(open_release(tmp_path / "out").tensors) == len(weights)


def test_nothing_in_a_pickle_is_run(tmp_path, tokenizer):
    """Python's unpickler would have written a file; ours replaces everything but tensors with placeholders."""
    folder, _ = lightning(tmp_path / "run", tokenizer, bomb=tmp_path / "bomb")
    assert run("convert", folder / "last.ckpt", "--out", tmp_path / "out") == 0
    assert not (tmp_path / "bomb").exists()
    torch.load(folder / "last.ckpt", weights_only=False)
    assert (tmp_path / "bomb").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"PK\x03\x04 half", "is truncated or not a zip of PyTorch 1.6"),
        (pickle.dumps({"a": 1}), "is truncated or not a zip of PyTorch 1.6"),
        ({"epoch": 1}, "has no named tensors"),
        ({"state_dict": {"a": torch.ones(2)}}, "has no averaged weights"),
        (
            {"state_dict": {"a": torch.ones(2)}, "ema": {"shadow_params": [torch.ones(3)]}},
            "1 averaged weights do not",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_line(content, message, tmp_path, tokenizer):
    folder, _ = mdlm(tmp_path / "run", tokenizer)
    path = folder / "last.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        run("convert", path, "--out", tmp_path / "out", "--weights", "ema")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


# --- diff -----------------------------------------------------------------------------------------------


def test_diff_names_what_differs(tmp_path, tokenizer, capsys):
    """One file and two shards are equal; a changed number, another pin and another layout are not."""
    one, weights = llada(tmp_path / "one", tokenizer)
    other, _ = llada(tmp_path / "other", tokenizer, shards=False)
    assert run("diff", one, other) == 0 and capsys.readouterr().out == "the same network\n"
    weights["model.transformer.ln_f.weight"][3] += 0.5
    save_file(weights, other / "model.safetensors")
    assert run("diff", one, other) == 1
    head, other_head, _, line = capsys.readouterr().out.splitlines()
    assert (head, other_head) == (f"A  {one}", f"B  {other}")
    assert line.startswith("network.model.norm.weight  1 of 32 differ, by 0.5 at most")
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 10_000.0}), "utf-8")
    assert run("diff", one, other) == 1
    said = capsys.readouterr().out
    head, rule, row = said.splitlines()[3:6]
    assert head.split()[0] == "setting" and set(rule) == {"-", " "} and row.split()[0] == "backbone.rope_base"
    assert row.split()[1:] == ["500000.0", "10000.0"] and max(map(len, said.splitlines()[2:])) <= 120
    assert run("diff", one, other, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["settings"][0] == {"setting": "backbone.rope_base", "a": 500_000.0, "b": 10_000.0}
    (tensor,) = found["tensors"]
    assert (tensor["differing"], tensor["of"], tensor["largest"]) == (1, 32, 0.5)
    another, _ = mdlm(tmp_path / "mdlm", tokenizer)
    assert run("diff", one, another) == 1
    assert f"only in {another}" in capsys.readouterr().out


# --- parity ---------------------------------------------------------------------------------------------


def fixture(folder, weights):
    """A fixture of LLaDA, recorded with the reference network without code of ours."""
    where = IDS % 3 == 0
    ids = IDS.masked_fill(where, tiny_tokenizer.MASK)
    logits = literal.llada(weights, ids, 2, 4, 500_000.0, 1e-5)
    clean = logits.clone()
    clean[..., tiny_tokenizer.MASK] = -torch.inf
    nll = -clean.log_softmax(-1).gather(2, IDS[..., None])[..., 0].masked_fill(~where, 0).sum(1)
    row, written = [5, 6, 7], []
    for _ in range(4):  # one block, the most confident first
        tail = [written[i] if i < len(written) and written[i] is not None else 4 for i in range(4)]
        said = literal.llada(weights, torch.tensor([row + tail]), 2, 4, 500_000.0, 1e-5)[0, 3:]
        said[:, 4] = -torch.inf
        sure, best = said.softmax(-1).max(-1)
        written = written or [None] * 4
        free = [i for i in range(4) if written[i] is None]
        place = max(free, key=lambda i: sure[i].item())
        written[place] = int(best[place])
    folder.mkdir()
    tensors = {"ids": ids, "where": where, "target": IDS, "logits": logits[where], "nll": nll}
    save_file(tensors, folder / "fixture.safetensors")
    decode = {"preset": "low_confidence", "gen_length": 4, "block_length": 4, "steps": 4}
    note = {"format": 1, "of": "literal LLaDA", "recorded": "tests/helpers/literal.py, float32"}
    note |= {"logits_within": 1e-4, "nll_within": 1e-3}
    note["decodes"] = [{**decode, "prompt": row, "ids": written}]
    (folder / "fixture.json").write_text(json.dumps(note), "utf-8")
    return folder


def test_parity_with_numbers_of_other_code(tmp_path, tokenizer, capsys):
    """Logits, likelihood and decoded tokens pass; with a weight changed by 1 % comparisons fail and are named."""
    folder, weights = llada(tmp_path / "llada", tokenizer)
    recorded = fixture(tmp_path / "fixture", weights)
    assert run("parity", folder, "--fixture", recorded) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "literal LLaDA, recorded with tests/helpers/literal.py, float32"
    assert [line.split(":")[0] for line in lines] == [
        "pass  logits",
        "pass  nll",
        "pass  tokens of decode 0 (low_confidence)",
    ]
    assert run("parity", folder, "--fixture", recorded, "--precision", "bfloat16") == 1, "too rough for 1e-4"
    capsys.readouterr()
    weights["model.transformer.ff_out.weight"] *= 1.01
    released.sharded(weights, folder)
    assert run("parity", folder, "--fixture", recorded) == 1
    assert capsys.readouterr().out.count("FAIL  ") >= 2
    note = json.loads((recorded / "fixture.json").read_text("utf-8"))
    note["decodes"][0]["ids"][2] += 1
    note |= {"logits_within": 100.0, "nll_within": 100.0}
    (recorded / "fixture.json").write_text(json.dumps(note), "utf-8")
    assert run("parity", folder, "--fixture", recorded) == 1
    assert "FAIL  tokens of decode 0 (low_confidence): 1, allowed 0" in capsys.readouterr().out


def causal(folder, tokenizer):
    return bd3(folder, tokenizer, adaln=False, cross=False, causal=True)


@pytest.mark.parametrize("write", [llada, mdlm, duo, bd3, diffusion_gemma, causal])
def test_what_is_recorded_passes(write, tmp_path, tokenizer, capsys):
    folder, _ = write(tmp_path / "release", tokenizer)
    if write is causal:
        words = json.dumps(released.SPECIAL)
        (folder / "tokenizer_config.json").write_text(words, "utf-8")
    assert run("parity", folder, "--fixture", tmp_path / "fixture", "--record") == 0
    assert run("parity", folder, "--fixture", tmp_path / "fixture") == 0
    note = json.loads((tmp_path / "fixture" / "fixture.json").read_text("utf-8"))
    assert len(note["decodes"]) == (write not in (duo, diffusion_gemma))
    tensors = load_file(tmp_path / "fixture" / "fixture.safetensors")
    assert ("t" in tensors) == (write in (duo, bd3, diffusion_gemma)) and tensors["where"].any(1).all()
    with pytest.raises(ValueError, match="exists; give another --fixture"):
        run("parity", folder, "--fixture", tmp_path / "fixture", "--record")


@pytest.mark.parametrize("write", [dream, mdlm, duo, bd3, diffusion_gemma, causal])
def test_every_layout_is_read_in_bfloat16(write, tmp_path, tokenizer):
    """Forward and decode, including buffers of the network; close to the float32 numbers."""
    folder, _ = write(tmp_path / "release", tokenizer)
    if write is causal:
        words = json.dumps(released.SPECIAL)
        (folder / "tokenizer_config.json").write_text(words, "utf-8")
    exact, rough = (tmp_path / name for name in ("exact", "rough"))
    assert run("parity", folder, "--fixture", exact, "--record") == 0
    assert run("parity", folder, "--fixture", rough, "--record", "--precision", "bfloat16") == 0
    a, b = (load_file(path / "fixture.safetensors")["logits"] for path in (exact, rough))
    loose = 0.3 if write is diffusion_gemma else 0.1  # a rounded router may choose another expert
    assert 0 < (a - b).abs().mean() < loose * a.std()


def spoil(field, value):
    def spoiled(folder):
        note = json.loads((folder / "fixture.json").read_text("utf-8"))
        (folder / "fixture.json").write_text(json.dumps({**note, field: value}), "utf-8")

    return spoiled


def tensor(name, change):
    def spoiled(folder):
        tensors = load_file(folder / "fixture.safetensors")
        tensors[name] = change(tensors.get(name))
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "fixture.safetensors")

    return spoiled


def asking_nothing(folder):
    tensor("where", torch.zeros_like)(folder)
    tensor("logits", lambda t: t[:0])(folder)


def decoded(**values):
    def spoiled(folder):
        note = json.loads((folder / "fixture.json").read_text("utf-8"))
        (each,) = note["decodes"]
        spoil("decodes", [{**each, **values}])(folder)

    return spoiled


@pytest.mark.parametrize(
    "spoiled, message",
    [
        (spoil("format", 2), "format is 2, but this code reads 1"),
        (spoil("logits_within", "small"), "fixture.json: "),
        (spoil("logits_withn", 1.0), "fixture.json: "),
        (tensor("nll", lambda t: t[:1]), r"'nll' has shape \(1,\), expected \(2,\)"),
        (
            tensor("logits", lambda t: t[:-1]),
            r"'logits' has shape .*; give one row of V logits for each of the",
        ),
        (
            tensor("logits", lambda t: t[:, :-1]),
            f"the logits of the fixture have {V - 1} ids, those of this network {V}",
        ),
        (
            tensor("t", lambda t: torch.zeros(2)),
            "the fixture has a tensor 't', but the network is not conditioned",
        ),
        (tensor("t", lambda t: torch.zeros(3)), r"'t' has shape \(3,\), expected \(2,\) or \(2, 12\)"),
        (tensor("ids", lambda t: t[0]), r"'ids' has shape \(12,\); give rows of tokens"),
        (asking_nothing, "'where' selects no position; set at least one"),
        (tensor("ids", lambda t: t + V), rf"ids of the fixture contains id \d+, but .* ids are 0 to {V - 1}"),
        (tensor("target", lambda t: t - V), "target of the fixture contains id -"),
        (decoded(prompt=[5, V]), f"decode 0 of the fixture contains id {V}, but"),
        (decoded(ids=[5, 6]), "decode 0 has 3 ids of a prompt and 2 generated ids; give .* gen_length=4"),
        (decoded(prompt=[]), "decode 0 has 0 ids of a prompt"),
        (tensor("more", lambda t: torch.zeros(2)), "tensor 'more' is unknown, expected are ids"),
        (lambda folder: shutil.rmtree(folder), "fixture.json is missing; docs/parity.md"),
    ],
)
def test_a_fixture_that_does_not_fit_is_one_line(spoiled, message, tmp_path, tokenizer):
    folder, weights = llada(tmp_path / "llada", tokenizer)
    recorded = fixture(tmp_path / "fixture", weights)
    spoiled(recorded)
    with pytest.raises(ValueError, match=message) as error:
        run("parity", folder, "--fixture", recorded)
    assert "\n" not in str(error.value)
