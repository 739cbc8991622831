"""The figure of gen_ppl against entropy: which records make a line, what stands beside them."""

from __future__ import annotations

import pytest
from synthetic import JUDGED, naive, quality

from paper_figures import frontier
from repro.matched import line_of


def sweep(recipe="mdlm@nano.text", seed=0, tokens="1"):
    presets = {
        "random:temperature=0.7": (5.0, 2.2),
        "random:temperature=1.0": (9.0, 2.6),
        "random:temperature=0.85": (7.0, 2.4),
    }
    return [quality(recipe, preset, tokens, *found, seed) for preset, found in presets.items()]


def test_a_line_is_one_sampler_through_its_temperatures():
    drawn = frontier.query([*sweep(), *sweep(seed=1), *sweep(tokens="4"), naive("mdlm@nano.text")])
    lines = drawn[drawn.line == "random"]
    assert (
        lines.temperature.tolist() == [0.7, 0.85, 1.0] * 2 and lines.gen_ppl.tolist() == [5.0, 7.0, 9.0] * 2
    )
    assert lines.tokens_per_step.tolist() == ["1"] * 3 + ["4"] * 3
    assert lines.entropy.tolist() == [2.2, 2.4, 2.6] * 2 and lines.seeds.tolist() == [2] * 3 + [1] * 3


def test_reference_rows_stand_once_whatever_model_was_asked():
    asked = [naive("mdlm@nano.text"), naive("ar@nano.text"), naive("mdlm@nano.text", 1)]
    drawn = frontier.query([*sweep(), *asked])
    assert drawn[drawn.temperature.isna()].line.tolist() == ["real", "repetition", "unigram"]
    assert drawn[drawn.line == "repetition"].gen_ppl.tolist() == [4.0]


def test_two_judges_never_share_a_panel():
    other = quality("ar@nano.text", "sample", "1", 7.0, 2.6, protocol=JUDGED | {"judge_digest": "1" * 64})
    with pytest.raises(ValueError, match="judge_digest"):
        frontier.query([*sweep(), other])


def test_other_pins_of_a_preset_stay_in_the_name_of_its_line():
    assert line_of("remdm_cap:temperature=0.9,eta=0.02") == ("remdm_cap,eta=0.02", 0.9)
    assert line_of("remdm_cap:eta=0.02,temperature=0.9") == ("remdm_cap:eta=0.02", 0.9)
    assert line_of("ancestral") == ("ancestral", 1.0)
    assert line_of("ancestral+tempered:temperature=0.7") == ("ancestral", 0.7)
    assert line_of("random, block 8, dual cache") == ("random, block 8, dual cache", 0.0)


def test_nothing_is_drawn_of_nothing():
    drawing, drawn = frontier.figure([])
    assert drawn.empty and not drawing.axes
