"""Figure `matched`: a sweep is read at the entropy of held-out text, or at its nearest one."""

from __future__ import annotations

import math

import pytest
from helpers.synthetic import naive, sampled

from paper_figures import matched

REAL = 2.6
"""Entropy of held-out text in `naive`."""


def sweep(tokens, coldest):
    """Two temperatures, .6 of entropy and of log gen_ppl apart."""
    presets = {"ancestral+tempered:temperature=0.7": 0.0, "ancestral": 0.6}
    return [sampled("mdlm@nano.text", p, tokens, 2.0 + up, coldest + up) for p, up in presets.items()]


def test_a_sweep_is_read_at_the_entropy_of_held_out_text():
    drawn = matched.query([*sweep("1", REAL - 0.3), *sweep("4", REAL + 0.2), naive("mdlm@nano.text")])
    beyond, reached = drawn.itertuples()  # by forward passes
    assert (beyond.tokens_per_step, beyond.nfe, reached.nfe) == ("4", 16, 64)
    assert reached.entropy == REAL and reached.gen_ppl == pytest.approx(math.exp(2.3), rel=0.05)
    assert beyond.entropy == pytest.approx(REAL + 0.2, abs=0.02)
    assert beyond.gen_ppl == pytest.approx(math.exp(2.0), rel=0.05)
    assert (drawn.real_entropy == REAL).all() and (drawn.low < drawn.gen_ppl).all()


def test_a_panel_without_held_out_text_is_not_drawn():
    assert matched.query(sweep("1", 2.0)).empty
