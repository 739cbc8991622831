"""Factors: variance components and flips by hand, incomplete crossings, and what the command prints."""

import itertools
import json

import numpy as np
import pytest
from helpers.synthetic import NUMERICS, question, record
from scipy.stats import chi2, norm

from repro.results.__main__ import main as results
from repro.results.crossing import Crossing, Stored, crossings, stored
from repro.results.factors import analyse, effects_variance, equal_levels_p, factors, say, sentence
from repro.results.record import make_record
from repro.results.store import Store, items_file


def crossing(outcomes, **levels):
    """A crossing of outcomes [items, levels of the first factor, ...]; `levels`: of each factor, as text 'A|B'."""
    return Crossing(
        checkpoint="toy",
        task="choice",
        metric="acc",
        filter="none",
        factors={name: tuple(each.split("|")) for name, each in levels.items()},
        fixed={"template": "none"},
        outcomes=np.array(outcomes, dtype=float),
    )


# --- variance -------------------------------------------------------------------------------------------------


def test_known_effects_are_recovered():
    """Items (3, -1, -1, -1), template +-.5, steps +-.25, their interaction +-.125, and items that react to the template
    by +-(.3, -.3, 0, 0)."""
    items, sign = np.array([3.0, -1, -1, -1]), np.array([-1.0, 1])
    react = np.array([0.3, -0.3, 0, 0])
    a, b = sign[:, None], sign[None, :]
    y = (
        items[:, None, None]
        + (0.5 * a + 0.25 * b + 0.125 * a * b)[None]
        + react[:, None, None] * a[None] * np.ones((1, 1, 2))
    )
    template, reacting = effects_variance(y, [0])
    assert reacting == pytest.approx((0.09 + 0.09) / 3)  # variance over four items, divisor 3
    assert template == pytest.approx(0.25 - reacting / 4)
    assert effects_variance(y, [1]) == pytest.approx((0.0625, 0))
    assert effects_variance(y, [0, 1]) == pytest.approx((0.015625, 0))
    found = factors(crossing(y, template="none|chat", steps="1|4"))
    total = (0.25 - 0.06 / 4) + 0.0625 + 0.015625 + (12 / 3 + 0.06) / 4
    shares = {row.name: (row.share * total, row.share_with_others * total) for row in found.rows}
    assert shares["template"] == pytest.approx((0.235, 0.235 + 0.015625))
    assert shares["steps"] == pytest.approx((0.0625, 0.0625 + 0.015625))
    assert found.interactions * total == pytest.approx(0.015625)
    assert found.items * total == pytest.approx(1) and found.items_by_settings * total == pytest.approx(0.015)
    assert found.most.name == "template"


def test_four_items_by_hand():
    """Two of four items flip, both upwards: V = 1/16 - 1/48, items 1/6, item x factor 1/12, and Cochran's Q is
    McNemar's (2 - 0)^2 / 2."""
    found = factors(crossing([[0, 1], [0, 1], [1, 1], [0, 0]], seed="0|1"))
    (row,) = found.rows
    (part,) = found.components
    assert (part.variance, part.items) == pytest.approx((1 / 24, 1 / 12))
    assert (row.share, found.items, found.items_by_settings) == pytest.approx((0.4, 0.4, 0.2))
    assert row.flips == 0.5 and row.pairs == (("0", "1", 0.5),)
    z = norm.ppf(0.975)
    half = z * (0.25 / 4 + z**2 / 64) ** 0.5 / (1 + z**2 / 4)
    assert row.flips_interval == pytest.approx((0.5 - half, 0.5 + half))
    assert row.accuracy == (0.25, 0.75)
    assert (row.swing.change, row.swing.low, row.swing.high) == (0.5, "0", "1")
    assert row.p == pytest.approx(chi2.sf(2, 1))


def test_flips_of_three_levels_and_the_largest_swing():
    """Flips are a mean over pairs of levels and settings of the others; the swing is the largest anywhere."""
    y = np.zeros((4, 3, 2))
    y[0, 2, :] = 1  # flips with level 2, at both batch sizes
    y[1, 1:, 1] = 1  # flips with levels 1 and 2, at the second batch size
    found = factors(crossing(y, steps="1|2|4", batch="1|8"))
    steps, batch = found.rows
    assert [pair[2] for pair in steps.pairs] == pytest.approx([1 / 8, 3 / 8, 2 / 8])
    assert steps.flips == pytest.approx(0.25)
    assert batch.flips == pytest.approx(2 / 12)
    swing = steps.swing
    assert (swing.change, swing.low, swing.high, swing.others) == (0.5, "1", "4", "batch=8")
    assert (batch.swing.change, batch.swing.others) == (0.25, "steps=2")
    assert any("The batch size alone flips 16.7% of items: numerical noise" in line for line in say(found))


