"""The table of lossless lookahead: rows by number of states, and the best one by the stated rule."""

from __future__ import annotations

import msgspec
from helpers.synthetic import question, record, sudoku

from repro.results.tables.lookahead import beside, markdown, rows, tables


def cell(preset, numbers):
    """A record; `numbers`: number of states -> (rounds per token, tokens forwarded)."""
    metrics = {}
    for m, (rounds, tokens) in numbers.items():
        found = {"rounds": rounds, "forwards": tokens, "tokens": tokens, "equal": 1.0}
        metrics |= {f"{name}_{m}": (value, 0.01, 500) for name, value in found.items()}
    asked = question("llada@nano.sudoku")
    asked = msgspec.structs.replace(
        asked,
        task={"part": "lookahead_cost", "name": "lookahead", "version": 1},
        sampler={"part": preset, "version": 1},
    )
    return record(asked, metrics, recipe="llada@nano.sudoku", preset=preset)


def test_the_best_takes_at_most_twice_the_tokens():
    numbers = rows(
        [
            cell("random", {2: (0.6, 1.0), 8: (0.25, 1.75), 16: (0.2, 3.0)}),
            cell("margin", {2: (0.8, 2.5), 8: (0.7, 4.0)}),
        ]
    )
    assert list(zip(numbers.preset, numbers.states, numbers.best, strict=True)) == [
        ("margin", 2, ""),
        ("margin", 8, ""),
        ("random", 2, ""),
        ("random", 8, "*"),
        ("random", 16, ""),
    ]
    line = next(line for line in markdown(numbers, beside([])).splitlines() if "*" in line)
    assert [part.strip() for part in line.strip("|").split("|")] == [
        *(
            "llada@nano.sudoku",
            "random",
            "8",
            "4.00",
            "0.250 ± 0.020",
            "1.750 ± 0.020",
            "1.75",
            "1",
            "*",
            "500",
        )
    ]


def test_no_records_say_how_to_make_them():
    assert "--suite lookahead" in markdown(rows([]), beside([]))


def test_rules_that_commit_several_tokens_stand_beside():
    """Only those of a checkpoint that looked ahead, with the quality of one token per step."""
    records = [
        cell("random", {2: (0.6, 1.0)}),
        sudoku("llada@nano.sudoku", "low_confidence", "1", 0.98),
        sudoku("llada@nano.sudoku", "low_confidence", "4", 0.5),
        sudoku("llada@nano.sudoku", "threshold_0.9", None, 0.9, per_nfe=6.0),
        sudoku("mdlm@nano.sudoku", "threshold_0.9", None, 0.8, per_nfe=6.0),
    ]
    (row,) = beside(records).to_dict("records")
    assert (row["checkpoint"], row["preset"], row["per_round"]) == ("llada@nano.sudoku", "threshold_0.9", 6.0)
    assert (row["quality"], row["single"], row["measure"]) == (0.9, 0.98, "puzzles solved")
    files = tables(records)
    assert "### Rules that commit several tokens" in files["lookahead.md"]
    assert files["lookahead_beside.csv"].count("\n") == 2
