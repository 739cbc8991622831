"""Factors: levels, what is refused, the price of a crossing, and crossings of a tiny network run to the end."""

from __future__ import annotations

import json

import pytest
from helpers import lm_worlds, released
from helpers.released import llada

from repro.core.errors import Usage
from repro.evals.__main__ import main as evals
from repro.evals.factor_levels import FACTORS, read_factors, said
from repro.results.__main__ import main as results
from repro.results.crossing import SETTINGS
from repro.results.store import collect

tokenizer = released.tokenizer  # its fixture


def test_levels():
    assert read_factors("template,batch=1|16,steps=2|0.5|all") == {
        "template": ("none", "chat"),
        "batch": (1, 16),
        "steps": (2.0, 0.5, "all"),
    }
    assert said(read_factors("steps=2|0.5|all,seed=3|4")) == "steps 2|0.5|all x seed 3|4"
    for name in FACTORS:
        assert len(read_factors(name)[name]) > 1 and name in SETTINGS


@pytest.mark.parametrize(
    "text, message",
    [
        ("templates", "no factor 'templates'; nearest is 'template'"),
        ("batch=1|2,batch", "factor 'batch' is given twice"),
        ("batch=0|2", "factor batch: '0' is no level of this factor; give a whole number, 1 or more"),
        ("shots=1|-2", "factor shots: '-2' is no level of this factor; give a whole number, 0 or more"),
        ("template=none|plain", "factor template: 'plain' is no level of this factor; give none or chat"),
        (
            "precision=float16|float32",
            "'float16' is no level of this factor; give float32 or bfloat16 or int8",
        ),
        (
            "steps=1|0",
            "factor steps: '0' is no level of this factor; give a positive number of tokens per step, or all",
        ),
        ("seed=1|1", "factor seed: level 1 is given twice"),
        ("steps=4", "factor steps has one level, '4'; give several separated by '|', or --tokens-per-step"),
    ],
)
def test_wrong_factors_are_one_line(text, message):
    with pytest.raises(ValueError) as refused:
        read_factors(text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.fixture
def world(tmp_path, tokenizer, monkeypatch):
    """Folder of a tiny LLaDA with a chat template, and its arguments."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    folder = llada(tmp_path / "release", tokenizer)[0]
    tokens = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens), "utf-8")
    return folder, lm_worlds.tasks(tmp_path, rows=8)


def test_a_crossing_of_a_likelihood_task(world, tmp_path, capsys):
    """Four records that differ in what was crossed; in float32 the batch size flips no item; nothing runs twice."""
    folder, tasks = world
    argv = ["--ckpt", str(folder), "--chat-template", "seed", "--tasks", str(tasks["choice"]), "--estimator"]
    argv += [
        "llada_mc:batch=1,draws=2",
        "--factors",
        "template,batch=1|4",
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    assert evals(argv) == 0
    found = json.loads(capsys.readouterr().out)
    (table,) = found["factors"]
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["template", "batch"] and len(found["records"]) == table["cells"] == 4
    assert rows["batch"]["flips"] == 0 and rows["batch"]["swing"]["change"] == 0
    assert rows["template"]["flips"] > 0 and table["n"] == 8
    assert {record["measurements"]["batch"] for record in found["records"]} == {1, 4}
    assert {record["question"]["limit"] for record in found["records"]} == {300}
    assert len({record["id"] for record in found["records"]}) == 2
    stored = collect(tmp_path / "out")
    again = [record.sha256 for record in stored]
    assert evals(argv) == 0 and [record.sha256 for record in collect(tmp_path / "out")] == again
    assert json.loads(capsys.readouterr().out)["factors"] == found["factors"]
    assert results(["factors", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["factors"]


def test_a_crossing_of_a_generating_task(world, tmp_path, capsys):
    """Precision is crossed by loading again, samplers as they are named; a lost record is missing by name."""
    folder, tasks = world
    argv = ["--ckpt", str(folder), "--tasks", str(tasks["writing"]), "--samplers", "random,low_confidence"]
    argv += ["--tokens-per-step", "4", "--factors", "precision", "--limit", "2"]
    assert evals(argv) == 0
    printed = capsys.readouterr()
    assert "over 2 items in 4 combinations" in printed.out
    assert "ranking of samplers under one template (none)" in printed.out
    assert "all combinations of precision float32|bfloat16: 2 evaluations in bfloat16" in printed.err
    out = tmp_path / "runs" / "factors" / "release"
    assert str(out / "raw") in printed.err
    (file,) = (out / "raw").glob("*.jsonl")
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([*lines[:3], ""]), "utf-8")
    with pytest.raises(
        ValueError, match="1 of 4 combinations of precision x sampler are missing: precision=bfloat16"
    ):
        results(["factors", str(out)])


def test_the_price_comes_first(world, capsys):
    """Evaluations that answer several combinations count once: a generating task has no draws."""
    folder, tasks = world
    both = f"{tasks['choice']},{tasks['writing']}"
    argv = ["plan", "--ckpt", str(folder), "--tasks", both, "--samplers", "random", "--tokens-per-step", "4"]
    assert evals([*argv, "--factors", "template,batch=1|4,draws=8|16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["combinations"], found["evaluations"]) == (8, 2 * 2 * 2 + 2 * 2)
    assert evals([*argv, "--factors", "template,batch"]) == 0
    text = capsys.readouterr().out
    assert (
        "all combinations of template none|chat x batch 1|8" in text
        and "4 combinations, 8 evaluations" in text
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--factors", "batch", "--batch-size", "2"], "batch is a factor, and --batch-size sets it"),
        (["--factors", "seed", "--seeds", "1"], "seed is a factor, and --seeds sets it"),
        (
            ["--factors", "steps", "--tokens-per-step", "2"],
            "steps is a factor, and --tokens-per-step sets it",
        ),
        (["--factors", "template"], "this model's data has no chat template"),
        (
            ["--factors", "draws", "--estimator", "duel"],
            "the estimator of task 'choice' .duel. draws nothing",
        ),
        (["--factors", "steps"], "tokens per step given, but no task"),
        (["--factors", "batch", "--limit", "1"], "limit=1: one item has no variance"),
    ],
)
def test_what_cannot_be_crossed_is_refused(flags, message, world):
    folder, tasks = world
    with pytest.raises(ValueError, match=message):
        evals(["--ckpt", str(folder), "--tasks", str(tasks["choice"]), *flags])


def test_tasks_and_checkpoints_without_the_factor_are_refused(world, tmp_path):
    folder, tasks = world
    oracle = ["--ckpt", "oracle:mdlm@nano"]
    with pytest.raises(ValueError, match="oracle:mdlm@nano holds no released weights"):
        evals([*oracle, "--factors", "precision"])
    with pytest.raises(ValueError, match=r"task '.*' has no result per item"):
        evals([*oracle, "--factors", "batch"])
    with pytest.raises(ValueError, match="random does not run at an adaptive number of tokens per step"):
        writing = ["--ckpt", str(folder), "--tasks", str(tasks["writing"])]
        evals([*writing, "--samplers", "random,threshold_0.9", "--factors", "steps=2|4"])
    with pytest.raises(Usage, match="--factors needs a checkpoint"):
        evals(["plan", "--factors", "batch"])
    assert not (tmp_path / "runs" / "factors").exists() or not collect(tmp_path / "runs" / "factors")
