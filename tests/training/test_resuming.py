"""A run goes on under another recipe only where that recipe's own run would be at the same point."""

from __future__ import annotations

import json

import pytest
from helpers.toy import curve, overrides, toy

from repro.core import parts
from repro.core.schedules import ConstantWithWarmup, Cosine, Prolonged
from repro.recipes import command
from repro.training import checkpoint as checkpoints
from repro.training.loop import train
from repro.training.resuming import longer


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


def weights(out):
    last = checkpoints.steps_in(out)[-1]
    return {path.name: path.read_bytes() for path in last.iterdir()}


def test_a_run_made_longer_is_the_longer_recipe_s_run(tmp_path):
    """Bitwise, in weights, averages, state and every logged row; twice, and also from an unfinished run."""
    recipe = toy("mdlm")
    train(recipe, seed=3, out=tmp_path / "run", stop=None, resume=False)
    once = longer(recipe, 26)
    assert once.learning_rate == Prolonged(first=Cosine(warmup=2), until=20, then=Cosine(warmup=2))
    train(once, seed=3, out=tmp_path / "run", stop=23, resume=True)
    twice = longer(once, 30)
    assert twice.learning_rate.then == Cosine(warmup=2), (
        "the same schedule starts again, not the prolonged one"
    )
    train(twice, seed=3, out=tmp_path / "run", stop=None, resume=True)
    train(twice, seed=3, out=tmp_path / "fresh", stop=None, resume=False)
    assert weights(tmp_path / "run") == weights(tmp_path / "fresh")
    extra = {"heldout_nll_bound", "heldout_error"}  # of the steps where a run would have ended
    for row, fresh in zip(curve(tmp_path / "run"), curve(tmp_path / "fresh"), strict=True):
        assert {k: v for k, v in row.items() if k not in extra - fresh.keys()} == fresh
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["name"] == twice.name != once.name


def test_a_constant_rate_stays_as_it_is():
    recipe = parts.derive(toy("mdlm"), {"learning_rate": ConstantWithWarmup(warmup=2)})
    assert longer(recipe, 30).learning_rate == recipe.learning_rate
    with pytest.raises(ValueError, match=r"--longer 20: mdlm@nano\+\w+ has 20 steps already"):
        longer(recipe, 20)


def test_what_differs_is_named(tmp_path):
    train(toy("mdlm"), seed=3, out=tmp_path, stop=5, resume=False)

    def refused(match, *pins):
        with pytest.raises(ValueError, match=match):
            train(toy("mdlm", *pins), seed=3, out=tmp_path, stop=None, resume=True)

    refused(
        r"settings differ: optimizer.lr 0.002 -> 0.1, batch 8 -> 16; give", "optimizer.lr=0.1", "batch=16"
    )
    other = parts.derive(toy("mdlm"), {"learning_rate": {"part": "linear", "warmup": 2}})
    with pytest.raises(ValueError, match=r"another learning rate than .* at step 3"):
        train(other, seed=3, out=tmp_path, stop=None, resume=True)
    refused(r"another learning rate than .* at step 3", "steps=40")
    train(toy("mdlm", "log_every=2", "heldout_every=7"), seed=3, out=tmp_path, stop=6, resume=True)
    assert checkpoints.open_checkpoint(tmp_path).step == 6


def test_the_command_goes_on_with_the_run_that_is_there(tmp_path, capsys):
    from repro.recipes.mdlm import RECIPE

    base = ["--scale", "nano", "--out", str(tmp_path / "run")]
    pins = [word for pin in overrides("mdlm", "steps=4", "log_every=2") for word in ("--set", pin)]
    assert command.command(RECIPE, [*base, *pins]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0].partition(" ")[2] for line in said[:3]] == [
        "step 1 of 4",
        "step 2 of 4",
        "step 4 of 4",
    ], "one line per logged step"
    assert command.command(RECIPE, [*base, "--longer", "6"]) == 0
    assert command.command(RECIPE, [*base, "--longer", "6"]) == 0, "the same command again finds it done"
    found = checkpoints.open_checkpoint(tmp_path / "run")
    assert found.step == 6 and found.recipe.steps == 6 and found.recipe.batch == 8
    for flag, value in (("--steps", "8"), ("--data", "evals/data/chats.jsonl")):
        with pytest.raises(ValueError, match=f"leave out {flag}"):
            command.command(RECIPE, [*base, "--longer", "9", flag, value])
    with pytest.raises(ValueError, match=r"holds a run of mdlm@nano\+\w+, not of mdlm;"):
        command.command(RECIPE, ["--out", str(tmp_path / "run"), "--longer", "9"])


def test_the_last_line_says_where_the_run_is(tmp_path, capsys):
    from repro.recipes.mdlm import RECIPE

    pins = [word for pin in overrides("mdlm", "steps=4") for word in ("--set", pin)]
    base = ["--scale", "nano", "--out", str(tmp_path / "run"), *pins]
    for more in (["--steps", "3"], ["--steps", "2", "--resume"]):
        assert command.command(RECIPE, [*base, *more]) == 0
        assert "(step 3 of 4; --resume goes on)" in capsys.readouterr().err.splitlines()[-1]


def test_print_marks_exactly_what_was_set(capsys):
    from repro.recipes.duo import RECIPE

    def marked(*words):
        assert command.command(RECIPE, [*words, "--print"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {
            line.split()[1]: line for line in lines[1:] if line.startswith("* ") and "changed by" not in line
        }

    assert marked() == marked("--scale", "nano") == marked("--set", "batch=256") == {}
    found = marked(
        "--scale", "nano", "--set", "optimizer.lr=0.1", "--set", "batch=32", "--set", "log_every=7"
    )
    assert set(found) == {"optimizer.lr", "log_every"}
    assert found["optimizer.lr"].endswith("--set (was 0.001)")
    changed = marked("--set", 'learning_rate={"part": "cosine", "warmup": 500}')
    assert set(changed) == {"learning_rate", "learning_rate.warmup"}
    assert "cosine" in changed["learning_rate"] and "--set (was linear(" in changed["learning_rate"]