def test_shares_add_up_and_the_components_to_the_variance_of_the_cells():
    """The variances over items of all terms add up to the mean variance of a cell, and all shares to 1."""
    y = np.random.default_rng(0).integers(0, 2, (40, 2, 3, 2)).astype(float)
    y[:, 1] = np.maximum(y[:, 1], y[:, 0])  # a strong first factor
    found = factors(crossing(y, template="none|chat", steps="1|2|4", seed="0|1"))
    terms = [
        effects_variance(y, term)[1] for size in range(4) for term in itertools.combinations(range(3), size)
    ]
    assert sum(terms) == pytest.approx(y.var(axis=0, ddof=1).mean())
    assert len(found.components) == 7 and found.cells == 12
    shares = [each.share for each in found.components]
    assert sum(shares) + found.items + found.items_by_settings == pytest.approx(1)
    assert found.most.name == "template" and found.rows[0].p < 1e-3 < found.rows[2].p


def test_the_variance_of_an_effect_has_no_bias():
    """Its mean over all samples of three items from four, with replacement, is that of the four."""
    population = np.array([[0, 1], [1, 1], [0, 0], [1, 0.5]])
    effect = (population[:, 1] - population[:, 0]).mean() / 2
    found = [
        effects_variance(population[list(some)], [0])[0] for some in itertools.product(range(4), repeat=3)
    ]
    assert np.mean(found) == pytest.approx(effect**2)


def test_the_test_of_levels_is_cochrans():
    """Q of Cochran (1950) from row and column totals."""
    y = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=float)
    columns, rows = y.sum(0), y.sum(1)
    q = 2 * (3 * (columns**2).sum() - y.sum() ** 2) / (3 * rows.sum() - (rows**2).sum())
    assert equal_levels_p(y, 0) == pytest.approx(chi2.sf(q, 2))
    assert equal_levels_p(np.ones((4, 2)), 0) == 1


def test_sentences():
    same = factors(crossing(np.ones((3, 2)), batch="1|8"))
    assert sentence(same) == "No factor changes the outcome of any item." and same.items == 0
    swapped = factors(crossing([[0, 1], [1, 0], [0, 0]], seed="0|1"))
    assert "by more than the choice of items explains; seed flips most" in sentence(swapped)
    strong = factors(crossing([[0, 1]] * 20, template="none|chat"))
    assert sentence(strong).startswith("template matters most: 100.0% of the variance")
    weak = factors(crossing([[0, 1], [0, 1], [1, 1], [0, 0]], template="none|chat"))
    assert "template matters most (but its mean effect cannot be told" in sentence(weak)
    with pytest.raises(ValueError, match="1 item has no variance"):
        factors(crossing([[0, 1]], seed="0|1"))


def test_a_ranking_of_samplers_names_its_exceptions_and_its_one_template():
    y = np.zeros((4, 2, 2))
    y[:3, 1, 0] = 1
    y[:2, 0, 1] = 1
    lines = list(say(factors(crossing(y, sampler="random|margin", steps="1|4"))))
    assert "best sampler: margin in 1 of 2 combinations of the other settings (random at steps=4)" in lines
    assert lines[-1] == "ranking of samplers under one template (none)"
    lines = list(say(factors(crossing(np.zeros((4, 2)), sampler="random|margin"))))
    assert any("random = margin in 1 of 1" in line for line in lines)


def test_a_narrow_terminal_gets_two_tables_and_no_number_is_cut():
    y = np.zeros((20, 2, 3, 2))
    y[:9, 1, 0] = 1
    y[:4, 0, :, 1] = 1
    found = factors(
        crossing(y, sampler="low_confidence|random:temperature=0.7", steps="1|4|all", template="none|chat")
    )
    wide, narrow = (list(say(found, room)) for room in (400, 80))
    end = narrow.index(next(line for line in narrow if line.startswith("rest of the variance")))
    assert max(map(len, narrow[1:end])) <= 80 < max(map(len, wide[1:5]))
    assert narrow[end:] == wide[5:]
    for row in found.rows:
        cells = "\n".join(narrow[1:end])
        assert (
            f"{row.share_with_others:.1%}" in cells
            and f"{row.flips:.3f} [{row.flips_interval.low:.3f}," in cells
        )
        assert all(
            f"{level} ({value:.3f})" in cells for level, value in zip(row.levels, row.accuracy, strict=True)
        )


# --- records --------------------------------------------------------------------------------------------------

TASK = {"name": "choice", "version": 1, "template": "none", "shots": None}


