"""The reproduction test: a faithful rerun is good, a changed one BAD; what cannot be tested is never good."""

import json
import math
import random

import pytest
from helpers.synthetic import question, record, store, sudoku

from repro.results import reproduction
from repro.results.reproduction import ReproductionCell, cells, compare
from repro.results.tables import reproduction as table

CELLS = cells()
RECIPES = sorted({cell.recipe for cell in CELLS})
ROUNDING = 1e-5
"""Relative change of a likelihood between two reruns."""


def answer(cell, seed, factor=1.0, **fields):
    """A record of a cell whose value varies over train seeds: a likelihood by 7 %, an accuracy near .9 by .008, an
    excess near 3 by .03; times `factor`."""
    mark = {"unfinished": fields.pop("unfinished")} if "unfinished" in fields else {}
    draw = random.Random(f"{cell.recipe if cell.task == 'bound' else cell.name} {seed}").gauss(0, 1)
    if cell.task == "bound":
        value = 0.1 * math.exp(0.07 * draw)
    else:
        value = 0.9 + 0.008 * draw if cell.metric == "accuracy" else 3 + 0.03 * draw
        plan = {"part": "plan", "version": 1, "tokens": cell.tokens_per_step}
        fields = {"sampler": {"part": cell.preset, "version": 1}, "plan": plan, **fields}
    return record(
        question(cell.recipe, cell.task, seed, **fields),
        {cell.metric: (value * factor, 0.02, 500)},
        recipe=cell.recipe,
        preset=cell.preset or None,
        tokens=cell.tokens_per_step or None,
        **mark,
    )


def run(seed, factor=1.0, only=None, digest="", **fields):
    """All records of the test for one train seed; the numbers of recipe `only` are multiplied by `factor`."""
    return [
        answer(
            cell,
            seed,
            factor if cell.recipe == only else 1.0,
            digest=f"{cell.recipe} {seed} {digest}",
            **fields,
        )
        for cell in CELLS
    ]


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    return store(tmp_path_factory.mktemp("committed"), [each for seed in range(5) for each in run(seed)])


@pytest.fixture(scope="module")
def reruns(tmp_path_factory):
    made = []
    for number, sign in enumerate((-1, 1)):
        for recipe in RECIPES:
            some = run(0, 1 + sign * ROUNDING, recipe, digest=str(number))
            made += [each for each in some if each.labels.recipe == recipe]
    return store(tmp_path_factory.mktemp("reruns"), made)


@pytest.fixture
def results(committed, reruns, tmp_path):
    """Function: results, by (name of the cell, paired), of records in a folder of their own."""

    def results(*records, recipes=None):
        folder = store(
            tmp_path / str(len(list(tmp_path.iterdir()))), [each for some in records for each in some]
        )
        found = compare(committed, folder, CELLS, reruns, recipes)
        return {(row.name, row.paired): row for row in found}

    return results


def verdicts(rows):
    return {row.verdict for row in rows.values()}


def test_every_cell_is_named_once_and_every_recipe_has_a_likelihood():
    assert len({cell.name for cell in CELLS}) == len(CELLS) <= reproduction.CELLS
    known = {("bound", "gap"), ("bound", "nll_bound"), ("sudoku", "accuracy"), ("law", "excess")}
    assert {(cell.task, cell.metric) for cell in CELLS} == known
    from scripts.reproduce import CELLS as TRAINED

    assert {cell.recipe for cell in CELLS if cell.task == "bound"} == set(TRAINED)


