"""The `evaluate` metrics: `evaluate.load(FOLDER)` gives the same numbers as the functions they wrap."""

from __future__ import annotations

import pytest

from repro.core.files import ROOT
from repro.data.corpus import prepared
from repro.evals.text_quality.gen_ppl import gen_ppl, rule
from repro.evals.text_quality.judges import load_judge
from repro.evals.text_quality.mauve import Mauve, mauve_score
from repro.evals.text_quality.quality import diversity_metrics

FOLDER = ROOT / "repro" / "evals" / "metrics"
ROWS = [[1, 2, 1, 2, 3], [4, 4, 4, 4], [5, 6, 7]]


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Loads a metric with all caches in a folder of this test's own."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return lambda name: evaluate.load(str(FOLDER / name), cache_dir=str(tmp_path / "metrics"))


def test_every_folder_is_loadable_by_name(metric):
    names = sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__")
    assert names == ["distinct_n", "gen_ppl", "mauve", "unigram_entropy"]
    assert [metric(name).name for name in names] == names


def test_entropy_and_distinct(metric):
    ours = diversity_metrics(ROWS, [2])
    found = metric("unigram_entropy").compute(predictions=ROWS)
    assert (found["entropy"], found["entropy_se"]) == pytest.approx(ours["entropy"][:2])
    found = metric("distinct_n").compute(predictions=ROWS, n=2)
    assert (found["distinct_2"], found["distinct_2_se"]) == pytest.approx(ours["distinct_2"][:2])


def heldout(judge, count):
    """Held-out rows of the judge's data, and their texts."""
    data = judge.model.data
    rows = prepared(data).heldout.ids[:count].astype(int).tolist()
    return rows, [data.decode(row) for row in rows]


def test_gen_ppl(metric, folder):
    judge = load_judge(folder)
    rows, texts = heldout(judge, 5)
    how = {"judge": str(folder), "rule_name": "every_token:length=32"}
    found = metric("gen_ppl").compute(predictions=texts, **how)
    value, error, _ = gen_ppl(rows, judge, rule(how["rule_name"]))
    assert (found["gen_ppl"], found["gen_ppl_se"]) == pytest.approx((value, error))
    assert found["protocol"]["judge_digest"] == judge.digest


def test_mauve(metric, folder):
    judge = load_judge(folder)
    rows, texts = heldout(judge, 16)
    arguments = {"judge": str(folder), "state": "last", "length": 16, "clusters": 3, "seeds": 5}
    found = metric("mauve").compute(predictions=texts[:8], references=texts[8:], **arguments)
    pins = Mauve(
        state="last", length=16, clusters=3, seeds=5, starts=5, variance=0.9, scaling=5.0, mixtures=25
    )
    sides = [judge.features([row[:16] for row in some], "last") for some in (rows[8:], rows[:8])]
    assert (found["mauve"], found["mauve_se"], found["n"]) == pytest.approx(
        mauve_score(*sides, pins, 0).metric()
    )
    assert found["protocol"]["judge_digest"] == judge.digest
    with pytest.raises(ValueError, match=r"Mismatch|equally many of each"):
        metric("mauve").compute(predictions=texts[:5], references=texts[:6], **arguments)