def entries(folder, cells, task=TASK, limit=4, metric="acc", **more):
    """Stored records: `cells` maps (template, batch or None, seed) to outcomes; items are written beside them."""
    found = []
    for (template, batch, seed), outcomes in cells.items():
        asked = question(task="choice", seed=seed, limit=limit)
        asked = type(asked).read({**asked.data(), "task": {**task, "template": template}})
        one = record(asked, {metric: (0.5, 0.1, len(outcomes))}, numerics=more.get("numerics", NUMERICS))
        if batch is not None:
            data = one.measurements.data() | {"batch": batch}
            one = make_record(asked, one.labels.data(), one.answer.data(), data)
        store = Store(folder / f"batch-{batch}" / "raw")
        store.append(one)
        path = items_file(folder / f"batch-{batch}" / "raw", one)
        path.parent.mkdir(exist_ok=True)
        items = [
            {
                "doc_id": i,
                "filter": "none",
                "metrics": {metric: value},
                "doc_hash": f"d{i}",
                "prompt_hash": template,
            }
            for i, value in enumerate(outcomes)
        ]
        path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
        found.append(Stored(one, path))
    return found


CELLS = {
    (template, batch, seed): [1, template == "chat", batch == 16 and seed == 1, template == "chat"]
    for template in ("none", "chat")
    for batch in (2, 16)
    for seed in (0, 1)
}


def test_records_become_a_crossing(tmp_path):
    """Levels in the order of numbers, the batch size from the measurements, every outcome in its place."""
    entries(tmp_path, CELLS)
    (found,) = crossings(stored(tmp_path))
    assert found.factors["batch"] == ("2", "16") and found.factors["seed"] == ("0", "1")
    assert found.fixed == {"shots": "default", "precision": "float32"}
    for at, (template, batch, seed) in zip(
        np.ndindex(2, 2, 2),
        itertools.product(*(found.factors[n] for n in ("template", "batch", "seed"))),
        strict=True,
    ):
        wanted = CELLS[template, int(batch), int(seed)]
        assert found.outcomes[(slice(None), *at)].tolist() == [float(value) for value in wanted]


def test_the_command_prints_a_table_json_and_csv(tmp_path, capsys):
    entries(tmp_path, CELLS)
    assert results(["factors", str(tmp_path), "--csv", str(tmp_path / "a.csv")]) == 0
    text = capsys.readouterr().out
    assert "choice of mdlm@nano: acc, mean 0.562 over 4 items in 8 combinations" in text
    assert "template matters most" in text
    lines = (tmp_path / "a.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 7 + 2 and "template x batch x seed" in lines[7]
    assert results(["factors", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["matters_most"] == "template" and found["rows"][0]["flips"] == 0.5
    assert [row["name"] for row in found["rows"]] == ["template", "batch", "seed"]


def test_incomplete_crossings_are_refused(tmp_path):
    left = {
        cell: outcomes for cell, outcomes in CELLS.items() if cell not in [("chat", 2, 1), ("chat", 16, 0)]
    }
    with pytest.raises(
        ValueError,
        match=r"choice of mdlm@nano: 2 of 8 combinations of template x batch x seed are missing:"
        r" template=chat batch=2 seed=1; template=chat batch=16 seed=0; run the same command",
    ):
        analyse(entries(tmp_path, left))


def test_what_is_no_crossing_is_refused(tmp_path):
    one = {("none", 2, 0): [1, 0], ("chat", 2, 0): [1, 1]}
    first = entries(tmp_path / "a", one)
    with pytest.raises(
        ValueError, match="no task of a checkpoint in this folder was evaluated under several levels"
    ):
        analyse(first[:1])
    with pytest.raises(ValueError, match="limit is 4 and 8, which --factors cannot vary"):
        analyse(first[:1] + entries(tmp_path / "b", one, limit=8)[1:])
    other = entries(tmp_path / "c", one, numerics={**NUMERICS, "torch": "2.12.0"})
    with pytest.raises(ValueError, match=r"numerics\.torch is .* which --factors cannot vary"):
        analyse(first[:1] + other[1:])
    with pytest.raises(ValueError, match="two records have template=none"):
        analyse([*first, first[0]])
    with pytest.raises(ValueError, match=r"template=chat has, .* document 2 \(filter none\)"):
        analyse(first[:1] + entries(tmp_path / "d", {("chat", 2, 0): [1, 1, 0]}))
    with pytest.raises(ValueError, match="no metric that is 0 or 1"):
        analyse(entries(tmp_path / "e", {cell: [0.5, 1] for cell in one}))
    first[1].items.write_text(first[1].items.read_text("utf-8").replace('"d1"', '"x"'), "utf-8")
    with pytest.raises(
        ValueError, match="document 1 has another content in the evaluation with template=chat"
    ):
        analyse(first)
    first[1].items.unlink()
    with pytest.raises(ValueError, match="factors need the outcome of each item"):
        analyse(first)
