"""Figure `frontier` (gen_ppl against entropy): its lines, reference texts and published points."""

from __future__ import annotations

import pytest
from helpers.synthetic import JUDGED, naive, quality, question, record

from paper_figures import frontier
from repro.evals.published.cells import read
from repro.results.tables.matched import line_of


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


def test_reference_texts_appear_once_for_all_models():
    asked = [naive("mdlm@nano.text"), naive("ar@nano.text"), naive("mdlm@nano.text", 1)]
    drawn = frontier.query([*sweep(), *asked])
    assert drawn[drawn.temperature.isna()].line.tolist() == ["real", "repetition", "unigram"]
    assert drawn[drawn.line == "repetition"].gen_ppl.tolist() == [4.0]


def test_records_of_two_judges_in_one_panel_are_an_error():
    other = quality("ar@nano.text", "sample", "1", 7.0, 2.6, protocol=JUDGED | {"judge_digest": "1" * 64})
    with pytest.raises(ValueError, match="judge_digest"):
        frontier.query([*sweep(), other])


def test_other_pins_of_a_preset_stay_in_the_name_of_its_line():
    assert line_of("remdm_cap:temperature=0.9,eta=0.02") == ("remdm_cap,eta=0.02", 0.9)
    assert line_of("remdm_cap:eta=0.02,temperature=0.9") == ("remdm_cap:eta=0.02", 0.9)
    assert line_of("ancestral") == ("ancestral", 1.0)
    assert line_of("ancestral+tempered:temperature=0.7") == ("ancestral", 0.7)
    assert line_of("random, block 8, dual cache") == ("random, block 8, dual cache", 0.0)


def test_without_records_nothing_is_drawn():
    drawing, drawn = frontier.figure([])
    assert drawn.empty and not drawing.axes


PUBLISHED = {"judge": "gpt2-large", "judge_digest": "2" * 64, "retokenise": "text"}
PUBLISHED |= {"rule": {"part": "first_eos_chunks", "version": 1, "length": 1024, "chunk": 1024}}


def owt(protocol=PUBLISHED, length=1024):
    """A record of a full recipe under the protocol of Duo's and ReMDM's tables."""
    plan = {"part": "plan", "version": 1, "gen_length": length, "block_length": length, "steps": 64}
    sampler = {"part": "ancestral", "version": 1}
    asked = question("mdlm_owt", "generation_quality", sampler=sampler, plan=plan, protocol=protocol)
    metrics = {"gen_ppl": (150.0, 2.0, 1024), "entropy": (5.6, 0.01, 1024)}
    costs = {"nfe": 64.0, "tokens_per_nfe": 16.0, "samples": "0" * 64}
    return record(asked, metrics, recipe="mdlm_owt", preset="ancestral", tokens="16", **costs)


def test_published_points_of_the_same_protocol_are_hollow():
    """Cells of gen_ppl with an entropy and the record's protocol are drawn in that record's panel and in no other."""
    drawn = frontier.query([owt(), *sweep()])
    hollow = drawn[drawn.line.str.startswith(frontier.PUBLISHED)]
    assert set(hollow.panel) == {"full scale (suite nano)"} and {
        "duo.t5.mdlm.64",
        "remdm.t1.mdlm.128",
    } <= set(hollow.checkpoint)
    (cell,) = hollow[hollow.checkpoint == "duo.t5.mdlm.64"].itertuples()
    (beside,) = (c for c in read() if c.name == "duo.t5_entropy.mdlm.64")
    assert (cell.gen_ppl, cell.entropy) == (143.88, beside.value)
    assert not hollow.checkpoint.str.startswith("duo.i16").any(), (
        "a source that states no rule is not comparable"
    )
    drawing, _ = frontier.figure([owt(), *sweep()])
    faces = [line.get_markerfacecolor() for line in drawing.axes[0].lines if line.get_label() == "published"]
    assert faces == ["none"] and "hollow: published" in drawing._supxlabel.get_text()


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": PUBLISHED | {"judge": "gpt2"}},
        {"protocol": PUBLISHED | {"retokenise": "ids"}},
        {"protocol": PUBLISHED | {"rule": PUBLISHED["rule"] | {"length": 512}}},
        {"length": 512},
    ],
)
def test_another_protocol_has_no_published_point(other):
    drawing, drawn = frontier.figure([owt(**other)])
    assert not drawn.line.str.startswith(frontier.PUBLISHED).any()
    assert "no published point was judged as these are" in drawing._supxlabel.get_text()
