"""Tables and figures are pure functions of the records: same bytes in any order, and stale ones are found."""

import csv
import io
import json
import re

import matplotlib
import pytest
from helpers.synthetic import bound, law, paper, question, record, store, timed, training

import paper_figures
from paper_figures import __main__ as figures
from paper_figures import curves, gap, quality
from repro import report as report_command
from repro.results import report
from repro.results.store import Store, collect
from repro.results.versions import latest

RECORDED = [name for name, source in figures.FIGURES.items() if source == "records"]


@pytest.fixture(scope="module")
def records():
    return paper()


@pytest.fixture(scope="module")
def raw(tmp_path_factory, records):
    """The records as files; written without syncing each line, for speed."""
    folder = tmp_path_factory.mktemp("raw")
    for each in records:
        with open(Store(folder).path(each), "a") as file:
            file.write(json.dumps(each.data()) + "\n")
    return folder


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_tables_hold_every_cell_once_with_mean_and_spread_over_seeds(raw):
    files = report.tables(collect(raw))
    bounds = rows_of(files["bounds.csv"])
    assert [row["checkpoint"] for row in bounds if row["scale"] == "nano.text"] == [
        "ar@nano.text",
        "mdlm@nano.text",
    ]
    assert all(row["seeds"] == "3" and row["n"] == "4096" for row in bounds)
    (mdlm,) = (row for row in bounds if row["checkpoint"] == "mdlm@nano")
    values = [bound("mdlm@nano", seed).answer.metrics["nll_bound"].value for seed in range(3)]
    assert float(mdlm["nll_bound"]) == pytest.approx(sum(values) / 3, rel=1e-5)
    assert float(mdlm["gap"]) == pytest.approx(float(mdlm["nll_bound"]) - float(mdlm["nll_exact"]), abs=1e-5)
    tokens = [
        row["tokens_per_step"] for row in rows_of(files["sudoku.csv"]) if row["preset"] == "low_confidence"
    ]
    assert tokens == ["1", "2", "4", "all"]
    for row in rows_of(files["sudoku.csv"]):
        assert float(row["accuracy_low"]) < float(row["accuracy"]) < float(row["accuracy_high"])


def test_numbers_have_at_most_six_significant_digits(raw):
    for name, text in report.tables(collect(raw)).items():
        if name.endswith(".csv"):
            numbers = re.findall(r"(?<![\w.@-])-?\d*\.?\d+(?:e-?\d+)?(?=[,\n])", text)
            assert numbers or text.count("\n") == 1, name
            assert all(float(f"{float(x):.6g}") == float(x) for x in numbers)


def test_order_of_the_records_changes_no_byte(tmp_path, records, raw):
    """Tables are a function of the set of records."""
    backwards = tmp_path / "raw"
    backwards.mkdir()
    for path in raw.glob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        (backwards / path.name).write_text("".join(reversed(lines)))
    assert report.tables(collect(backwards)) == report.tables(collect(raw))


def test_a_number_is_printed_to_the_digits_that_its_uncertainty_supports():
    nan = float("nan")
    assert report.measured(1.87901, 0.0041, nan) == "1.8790 ± 0.0080"
    assert report.measured(1.87901, 0.0041, 0.0123) == "1.8790 ± 0.0080, sd 0.0123"
    assert report.measured(0.0040720962619612, 4.6e-18, nan) == "0.004072"  # clusterings that all agree
    assert report.measured(1.682, 0.002, 0.0) == "1.6820 ± 0.0039"
    assert report.measured(152.7, 12.0, nan) == "153 ± 24"
    assert report.measured(1.87901, nan, nan) == "1.879" and report.measured(nan, nan, nan) == ""


def test_a_note_is_printed_and_two_protocols_are_refused(tmp_path):
    noted = record(question("duo@nano"), {"nll_bound": (2.4, 0.1, 8)}, recipe="duo@nano", note="improper")
    assert "improper" in report.tables(collect(store(tmp_path / "a", [noted])))["bounds.md"]
    mixed = [bound("mdlm@nano"), bound("llada@nano", protocol={"rows": 500, "passes": 9})]
    with pytest.raises(ValueError, match="passes is"):
        report.tables(collect(store(tmp_path / "b", mixed)))


