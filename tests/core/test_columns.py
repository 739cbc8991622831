"""Tables of text at the width of a terminal."""

from __future__ import annotations

from repro.core.columns import columns

ROWS = [("task", "preset", "hours"), ("gsm8k", "random:temperature=0.7+nucleus:p=0.9", "1.25")]


def test_a_table_that_fits_has_one_line_a_row():
    assert list(columns(ROWS, (0, 1), (2,), 60)) == [
        "task   preset                                hours",
        "gsm8k  random:temperature=0.7+nucleus:p=0.9   1.25",
    ]


def test_names_are_broken_and_numbers_are_not():
    assert list(columns(ROWS, (0, 1), (2,), 40)) == [
        "task   preset                   hours",
        "gsm8k  random:temperature=0.7+   1.25",
        "       nucleus:p=0.9",
    ]
    narrow = list(columns(ROWS, (0, 1), (2,), 10))
    assert any("1.25" in line for line in narrow) and max(map(len, narrow)) < 32


def test_a_cell_keeps_its_own_lines():
    assert list(columns([("steps", "1 (0.350)\n4 (0.300)", "2.0%")], (1,), (), 80)) == [
        "steps  1 (0.350)  2.0%",
        "       4 (0.300)",
    ]
