"""Figures show as many recipes of a scale as there are colours, or those that are named."""

from __future__ import annotations

import pytest
from helpers.synthetic import bound

from paper_figures import COLOURS
from paper_figures import __main__ as figures
from paper_figures.recipes import MOST, shown
from repro.results.store import Store

FURTHER = [f"a{i}@nano" for i in range(MOST)]


def names(records):
    return list(dict.fromkeys(each.labels.recipe for each in records))


def test_recipes_with_a_colour_come_first_and_the_rest_by_name():
    """Scales do not take each other's places."""
    records = [bound(recipe) for recipe in (*reversed(FURTHER), "mdlm@nano", "b@micro")]
    found, said = shown(records)
    assert set(names(found)) == {"mdlm@nano", "b@micro", *FURTHER[: MOST - 1]}
    assert found == [each for each in records if each in found]
    assert said == [f"nano: {MOST} of {MOST + 1} recipes drawn; --recipes NAME,NAME draws others"]
    assert shown(found) == (found, [])


def test_named_recipes_are_drawn_alone():
    records = [bound(recipe) for recipe in (*FURTHER, "mdlm@nano")]
    assert names(shown(records, [FURTHER[-1]])[0]) == [FURTHER[-1]] and shown(records, [FURTHER[-1]])[1] == []
    with pytest.raises(ValueError, match=r"no records of recipe 'mdml@nano' to draw; .*mdlm@nano"):
        shown(records, ["mdml@nano"])


def test_the_command_says_what_it_leaves_out(tmp_path, capsys):
    recipes = [*(f"{name}@nano" for name in COLOURS), *FURTHER]
    Store(tmp_path / "raw").append(*(bound(recipe) for recipe in recipes))
    where = ["gap", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path)]
    assert figures.main(where) == 0
    assert f"nano: {MOST} of {2 * MOST} recipes drawn" in capsys.readouterr().out
    drawn = (tmp_path / "gap.csv").read_text("utf-8")
    assert all(f",{name}@nano," in drawn for name in COLOURS) and FURTHER[0] not in drawn
    with pytest.raises(
        ValueError, match=r"needs --out FOLDER: paper_figures/out holds the figures of results/raw"
    ):
        figures.main(where[:3])
    assert figures.main(["caches", *where[:3][1:], "--out", str(tmp_path / "other")]) == 0
    assert "without records here: caches" in capsys.readouterr().out and not (tmp_path / "other").exists()
    assert figures.main([*where, "--recipes", FURTHER[0]]) == 0
    assert "drawn" not in capsys.readouterr().out and FURTHER[0] in (tmp_path / "gap.csv").read_text("utf-8")