def test_a_first_try_with_fewer_items_gives_way_to_the_whole_evaluation(tmp_path, capsys):
    """And the command says how many records it left out; a try alone is shown."""
    first, more, whole = (
        record(question("mdlm@nano", limit=limit), {"nll_bound": (value, 0.1, 8)})
        for limit, value in ((8, 3.0), (40, 2.0), (None, 1.0))
    )
    other = bound("llada@nano")
    for given, left in (([first], "3"), ([first, more], "2"), ([more, whole, first], "1")):
        raw = store(tmp_path / left, [*given, other])
        assert report_command.main(["--raw", str(raw), "--out", str(tmp_path / f"out{left}")]) == 0
        said, text = capsys.readouterr().out, (tmp_path / f"out{left}" / "bounds.csv").read_text()
        assert f",mdlm@nano,{left}," in text and text.count("mdlm@nano") == 1 and "llada@nano" in text
        assert ("left out: " in said) == (
            len(given) > 1
        ) and f"left out: {len(given) - 1}" in said + "left out: 0"


def test_an_older_version_of_a_part_is_marked_and_drawn_in_no_figure(tmp_path, monkeypatch):
    """Two versions of a sampler give two rows, the older one marked; two settings in one row are still an error."""

    def asked(preset, version, **pins):
        sampler = {"part": preset, "version": version, **pins}
        metrics = {"excess": (0.1 * version, 0.02, 500), "bigram": (0.01, 0.002, 500)}
        about = question("mdlm@nano", "law", sampler=sampler)
        return record(about, metrics, preset=preset, tokens="1", nfe=32.0, tokens_per_nfe=1.0)

    old, new, other = asked("random", 1), asked("random", 2), asked("margin", 1)
    given = []  # tables without a column for a mark
    monkeypatch.setattr(report.text_quality, "tables", lambda records: given.extend(records) or {})
    rows = report.tables(collect(store(tmp_path / "a", [old, new, other])))["law.csv"].splitlines()[1:]
    assert given == [new, other]
    notes = {(row.split(",")[3], row.split(",")[5][:3]): row.rpartition(",")[2] for row in rows}
    assert notes == {
        ("margin", "0.1"): "",
        ("random", "0.2"): "",
        ("random", "0.1"): "older: random version 1",
    }
    assert latest([old, new, other]) == [new, other]
    with pytest.raises(ValueError, match=r"two evaluations would share a row: sampler\.k is "):
        report.tables(collect(store(tmp_path / "b", [asked("random", 1, k=1), asked("random", 1, k=2)])))


