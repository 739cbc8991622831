"""Figure `estimators` as a function of records of the suite `draws`."""

from __future__ import annotations

import pytest
from helpers.synthetic import draws

from paper_figures import estimators
from paper_figures.__main__ import draw


def test_points_are_at_realised_forwards_and_oracles_come_first():
    drawn = estimators.query(
        [draws("mdlm@nano", "llada_mc"), draws("mdlm@nano", "levels"), draws("oracle:mdlm@nano", "levels")]
    )
    assert list(dict.fromkeys(drawn.checkpoint)) == ["oracle:mdlm@nano", "mdlm@nano"]
    mine = drawn[(drawn.checkpoint == "mdlm@nano") & (drawn.measured == "variance")]
    assert mine.estimator.tolist() == ["levels", "levels", "llada_mc", "llada_mc"]
    assert mine.draws.tolist() == [8, 128] * 2 and mine.forwards.tolist() == [7.5, 110.0] * 2
    exact = drawn[drawn.measured == estimators.EXACT]
    assert exact.value.tolist() == [0.8] * 3 and exact.draws.isna().all()


def test_seeds_are_averaged_and_two_references_are_an_error():
    drawn = estimators.query([draws("mdlm@nano", "levels"), draws("mdlm@nano", "levels", 1, shift=1.0)])
    (first, *_) = drawn[drawn.measured == "variance"].to_dict("records")
    assert first["value"] == pytest.approx(1.0) and first["seeds"] == 2 and first["sd_seeds"] > 0
    with pytest.raises(ValueError, match="reference"):
        other = draws("mdlm@nano.text", "levels", protocol={"reference": "another"})
        estimators.query([draws("mdlm@nano", "levels", protocol={"reference": "all masked sets"}), other])


def test_the_drawing_names_every_estimator_and_says_what_bars_are():
    files = draw("estimators", [draws("mdlm@nano", "levels"), draws("oracle:mdlm@nano", "elbo_t")])
    for text in ("levels", "elbo_t", "of the error, nats", "95 % interval", "forward passes per answer"):
        assert text in files["estimators.svg"]
    assert "no records of task levels" in draw("estimators", [])["estimators.svg"]
