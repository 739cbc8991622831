"""Recipes of records: their differing settings, and names with a train seed."""

from __future__ import annotations

import json

import pytest
from helpers.synthetic import law

from repro.core import parts
from repro.recipes.scale import by_name
from repro.results import __main__ as command
from repro.results.explain import explain, say, select
from repro.results.recipes import recipe_named, recipe_of


def test_two_recipes_are_compared_by_their_settings(tmp_path, capsys):
    """By name, or by run folders; two evaluations whose checkpoints differ list the same lines."""
    changed = parts.derive(by_name("mdlm@nano"), {"optimizer.lr": 0.5})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.json").write_text(json.dumps(parts.canonical(changed)))
    assert command.main(["explain", "mdlm@nano", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out == "optimizer.lr: 0.002 -> 0.5\n"
    assert command.main(["explain", "duo@nano", "mdlm@nano"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "learning_rate: linear(warmup=100) -> cosine(warmup=100)" in lines
    assert not any(line.startswith(("name:", "data", "batch:")) for line in lines)
    assert command.main(["explain", "mdlm@nano", "mdlm@nano"]) == 0
    assert capsys.readouterr().out == "the same settings\n"
    with pytest.raises(ValueError, match="no scale 'nan'; nearest is 'nano'"):
        recipe_named("mdlm@nan")
    assert recipe_named("mdlm@nano/law/ancestral/1") is None


def asked(record, digest):
    """The record as of a recipe with another digest."""
    data = record.data()
    data["question"]["checkpoint"]["recipe"] = digest
    from repro.results.record import Question, make_record

    return make_record(Question.read(data["question"]), data["labels"], data["answer"], data["measurements"])


def test_a_run_folder_stands_for_the_name_of_its_checkpoint(tmp_path, monkeypatch):
    """Also where the name ends in digits of a hash; -sSEED of the folder selects the train seed."""
    made = parts.derive(by_name("mdlm@nano"), {"name": "mdlm@nano+3ff1bd"})
    for name in ("mine", "mdlm-s1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.json").write_text(json.dumps(parts.canonical(made)))
    monkeypatch.chdir(tmp_path)
    records = [law("mdlm@nano+3ff1bd", "ancestral", "1", 0.1, 0.1, seed) for seed in (0, 1)]
    assert select(records, "runs/mine/law/ancestral/1") == records
    assert select(records, f"{tmp_path}/runs/mine/law") == records
    assert select(records, "runs/mdlm-s1/law/ancestral") == records[1:]
    with pytest.raises(ValueError, match="no record has the hash or label 'runs/other/law'"):
        select(records, "runs/other/law")


def test_evaluations_of_two_recipes_list_the_settings_that_differ(tmp_path):
    digests = {name: by_name(name).digest() for name in ("mdlm@nano", "llada@nano")}
    records = [asked(law(name, "ancestral", "1", 0.1, 0.1), digest) for name, digest in digests.items()]
    found = explain(records, "mdlm@nano/law", "llada@nano/law", tmp_path)
    assert found.recipes and any(line.startswith("objective: elbo(") for line in found.recipes)
    text = list(say(found))
    at = next(i for i, line in enumerate(text) if line.startswith("checkpoint.recipe"))
    assert text[at + 1 : at + 1 + len(found.recipes)] == [f"    {line}" for line in found.recipes]
    unknown = [records[0], asked(law("llada@nano", "ancestral", "1", 0.1, 0.1), "0" * 64)]
    assert explain(unknown, "mdlm@nano/law", "llada@nano/law", tmp_path).recipes is None
    made = parts.derive(by_name("llada@nano"), {"batch": 64})
    (tmp_path / "run" / "raw").mkdir(parents=True)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(parts.canonical(made)))
    for folder in (tmp_path, tmp_path / "run" / "raw"):
        assert recipe_of(made.digest(), "llada@nano+abc123", folder) == made


def test_a_name_may_hold_the_train_seed():
    records = [law("mdlm@nano", "ancestral", "1", 0.1, 0.1, seed) for seed in range(3)]
    assert len(select(records, "mdlm@nano/law/ancestral/1")) == 3
    (one,) = select(records, "mdlm@nano-s2/law/ancestral/1")
    assert one.question.checkpoint.seed == 2
    with pytest.raises(ValueError, match="no record has the hash or label 'mdlm@nano-s7/law'"):
        select(records, "mdlm@nano-s7/law")
