"""The reproduction test: a faithful rerun is good, a changed one BAD; what cannot be tested is never good."""

import json
import random

import pytest
from helpers.synthetic import bound, law, store, sudoku

from repro.results import reproduction
from repro.results.reproduction import ReproductionCell, cells, compare


def others(seed, shift=0.0):
    """The records of the test other than bounds."""
    draw = random.Random(f"sudoku {seed}")
    noisy = [(p, t, a + draw.gauss(0, 0.008) + shift, n) for p, t, a, n in SUDOKU]
    made = [sudoku(r, p, t, a, seed, n) for r, (p, t, a, n) in zip(SUDOKU_RECIPES, noisy, strict=True)]
    return [*made, *(_law(cell, draw, seed) for cell in LAWS)]


def _law(cell, draw, seed):
    return law(cell.recipe, cell.preset, cell.tokens_per_step, 2.9 + draw.gauss(0, 0.03), 0.006, seed)


SUDOKU_RECIPES = ["ar@nano.sudoku"] + 3 * ["llada@nano.sudoku"]
SUDOKU = [("greedy", "1", 0.9, None), ("low_confidence", "1", 0.97, None)]
SUDOKU += [("low_confidence", "4", 0.59, None), ("threshold_0.9", None, 0.96, 3.6)]
LAWS = [cell for cell in cells() if cell.task == "law"]
BOUNDS = sorted({cell.recipe for cell in cells() if cell.task == "bound"})


def run(seed, shift=0.0, only=None):
    """All records of the test for one train seed; `shift` moves the bound of recipe `only`."""
    moved = {recipe: shift if recipe == only else 0.0 for recipe in BOUNDS}
    return [bound(recipe, seed, moved[recipe]) for recipe in BOUNDS] + others(seed)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("committed")
    return store(folder, [record for seed in range(5) for record in run(seed)])


def results(committed, folder, records):
    return {row.name: row for row in compare(committed, store(folder, records), cells())}


def test_every_cell_is_named_once_and_measured_by_a_known_task():
    found = cells()
    assert len({cell.name for cell in found}) == len(found) <= reproduction.CELLS
    known = {("bound", "nll_bound"), ("sudoku", "accuracy"), ("law", "excess")}
    assert {(cell.task, cell.metric) for cell in found} == known


def test_another_seed_of_the_same_code_is_good(committed, tmp_path):
    rows = results(committed, tmp_path, run(17))
    assert {row.verdict for row in rows.values()} == {"good"}
    for row in rows.values():
        assert row.seeds == 5 and row.low < row.yours < row.high
        assert row.detectable == pytest.approx((row.high - row.low) / 2)


def test_a_change_beyond_the_detectable_one_is_bad_and_the_others_stay_good(committed, tmp_path):
    """A change of twice the detectable one is found in its cell alone."""
    detectable = results(committed, tmp_path / "same", run(17))["mdlm"].detectable
    rows = results(committed, tmp_path / "moved", run(17, 2 * detectable, "mdlm@nano"))
    assert {name for name, row in rows.items() if row.verdict == "BAD"} == {"mdlm"}
    assert (
        rows["mdlm"].p <= reproduction.ALPHA
        and not rows["mdlm"].low <= rows["mdlm"].yours <= rows["mdlm"].high
    )


def test_verdict_interval_and_p_value_always_say_the_same(committed, tmp_path):
    """Intervals at one level agree with Holm's step-down test, however many cells changed."""
    for moved in range(len(BOUNDS) + 1):
        records = [bound(r, 17, 0.05 if i < moved else 0.0) for i, r in enumerate(BOUNDS)] + others(17)
        for row in results(committed, tmp_path / str(moved), records).values():
            inside = row.low <= row.yours <= row.high
            assert (row.verdict == "good") == inside == (row.p > reproduction.ALPHA), (moved, row)


def test_false_alarms_are_rarer_than_one_in_a_hundred_runs(committed, tmp_path):
    """Twenty faithful runs give no BAD (the probability of that is 82 % at a family-wise error of 1 %; fixed seeds)."""
    for seed in range(100, 120):
        rows = results(committed, tmp_path / str(seed), run(seed))
        assert all(row.verdict == "good" for row in rows.values()), seed


def test_missing_and_untested_are_not_good(committed, tmp_path, capsys):
    few = store(tmp_path / "few", [record for seed in range(4) for record in run(seed)])
    (tmp_path / "none").mkdir()
    rows = compare(committed, tmp_path / "none", cells())
    assert {row.verdict for row in rows} == {"missing"}
    assert {row.verdict for row in compare(few, committed, cells())} == {"untested"}
    assert reproduction.main([str(committed), "--committed", str(few)]) == 1
    assert 'make reproduce SEEDS="0 1 2 3 4"' in capsys.readouterr().out


def test_two_protocols_are_never_compared(committed, tmp_path):
    other = store(tmp_path, [bound(protocol={"rows": 500, "passes": 1})])
    with pytest.raises(ValueError, match="passes is 4 and 1"):
        compare(committed, other, cells())


def test_command_line_prints_every_cell(committed, tmp_path, capsys):
    yours = str(store(tmp_path, run(17)))
    assert reproduction.main([yours, "--committed", str(committed)]) == 0
    table = capsys.readouterr().out
    assert all(cell.name in table for cell in cells()) and "BAD" not in table
    assert reproduction.main([yours, "--committed", str(committed), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(cells())
    only = ["--recipe", "duo@nano", "--recipe", "ar@nano"]
    assert reproduction.main([yours, "--committed", str(committed), "--json", *only]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["ar", "duo"]
    with pytest.raises(ValueError, match="no cell of recipe 'dua@nano'; nearest is 'duo@nano'"):
        reproduction.main([yours, "--recipe", "dua@nano"])


def test_a_cell_with_an_unknown_field_or_too_many_cells_are_refused(tmp_path):
    path = tmp_path / "reproduction.toml"
    path.write_text(
        '[[cell]]\nname = "a"\nrecipe = "b"\ntask = "c"\nmetric = "d"\nkind = "e"\npresets = "f"\n'
    )
    with pytest.raises(ValueError, match="unknown field 'presets'"):
        cells(path)
    path.write_text('[[cell]]\nname = "a"\nrecipe = "b"\ntask = "c"\nmetric = "d"\nkind = "e"\n' * 13)
    with pytest.raises(ValueError, match="13 cells"):
        cells(path)


def test_accuracy_intervals_stay_proportions(tmp_path):
    """On the arcsine scale the interval of an accuracy near 1 stays in [0, 1]."""
    made = [sudoku("llada@nano.sudoku", "random", "1", 0.99 + 0.002 * seed, seed) for seed in range(5)]
    cell = ReproductionCell(
        name="x",
        recipe="llada@nano.sudoku",
        task="sudoku",
        preset="random",
        tokens_per_step="1",
        metric="accuracy",
        kind="sudoku",
    )
    folder = store(tmp_path, made)
    (row,) = compare(folder, folder, [cell])
    assert row.verdict == "good" and 0.9 < row.low < row.high <= 1