def test_a_speed_of_one_document_has_a_row(tmp_path, capsys):
    """As `--limit 1` stores it: its accuracy has no standard error, and Wilson's interval."""
    raw = store(tmp_path / "raw", [timed("llada@nano.sudoku", "low_confidence", "1", "1", 16)])
    assert report_command.main(["--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
    (row,) = rows_of((tmp_path / "out" / "speed.csv").read_text())
    assert (row["accuracy"], row["accuracy_se"], row["accuracy_low"], row["n"]) == ("1", "", "0.206549", "1")
    assert "1.000 [0.207, 1.000]" in (tmp_path / "out" / "speed.md").read_text()


def test_no_records_give_headers_and_a_sentence(tmp_path):
    files = report.tables(collect(tmp_path))
    assert files["law.csv"].count("\n") == 1 and "| checkpoint" in files["law.md"]
    assert all("No records" in text for name, text in files.items() if name.endswith(".md"))
    for name in RECORDED:
        assert "no records of " in figures.draw(name, [])[f"{name}.svg"]


def test_check_finds_a_stale_table_and_names_the_command(tmp_path, raw, capsys):
    where = ["--raw", str(raw), "--out", str(tmp_path)]
    assert report_command.main(where) == 0 and report_command.main([*where, "--check"]) == 0
    path = tmp_path / "sudoku.md"
    path.write_text(path.read_text().replace("0.97", "0.98", 1))
    capsys.readouterr()
    assert report_command.main([*where, "--check"]) == 1
    with pytest.raises(ValueError, match="--width is for tables of records of your own"):
        report_command.main(["--width", "5.5"])
    for wrong, said in (
        ("x", "'x' is no number of inches"),
        ("nan", "nan inches is no width"),
        ("1", "give 2 to 20"),
    ):
        with pytest.raises(ValueError, match=said):
            report_command.main([*where, "--width", wrong])
    assert capsys.readouterr().out == f"{path} is stale; python -m repro.report rewrites it\n"


def test_other_records_never_replace_the_committed_tables(raw):
    """`--out` is a must with `--raw`, or `results/tables` would hold them."""
    with pytest.raises(ValueError, match=r"needs --out FOLDER: .*tables holds the tables of results/raw"):
        report_command.main(["--raw", str(raw)])


def test_a_part_that_a_latex_table_has_no_more_is_stale_and_goes(tmp_path, raw, capsys):
    where = ["--raw", str(raw), "--out", str(tmp_path)]
    assert report_command.main(where) == 0
    former, other = tmp_path / "sudoku-7.tex", tmp_path / "mine-2.tex"
    former.write_text("x"), other.write_text("x")
    capsys.readouterr()
    assert report_command.main([*where, "--check"]) == 1
    assert capsys.readouterr().out == f"{former} is stale; python -m repro.report rewrites it\n"
    assert report_command.main(where) == 0 and not former.exists() and other.exists()


def test_figures_leave_out_a_first_try_with_fewer_items(tmp_path):
    """As tables do: no two records of one evaluation share a point."""
    raw = store(tmp_path, [bound(limit=8, shift=1.0), bound(limit=40)])
    assert figures.main(["gap", "--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
    whole = store(tmp_path / "whole", [bound(limit=40)])
    assert figures.main(["gap", "--raw", str(whole), "--out", str(tmp_path / "alone")]) == 0
    assert (tmp_path / "out" / "gap.csv").read_text() == (tmp_path / "alone" / "gap.csv").read_text()


@pytest.mark.parametrize("name", RECORDED)
def test_figures_are_the_same_bytes_for_any_order_of_records(name, records):
    first = figures.draw(name, records)
    assert figures.draw(name, records[::-1]) == first
    svg = first[f"{name}.svg"]
    assert "<dc:date>" not in svg and not re.search(r"\bnan\b", svg)
    tasks = re.search(r"no records of tasks? ([\w ]+)", figures.draw(name, [])[f"{name}.svg"])
    held = {record.labels.task for record in records}
    assert tasks, f"{name} without records names no task; its page says 'no records of task NAME yet'"
    if held & set(tasks[1].split()):
        least = 2 if name == "matched" else 5  # `matched` has one point a sweep
        assert len(first[f"{name}.csv"].splitlines()) > least


def test_a_sampler_is_drawn_at_what_it_planned_or_realised():
    made = [law("mdlm@nano", "random", tokens, 1.0, 0.1) for tokens in ("1", "8", "all")]
    drawn = quality.query([*made, law("mdlm@nano", "threshold_0.9", None, 1.0, 0.1, per_nfe=1.7)])
    assert drawn[drawn.metric == "excess"].x.tolist() == [1.0, 8.0, 32.0, 1.7]
    assert drawn.true_value.notna().all()


def test_training_curves_are_means_of_equal_stretches():
    assert curves.binned([0, 1, 2, 3], [1, 3, 5, 9], 2) == [(0.5, 2), (2.5, 7)]
    assert curves.binned([0, 1], [4, 2], 60) == [(0, 4), (1, 2)] and curves.binned([], [], 60) == []
    drawn = curves.query([training("mdlm@nano", seed) for seed in (0, 1)])
    assert drawn.groupby(["train_seed", "curve"]).size().tolist() == [60, 10, 60, 10]


def test_one_recipe_has_one_colour_and_no_two_share_it():
    colours = [paper_figures.colour(f"{name}@nano") for name in paper_figures.COLOURS]
    assert len(set(colours)) == len(colours) and paper_figures.colour("mdlm@nano.text") in colours


def test_labels_do_not_overlap_and_stay_in_order():
    placed = paper_figures.spread_out([0.5, 0.51, 0.52, 0.9], 0.1, 0.0, 1.0)
    assert placed == pytest.approx([0.41, 0.51, 0.61, 0.9])


def test_check_of_figures_compares_csv_always_and_svg_on_the_pinned_version(
    tmp_path, raw, capsys, monkeypatch
):
    where = ["gap", "--raw", str(raw), "--out", str(tmp_path)]
    assert figures.main(where) == 0
    monkeypatch.setattr(figures, "pinned_matplotlib", lambda: matplotlib.__version__)
    assert figures.main([*where, "--check"]) == 0
    (tmp_path / "gap.svg").write_text("<svg/>")
    assert figures.main([*where, "--check"]) == 1
    monkeypatch.setattr(figures, "pinned_matplotlib", lambda: "0.0.1")
    capsys.readouterr()
    assert figures.main([*where, "--check"]) == 0 and "SVG not compared" in capsys.readouterr().out
    (tmp_path / "gap.csv").write_text("")
    assert figures.main([*where, "--check"]) == 1
    with pytest.raises(ValueError, match="no figure 'gaps'; nearest is 'gap'"):
        figures.main(["gaps"])


def test_gap_figure_shows_the_gap_of_the_records(records):
    _, drawn = gap.figure(records)
    assert drawn.recipe.tolist() == ["ar@nano", "llada@nano", "mdlm@nano", "duo@nano", "duo_nelbo@nano"]
    assert drawn.value[2] == pytest.approx(0.2, abs=0.02) and (drawn.seeds == 3).all()
