"""The table of pass@k: flips against one token per step from the counts of right draws, and what it refuses."""

from __future__ import annotations

from statistics import stdev

import msgspec
import pytest
from helpers.synthetic import question, record

from repro.core.stats import draws_differ, pass_at_k
from repro.results.tables.pass_at_k import changes, markdown, rows


def cell(preset, tokens, correct, train_seed=0, **more):
    """A record of four draws of each item, `correct` of which are right."""
    asked = question(
        "llada@nano.sudoku", "passes", train_seed, sampler={"part": preset, "version": 1}, **more
    )
    asked = msgspec.structs.replace(
        asked, task={"part": "pass_at_k", "name": "passes", "version": 1, "draws": 4}, plan={"tokens": tokens}
    )
    n = len(correct)
    metrics = {"pass_1": (sum(correct) / 4 / n, 0.1, n), "pass_4": (1.0, 0.0, n), "flips": (0.25, 0.1, n)}
    made = {"recipe": "llada@nano.sudoku", "preset": preset, "tokens": tokens, "nfe": 4.0}
    return record(asked, metrics, **made, curve={"correct": correct})


def test_changes_against_one_token_per_step():
    numbers = rows(
        [
            cell("random", "1", [4.0, 4.0, 0.0]),
            cell("random", "4", [4.0, 2.0, 1.0]),
            cell("low_confidence", "1", [4.0, 4.0, 4.0]),
            cell("threshold_0.9", None, [4.0, 4.0, 0.0]),
        ]
    )
    changed = {(row.preset, row.tokens_per_step): row.changed for row in numbers[numbers.k == 1].itertuples()}
    assert changed["random", "4"] == pytest.approx((0 + 0.5 + 0.25) / 3)
    assert changed["threshold_0.9", ""] == pytest.approx(1 / 3)  # against low confidence
    assert changed["random", "1"] != changed["random", "1"]  # the reference itself: NaN
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(numbers).splitlines()]
    line = next(line for line in lines if line[1:3] == ["random", "4"])
    assert line[0] == "llada@nano.sudoku" and line[5:7] == ["0.25 ± 0.20", "0.25 ± 0.28"]


def test_changes_need_the_same_items():
    """A sampler that was evaluated with another limit has its row; its changes are unknown (the report had ended)."""
    found = rows([cell("random", "4", [4.0, 2.0], limit=2), cell("random", "1", [4.0, 4.0, 0.0], limit=3)])
    assert list(found.n) == [3, 3, 2, 2] and found.changed.isna().all()


def test_changes_is_the_probability_that_independent_draws_differ():
    """Literally, over all pairs of draws of the two samplers."""
    ours, theirs = [[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]]
    pairs = [sum(a != b for a in p for b in q) / 16 for p, q in zip(ours, theirs, strict=True)]
    found, _ = changes([sum(p) / 4 for p in ours], [sum(q) / 4 for q in theirs])
    assert found == pytest.approx(sum(pairs) / 2)


def test_sampling_seeds_of_a_network_are_pooled():
    """Their draws are other draws of the same items: one row, as of a single evaluation with all of them."""
    apart = [cell("random", "4", [4.0, 2.0, 1.0], seed=0), cell("random", "4", [4.0, 0.0, 3.0], seed=1)]
    found = rows([*apart, cell("random", "1", [4.0, 4.0, 0.0])]).query("tokens_per_step == '4'")
    assert list(found.k) == [1, 4] and set(found.draws) == {8} and set(found.n) == {3}
    counts = [8, 2, 4]
    for k, value in zip(found.k, found.value, strict=True):
        assert value == pytest.approx(sum(pass_at_k(8, c, k) for c in counts) / 3)
    flips = [draws_differ(8, c) for c in counts]
    assert found.flips.iloc[0] == pytest.approx(sum(flips) / 3)
    assert found.flips_se.iloc[0] == pytest.approx(stdev(flips) / 3**0.5)
    assert found.changed.iloc[0] == pytest.approx((0 + 0.75 + 0.5) / 3)
    assert set(found.nfe) == {4.0}


def test_two_records_of_one_row_are_refused():
    with pytest.raises(ValueError, match="would share a row"):
        rows([cell("random", "1", [4.0]), cell("random", "1", [4.0], limit=1)])


def test_a_record_without_counts_is_refused():
    found = cell("random", "1", [4.0])
    bare = msgspec.structs.replace(found, answer=msgspec.structs.replace(found.answer, curve=msgspec.UNSET))
    with pytest.raises(ValueError, match="lacks the number of right draws"):
        rows([bare])


def test_no_records_say_how_to_make_them():
    assert "--suite passes.sudoku" in markdown(rows([]))
