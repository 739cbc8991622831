"""Our metrics as others load them: `evaluate.load(FOLDER)`, the same numbers as the functions behind them."""

from __future__ import annotations

import pytest
from helpers.toy import toy

from repro.core.files import ROOT
from repro.data.corpus import prepared
from repro.evals.text_quality.gen_ppl import gen_ppl, rule
from repro.evals.text_quality.judges import load_judge
from repro.evals.text_quality.mauve import Mauve, scored
from repro.evals.text_quality.quality import by_themselves
from repro.training import checkpoint

FOLDER = ROOT / "repro" / "evals" / "metrics"
ROWS = [[1, 2, 1, 2, 3], [4, 4, 4, 4], [5, 6, 7]]


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Loads a metric with every cache in a folder of the test's own."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return lambda name: evaluate.load(str(FOLDER / name), cache_dir=str(tmp_path / "metrics"))


def test_every_folder_is_loadable_by_name(metric):
    names = sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__")
    assert names == ["distinct_n", "gen_ppl", "mauve", "unigram_entropy"]
    assert [metric(name).name for name in names] == names


def test_entropy_and_distinct(metric):
    ours = by_themselves(ROWS, [2])
    found = metric("unigram_entropy").compute(predictions=ROWS)
    assert (found["entropy"], found["entropy_se"]) == pytest.approx(ours["entropy"][:2])
    found = metric("distinct_n").compute(predictions=ROWS, n=2)
    assert (found["distinct_2"], found["distinct_2_se"]) == pytest.approx(ours["distinct_2"][:2])


def test_gen_ppl(metric, tmp_path):
    recipe = toy("ar")
    weights = {"model.safetensors": dict(recipe.network(0).named_parameters())}
    checkpoint.save(tmp_path / "judge", recipe, 0, 0, prepared(recipe.data).digest, {}, weights)
    judge = load_judge(tmp_path / "judge")
    rows = prepared(recipe.data).heldout.ids[:5].astype(int).tolist()
    texts = [recipe.data.decode(row) for row in rows]
    how = {"judge": str(tmp_path / "judge"), "rule_name": "every_token:length=32"}
    found = metric("gen_ppl").compute(predictions=texts, **how)
    value, error, _ = gen_ppl(rows, judge, rule(how["rule_name"]))
    assert (found["gen_ppl"], found["gen_ppl_se"]) == pytest.approx((value, error))
    assert found["protocol"]["judge_digest"] == judge.digest


def test_mauve(metric, tmp_path):
    recipe = toy("ar")
    weights = {"model.safetensors": dict(recipe.network(0).named_parameters())}
    checkpoint.save(tmp_path / "judge", recipe, 0, 0, prepared(recipe.data).digest, {}, weights)
    judge = load_judge(tmp_path / "judge")
    rows = prepared(recipe.data).heldout.ids[:16].astype(int).tolist()
    texts = [recipe.data.decode(row) for row in rows]
    asked = {"judge": str(tmp_path / "judge"), "state": "last", "length": 16, "clusters": 3, "seeds": 5}
    found = metric("mauve").compute(predictions=texts[:8], references=texts[8:], **asked)
    pins = Mauve(
        state="last", length=16, clusters=3, seeds=5, starts=5, variance=0.9, scaling=5.0, mixtures=25
    )
    sides = [judge.features([row[:16] for row in some], "last") for some in (rows[8:], rows[:8])]
    assert (found["mauve"], found["mauve_se"], found["n"]) == pytest.approx(scored(*sides, pins, 0).metric())
    assert found["protocol"]["judge_digest"] == judge.digest
    with pytest.raises(ValueError, match=r"Mismatch|as many of each"):
        metric("mauve").compute(predictions=texts[:5], references=texts[:6], **asked)
