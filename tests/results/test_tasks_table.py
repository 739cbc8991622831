"""The table of lm-eval's and users' tasks: every number has an interval that fits it, or the reason why it has none."""

import math

import pytest
from helpers.synthetic import question, record

from repro.core.stats import wilson
from repro.results.shares import is_share
from repro.results.tables import tasks


def answered(*metrics, train_seed=0):
    asked = question("mdlm@nano", "quiz", train_seed, sampler={"part": "random", "version": 1})
    return record(asked, dict(metrics), preset="random", tokens="1", nfe=1.0, tokens_per_nfe=1.0)


def cells(records):
    """Metric -> its printed cell."""
    lines = tasks.markdown(tasks.rows(records)).splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| mdlm")
    ]
    return {row[4]: row[5] for row in rows}


def test_a_share_has_wilsons_interval_whatever_its_standard_error():
    """All right, few items, no standard error, a filter of lm-eval, a name that is not known."""
    found = cells(
        [
            answered(
                ("exact_match", (1.0, 0.0, 100)),
                ("acc", (0.2, 0.2, 5)),
                ("acc_norm", (0.0, None, 1)),
                ("exact_match.strict-match", (0.0, 0.0, 7)),
                ("solved", (0.25, math.sqrt(0.25 * 0.75 / 7), 8)),
            )
        ]
    )
    for name, value, n in (
        ("exact_match", 1.0, 100),
        ("acc", 0.2, 5),
        ("acc_norm", 0.0, 1),
        ("exact_match.strict-match", 0.0, 7),
        ("solved", 0.25, 8),
    ):
        low, high = wilson(value, n, 0.95)
        assert found[name] == f"{value:.3f} [{low:.3f}, {high:.3f}]"
        assert "±" not in found[name] and 0 <= low < high <= 1


def test_other_metrics_have_their_normal_interval_or_say_why_not():
    found = cells([answered(("f1", (0.4, 0.05, 50)), ("bleu", (12.5, None, 50)), ("words", (3.0, 0.0, 50)))])
    assert found == {"f1": "0.400 ± 0.098", "bleu": "12.5, no interval", "words": "3, all equal"}
    frame = tasks.rows([answered(("f1", (0.4, 0.05, 50)), ("bleu", (12.5, None, 50)))]).set_index("metric")
    assert frame.low["f1"] == pytest.approx(0.4 - 1.96 * 0.05) and math.isnan(frame.high["bleu"])


def test_train_seeds_are_averaged_and_the_share_stays_one():
    """The mean of two shares has no binomial standard error; each of the two had."""
    two = [
        answered(("solved", (x, math.sqrt(x * (1 - x) / 49), 50)), train_seed=i)
        for i, x in enumerate((0.2, 0.4))
    ]
    low, high = wilson(0.3, 50, 0.95)
    assert cells(two) == {"solved": f"0.300 [{low:.3f}, {high:.3f}], sd 0.141"}


def test_the_caption_names_every_sign_of_the_table():
    for said in ("Wilson", "±", "1.96 standard errors", "all equal", "no interval", "sd:"):
        assert said in tasks.CAPTION


def test_a_share_is_known_by_its_name_or_its_variance():
    assert is_share("accuracy", 0.5, None, 4) and is_share("acc.flexible", 1.0, 0.0, 3)
    assert not is_share("accuracy", 1.5, 0.1, 4)
    assert is_share("x", 0.5, math.sqrt(0.25 / 3), 4) and not is_share("x", 0.5, 0.28, 4)
    assert not is_share("x", 1.0, 0.0, 4)  # every item is 1: no bound is known
