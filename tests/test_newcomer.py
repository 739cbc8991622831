"""The commands of examples/newcomer/README.md work, here on a tiny network of the same recipe."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from helpers.toy import overrides

from repro.core.files import ROOT
from repro.evals import __main__ as evals
from repro.evals.table import rows
from repro.recipes.command import select
from repro.recipes.scale import by_name
from repro.results import __main__ as results_command
from repro.results.store import collect
from repro.training.loop import train
from scripts.reproduce import CELLS

FOLDER = ROOT / "examples" / "newcomer"
TEXT = (FOLDER / "README.md").read_text("utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_commands_are_those_that_exist():
    training, scoring, flipping = commands()
    assert training[:5] == ["python", "-m", "repro.recipes.mdlm", "--scale", "nano.text"]
    assert scoring[:3] == ["python", "-m", "repro.evals"] and flipping[:3] == [
        "python",
        "-m",
        "repro.results",
    ]
    cell = training[training.index("--out") + 1]
    assert scoring[scoring.index("--ckpt") + 1] == flipping[-1] == cell == "runs/reproduce/mdlm@nano.text-s0"
    assert "mdlm@nano.text" in CELLS, "the README reuses the runs of make reproduce"
    assert len((FOLDER / "words.jsonl").read_text("utf-8").splitlines()) == 20


def test_a_newcomers_task_runs_by_the_readme(tmp_path, monkeypatch, capsys):
    """20 rows with three samplers at two rates, likelihoods once, then the flips of the README's two names."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(ROOT)
    pins = [pin for pin in overrides("mdlm") if not pin.startswith("data.")]
    recipe = select(by_name("mdlm"), "nano.text", pins)
    out = train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    _, scoring, flipping = commands()
    scoring[scoring.index("--ckpt") + 1] = str(out)
    assert evals.main([*scoring[3:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    drawn = [r for r in found["rows"] if r["task"] == "finish"]
    assert len({(r["preset"], r["tokens_per_step"]) for r in drawn}) == 6 and {r["n"] for r in drawn} == {20}
    (choice,) = [r for r in found["rows"] if r["task"] == "choose" and r["metric"] == "acc"]
    assert choice["preset"] is None and choice["low"] < choice["high"]
    folder = next(out.parent.glob("run*")) if out.name.startswith("step") else out
    assert rows(collect(folder))
    flipping[-1] = str(folder)
    a, b = (name.replace("mdlm@nano.text", recipe.name) for name in flipping[4:6])
    assert results_command.main([flipping[3], a, b, *flipping[6:]]) == 0
    shown = capsys.readouterr().out
    assert re.match(r"exact_match \(none\): \d+ of 20 documents differ", shown)


@pytest.mark.parametrize("name", ["finish.yaml", "choose.yaml"])
def test_each_task_file_names_the_data_file_beside_it(name):
    assert "words.jsonl" in (FOLDER / name).read_text("utf-8")