def test_the_same_numbers_and_those_of_a_rerun_are_good(results):
    for records in (run(0), run(0, 1 + 2 * ROUNDING, "mdlm@nano"), run(3)):
        rows = results(records)
        assert verdicts(rows) == {"good"} and all(paired for _, paired in rows)
        for row in rows.values():
            assert row.low < row.yours < row.high
            assert row.detectable == pytest.approx((row.high - row.low) / 2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_committed_seed_that_differs_by_far_less_than_seeds_do_is_bad(results, recipe):
    """3 % is less than half of the standard deviation over seeds."""
    rows = results(run(2, 1.03, recipe))
    bad = {name for (name, _), row in rows.items() if row.verdict == "BAD"}
    assert bad and all(cell.recipe == recipe for cell in CELLS if cell.name in bad)


def test_another_seed_is_compared_with_the_committed_seeds(results):
    rows = results(run(17))
    assert verdicts(rows) == {"good"} and not any(paired for _, paired in rows)
    row = results(run(17))["mdlm", False]
    rows = results(run(17, row.high / row.yours * 1.01, "mdlm@nano"))
    assert {name for (name, _), row in rows.items() if row.verdict == "BAD"} == {"mdlm"}
    both = results(run(0), run(17))
    assert len(both) == 2 * len(CELLS) and both["mdlm", False] == row


def test_verdict_interval_and_p_value_always_say_the_same(results):
    for factor in (1.0, 1.0002, 1.001, 1.01, 1.5):
        for row in results(run(0, factor, "mdlm@nano"), run(17, factor, "mdlm@nano")).values():
            inside = row.low <= row.yours <= row.high
            assert (row.verdict == "good") == inside == (row.p > reproduction.ALPHA), (factor, row)


def test_verdicts_do_not_depend_on_which_recipes_are_asked(results):
    records = run(0), run(17, 1.2, "mdlm@nano")
    every, some = results(*records), results(*records, recipes=["mdlm@nano"])
    assert some == {key: row for key, row in every.items() if key[0] == "mdlm"}


def test_a_few_texts_that_rounding_changes_are_no_difference(results):
    """All reruns decode alike, so their spread is 0; three of 500 texts may still change, thirty may not."""
    cell = next(cell for cell in CELLS if cell.metric == "accuracy")
    before = answer(cell, 0).answer.metrics["accuracy"].value
    for texts, verdict in ((2, "good"), (30, "BAD")):
        rows = results(run(0, 1 - texts / 500 / before, cell.recipe))
        assert rows[cell.name, True].verdict == verdict


def test_a_run_that_has_not_finished_is_never_good(results):
    assert verdicts(results(run(0, step=1000))) == {"unfinished"}
    rows = results(run(0, 1.3, "mdlm@nano", step=1000))
    assert rows["mdlm", True].verdict == "BAD" and rows["llada", True].verdict == "unfinished"


def test_an_unfinished_run_that_is_marked_is_compared_all_the_same(results):
    assert verdicts(results(run(0, step=1000, unfinished="step 1000 of 2000"))) == {"unfinished"}


def test_missing_and_untested_are_not_good(committed, reruns, tmp_path, capsys):
    few = store(tmp_path / "few", [each for seed in range(4) for each in run(seed)])
    (tmp_path / "none").mkdir()
    assert {row.verdict for row in compare(committed, tmp_path / "none", CELLS, reruns)} == {"missing"}
    assert {row.verdict for row in compare(committed, few, CELLS, tmp_path / "none")} == {"untested"}
    other = store(tmp_path / "other", run(17))
    assert {row.verdict for row in compare(few, other, CELLS, reruns)} == {"untested"}
    assert reproduction.main([str(other), "--committed", str(few), "--reruns", str(reruns)]) == 1
    assert 'make reproduce SEEDS="0 1 2 3 4"' in capsys.readouterr().out
    assert (
        reproduction.main([str(few), "--committed", str(committed), "--reruns", str(tmp_path / "none")]) == 1
    )
    assert "python -m scripts.reruns RECIPE" in capsys.readouterr().out


def test_two_protocols_are_never_compared(committed, reruns, tmp_path):
    mdlm = next(cell for cell in CELLS if cell.name == "mdlm")
    other = store(tmp_path / "a", [answer(mdlm, 0, protocol={"rows": 500, "passes": 1})])
    with pytest.raises(ValueError, match="passes is 4 and 1"):
        compare(committed, other, CELLS, reruns)
    with pytest.raises(ValueError, match="passes is 4 and 1"):  # reruns of an older protocol
        compare(committed, store(tmp_path / "b", run(0)), CELLS, other)


def test_command_line_prints_every_cell(committed, reruns, tmp_path, capsys):
    yours = [str(store(tmp_path, run(0))), "--committed", str(committed), "--reruns", str(reruns)]
    assert reproduction.main(yours) == 0
    printed = capsys.readouterr().out
    assert all(cell.name in printed for cell in CELLS) and "BAD" not in printed
    assert reproduction.main([*yours, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(CELLS)
    only = ["--recipe", "mdlm@nano", "--recipe", "ar@nano"]
    assert reproduction.main([*yours, "--json", *only]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["ar", "mdlm"]
    with pytest.raises(ValueError, match="lists no result of recipe 'dua@nano'; nearest is 'duo@nano'"):
        reproduction.main([*yours, "--recipe", "dua@nano"])


def test_a_cell_with_an_unknown_field_or_too_many_cells_are_refused(tmp_path):
    path, cell = (
        tmp_path / "cells.toml",
        '[[cell]]\nname = "a"\nrecipe = "b"\ntask = "c"\nmetric = "d"\nkind = "e"\n',
    )
    path.write_text(f'{cell}presets = "f"\n')
    with pytest.raises(ValueError, match="unknown field 'presets'"):
        cells(path)
    path.write_text(cell * 15)
    with pytest.raises(ValueError, match="15 cells"):
        cells(path)


def test_accuracy_intervals_stay_proportions(tmp_path):
    """On the arcsine scale the interval of an accuracy near 1 stays in [0, 1]."""
    made = [sudoku("llada@nano.sudoku", "random", "1", 0.99 + 0.002 * seed, seed) for seed in range(5)]
    fields = {"recipe": "llada@nano.sudoku", "task": "sudoku", "preset": "random", "tokens_per_step": "1"}
    cell = ReproductionCell(name="x", metric="accuracy", kind="sudoku", **fields)
    yours = store(tmp_path / "b", [sudoku("llada@nano.sudoku", "random", "1", 0.995, 9)])
    (tmp_path / "none").mkdir()
    (row,) = compare(store(tmp_path / "a", made), yours, [cell], tmp_path / "none")
    assert row.verdict == "good" and 0.9 < row.low < row.high <= 1


def test_a_rerun_starts_with_weights_that_differ_by_rounding(tmp_path):
    from repro.training.checkpoint import open_checkpoint
    from scripts.reruns import begin, go_on

    plain = open_checkpoint(go_on("ar@nano", tmp_path / "plain", 1)).tensors("model.safetensors")
    one, other = (
        open_checkpoint(begin("ar@nano", number, tmp_path / str(number))).tensors("model.safetensors")
        for number in (1, 2)
    )
    for name, weight in plain.items():
        relative = (one[name] - weight).abs() / weight.abs().clamp(min=1e-12)
        assert 0 < relative.max() < 1e-6, name
    assert any((one[name] != other[name]).any() for name in plain)


# --- the committed evidence ----------------------------------------------------------------------------------


def test_every_committed_half_trained_network_is_bad_and_false_alarms_are_rare():
    """The numbers alone decide: a verdict does not read the number of steps."""
    values = table.stored()
    found = reproduction.comparisons(values)
    seen = {cell.recipe for (cell, paired), each in found.items() if paired and each.p <= reproduction.ALPHA}
    assert seen == set(RECIPES)
    for paired in (True, False):
        assert sum(table.simulated(values, paired, run) for run in range(table.RUNS)) <= 0.02 * table.RUNS
    assert table.left_out(values, True)[0] == 0


def test_a_blind_cell_is_shown_in_the_table():
    """Half-trained networks with the committed numbers: every verdict is good, and marked."""
    values = table.stored()
    same = {(cell, paired): values.known[cell, paired] for cell, paired in values.new if paired}
    lines = table.tables(values._replace(new=same))["reproduction.md"].splitlines()
    assert sum("| **good** " in line for line in lines) == len(RECIPES)
