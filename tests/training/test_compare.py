"""What is said of a run that stopped early where checkpoints are shown, compared and evaluated."""

from pathlib import Path
from types import SimpleNamespace

from helpers.toy import toy

from repro.checkpoint import main
from repro.evals.runner import labels
from repro.model import load
from repro.training.compare import Difference, lines
from repro.training.loop import train


def test_an_unfinished_run_is_marked_by_show_and_diff(tmp_path, monkeypatch, capsys):
    """Ten steps of twenty: marked; the whole run: not, and its digest has no part of the mark."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    recipe = toy("mdlm")
    whole = train(recipe, seed=0, out=tmp_path / "whole", stop=None, resume=False)
    early = train(recipe, seed=0, out=tmp_path / "early", stop=10, resume=False)
    capsys.readouterr()
    assert main(["show", str(whole)]) == main(["show", str(early)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mdlm@")]
    assert [line.count("(step 10 of 20)") for line in shown] == [0, 1]
    assert main(["diff", str(whole), str(early)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"A  {whole}", f"B  {early} (step 10 of 20)"]
    for out, more in ((whole, []), (early, [f"{letter}  {early} (step 10 of 20)" for letter in "AB"])):
        assert main(["diff", str(out), str(out)]) == 0
        assert capsys.readouterr().out.splitlines() == ["the same network", *more]
    cell = SimpleNamespace(task=SimpleNamespace(name="law"), preset=None, tokens_per_step=None)
    suite = SimpleNamespace(name="nano")
    found = [labels(load(out), suite, cell).get("unfinished") for out in (whole, early)]
    assert found == [None, "step 10 of 20"]
    assert recipe.ema is not None
    found = [labels(load(whole, weights), suite, cell).get("weights") for weights in ("auto", "ema", "raw")]
    assert found == [None, None, "raw weights"]


def test_names_of_settings_are_whole_at_80_columns():
    setting = "data.documents.heldout_stride"
    rows = [
        {"setting": setting, "a": 20, "b": 6},
        {"setting": "data.units", "a": "x" * 40, "b": "bpe(size=300)"},
    ]
    said = lines(Difference(("", ""), rows, []), Path("a"), Path("b"), 80)
    assert any(line.startswith(f"{setting}  20") for line in said) and max(map(len, said)) <= 80
