"""A checkpoint of each recipe, exported, is read back here with the same numbers; others find tokenizer and card."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from helpers import gguf_files
from helpers.toy import toy

from repro import checkpoint as command
from repro import load, sample, score
from repro.core import parts, registry
from repro.evals.export import _write_tokenizer
from repro.evals.planning.plan import released, subject
from repro.recipes.scale import CORPORA
from repro.training.exporting import in_transformers, is_export
from repro.training.loop import train


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


def exported(name, tmp_path, *flags, recipe=None):
    run = train(recipe or toy(name), seed=0, out=tmp_path / "run", stop=1, resume=False)
    assert command.main(["export", str(run), "--hf", str(tmp_path / "out"), *flags]) == 0
    return run, tmp_path / "out"


FEW = ("llada", "ar", "duo_owt")
"""A Llama with learned positions in both directions and left to right, and a DiT."""


@pytest.mark.parametrize(
    "name",
    [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in registry.RECIPES if name not in FEW)],
)
def test_every_recipe_is_read_back(name, tmp_path, capsys):
    """The same digest, data and texts; toy Llamas with learned positions and DiTs, which transformers lacks, too, as
    the command says at once."""
    run, out = exported(name, tmp_path)
    before, after = load(run, "raw"), load(out)
    said = capsys.readouterr().out
    assert ("transformers does not have this network" in said) != in_transformers(after.denoiser)
    assert "weights to" in said and f"repro.sample --ckpt {out}" in said
    assert command.main(["show", str(out)]) == 0
    first, _, last = capsys.readouterr().out.splitlines()
    assert first == f"{before.recipe.name} ({before.unfinished})  seed 0  step {before.step}  {out}"
    assert last.startswith(f"{before.digest}  ") and last.endswith(" weights of the run")
    with pytest.raises(
        ValueError, match=r"was written by `checkpoint export`, .* see `python -m repro.checkpoint show"
    ):
        command.main(["inspect", str(out)])
    with pytest.raises(ValueError, match="was written by `checkpoint export` and is no run"):
        command.main(["diff", str(run), str(out)])
    assert is_export(out) and after.digest == before.digest and after.data == before.data
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.denoiser.parameters(), after.denoiser.parameters(), strict=True)
    )
    assert sample(after, n=1, seed=4) == sample(before, n=1, seed=4)


def test_the_tokenizer_and_settings_are_those_of_the_data(tmp_path):
    from transformers import PreTrainedTokenizerFast

    run, out = exported("mdlm", tmp_path, "--weights", "ema")
    model = load(out)
    assert model.weights == "ema" and model.digest == load(run).digest
    theirs = PreTrainedTokenizerFast.from_pretrained(out)
    assert theirs("ABC7")["input_ids"] == list(model.data.encode("ABC7"))
    assert theirs.decode(model.data.encode("ABC7")) == "ABC7"
    vocabulary = model.data.vocabulary()
    assert (theirs.mask_token_id, theirs.bos_token_id) == (vocabulary.mask, vocabulary.bos)
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["max_length"] == model.data.row_length() and settings["bos_token_id"] == vocabulary.bos
    with pytest.raises(ValueError, match="holds ema weights; leave out --weights raw"):
        load(out, "raw")


def test_special_tokens_beyond_a_learned_tokenizer_have_the_ids_of_the_network(tmp_path):
    """transformers numbers tokens that tokenizer.json lacks itself: [BOS] before [MASK]."""
    from transformers import PreTrainedTokenizerFast

    _write_tokenizer(CORPORA["micro"], tmp_path)
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(tmp_path), CORPORA["micro"].vocabulary()
    assert (theirs.mask_token_id, theirs.bos_token_id) == (ours.mask, ours.bos) == (4096, 4097)


def test_the_card_has_settings_digests_and_results(tmp_path, monkeypatch):
    brief = parts.brief
    monkeypatch.setattr(parts, "brief", lambda value: brief(value) + "a|b")
    run = train(toy("duo"), seed=0, out=tmp_path / "run", stop=1, resume=False)
    (record,) = score(run, "ancestral", "law", 8, samples=10)
    assert command.main(["export", str(run), "--hf", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    metric = record.answer.metrics["excess"]
    assert f"| law | ancestral | 8 | excess | {metric.value:.2f}"[:38] in card
    for said in (
        record.question.checkpoint.digest,
        "The Diffusion Duality",
        "| optimizer.lr | `",
        "`repro` reads it",
    ):
        assert said in card
    assert load(run).recipe.digest() in card and "No results" not in card
    settings = [line for line in card.splitlines() if line.startswith("| optimizer.")]
    assert len(settings) > 3 and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in settings)


def test_a_changed_folder_is_refused(tmp_path):
    _, out = exported("ar", tmp_path)
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="was changed"):
        load(out)
    path.unlink()
    with pytest.raises(ValueError, match="is missing"):
        load(out)


def test_push_says_what_it_would_send(tmp_path, capsys, monkeypatch):
    run, out = exported("ar", tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda *a, **k: pytest.fail("sent"))
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *a, **k: pytest.fail("created"))
    capsys.readouterr()
    assert command.main(["push", str(out), "me/ar-nano", "--dry-run"]) == 0
    text = capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"README.md", "repro.json", "tokenizer.json", "config.json"} < names
    assert all(name in text for name in names)
    assert re.search(r"would send \d+ files, [\d,]+ bytes, to https://huggingface.co/me/ar-nano", text)
    with pytest.raises(ValueError, match="is no name on the Hub; give OWNER/NAME"):
        command.main(["push", str(out), "nano", "--dry-run"])
    with pytest.raises(ValueError, match="is no exported folder"):
        command.main(["push", str(run), "me/x", "--dry-run"])

    def refuse(*arguments, **named):
        raise OSError("401 Unauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(ConnectionError, match=r"did not take me/x \(401 Unauthorized\)"):
        command.main(["push", str(out), "me/x"])


def test_a_plan_takes_what_an_evaluation_takes(tokenizer, tmp_path, monkeypatch):
    """A run, its export, a recipe's name, and a GGUF file, whose network is sized."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    run, out = exported("llada", tmp_path)
    wanted = load(run)
    for place in (run, out):
        model, size = subject(str(place))
        assert (model.recipe.digest(), size) == (wanted.recipe.digest(), wanted.size()) and not released(
            str(place)
        )
    with pytest.raises(ValueError, match=r"recipe mdlm@nano has no run at .*; train it"):
        subject("mdlm@nano")
    shutil.copytree(run, tmp_path / "runs" / "mdlm@nano-s0")
    assert subject("mdlm@nano")[0].step == wanted.step
    folder = gguf_files.folder_of("llama", tmp_path / "theirs", tokenizer / "tokenizer.json")
    file = gguf_files.write("llama", folder, tmp_path / "theirs.gguf")
    assert released(str(file)) and subject(str(file))[1] is not None
