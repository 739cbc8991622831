"""The figure of likelihood estimators against draws: a pure function of records of the suite `draws`."""

from __future__ import annotations

import pytest

from paper_figures import estimators
from paper_figures.__main__ import draw
from repro.record import Question, make_record


def record(checkpoint="mdlm@nano", task="levels", seed=0, shift=0.0, protocol=None):
    question = Question.read(
        {
            "checkpoint": {"digest": "0", "recipe": checkpoint, "seed": seed, "step": 9, "weights": "raw"},
            "task": {"name": task, "version": 1},
            "sampler": None,
            "plan": None,
            "seed": 0,
            "limit": None,
            "protocol": protocol or {"reference": "all masked sets"},
        }
    )
    values = {"accuracy_exact": 0.8}
    for draws, forwards in ((8, 7.5), (128, 110.0)):
        values |= {
            f"accuracy_{draws}": 0.7,
            f"flips_{draws}": 0.2,
            f"bias_{draws}": -0.1,
            f"forwards_{draws}": forwards,
        }
        values[f"variance_{draws}"] = 4.0 / draws + shift
    metrics = {name: {"value": value, "se": 0.1, "n": 60} for name, value in values.items()}
    labels = {"recipe": checkpoint, "checkpoint": checkpoint, "suite": "draws", "task": task}
    labels |= {"preset": None, "tokens_per_step": None}
    answer = {"metrics": metrics, "nfe": None, "tokens_per_nfe": None, "samples": None}
    kind = {"device": "cpu", "dtype": "float32", "torch": "2", "attention": "sdpa", "threads": 1}
    measured = {"numerics": kind, "seconds": 1.0, "tokens_per_second": None, "versions": {}, "commit": None}
    return make_record(question, labels, answer, measured | {"created": "2026-11-25T00:00:00+00:00"})


def test_points_stand_at_realised_forwards_oracles_first():
    drawn = estimators.query([record(task="llada_mc"), record(), record("oracle:mdlm@nano")])
    assert list(dict.fromkeys(drawn.checkpoint)) == ["oracle:mdlm@nano", "mdlm@nano"]
    mine = drawn[(drawn.checkpoint == "mdlm@nano") & (drawn.measured == "variance")]
    assert mine.estimator.tolist() == ["levels", "levels", "llada_mc", "llada_mc"]
    assert mine.draws.tolist() == [8, 128] * 2 and mine.forwards.tolist() == [7.5, 110.0] * 2
    exact = drawn[drawn.measured == estimators.EXACT]
    assert exact.value.tolist() == [0.8] * 3 and exact.draws.isna().all()


def test_seeds_are_averaged_and_two_references_are_refused():
    drawn = estimators.query([record(), record(seed=1, shift=1.0)])
    (first, *_) = drawn[drawn.measured == "variance"].to_dict("records")
    assert first["value"] == pytest.approx(1.0) and first["seeds"] == 2 and first["sd_seeds"] > 0
    with pytest.raises(ValueError, match="reference"):
        estimators.query([record(), record("mdlm@nano.text", protocol={"reference": "another"})])


def test_the_drawing_names_every_estimator_and_says_what_bars_are():
    files = draw("estimators", [record(), record("oracle:mdlm@nano", "elbo_t")])
    for text in ("levels", "elbo_t", "sd of the error, nats", "1 standard error", "forwards an answer"):
        assert text in files["estimators.svg"]
    assert "no records of suite draws" in draw("estimators", [])["estimators.svg"]
