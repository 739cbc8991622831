"""Records: invalid, incomplete, contradictory and overridden ones are refused; hashes are exact."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.synthetic import NUMERICS, bound, law, question, record, store

from repro.core.files import ROOT
from repro.core.parts import sha256
from repro.results import __main__ as results_command
from repro.results import flips
from repro.results.explain import select
from repro.results.record import agree, read_record, text, unmarked
from repro.results.report import tables
from repro.results.store import (
    Store,
    collect,
    items_file,
    one_protocol,
    publish,
    read,
    scale_of,
    summarise,
    to_frame,
    write_items,
)


def lines(folder):
    (path,) = folder.glob("*.jsonl")
    return path, path.read_bytes()


def test_id_key_and_cell_change_with_what_they_name_and_with_nothing_else():
    """The key does not depend on the trained weights, the cell also not on the seeds."""
    first = question()
    assert question().id == first.id
    other_weights = question(digest="weights trained on another machine")
    assert (
        other_weights.id != first.id and other_weights.key == first.key and other_weights.cell == first.cell
    )
    for other in (question(train_seed=1, digest=first.checkpoint.digest), question(seed=1)):
        assert other.id != first.id and other.key != first.key and other.cell == first.cell
    changes = [{"step": 1000}, {"weights": "ema"}, {"limit": 8}, {"protocol": {"rows": 8}}, {"task": "law"}]
    for change in changes:
        assert len({question(**change).cell, first.cell}) == 2, change


def test_labels_and_measurements_enter_no_hash_of_the_question():
    asked = question()
    a = record(asked, {"gap": (0.2, 0.01, 8)}, note="truncated")
    b = record(asked, {"gap": (0.3, 0.01, 8)}, numerics={**NUMERICS, "threads": 2})
    assert (a.id, a.key, a.cell) == (b.id, b.key, b.cell) and a.sha256 != b.sha256


@pytest.mark.parametrize(
    "change", [{"sampler": "greedy"}, {"limit": 1.5}, {"seed": True}, {"task": {"name": "law"}}]
)
def test_a_question_of_another_type_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        question(**change)


def test_an_answer_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="'gap' of 'mdlm@nano' is nan"):
        record(question(), {"gap": (float("nan"), 0.01, 8)})


def test_a_record_survives_the_file_and_is_not_written_twice(tmp_path):
    first, folder = law("oracle:mdlm@nano", "random", "1", 0.1, 0.2), tmp_path / "raw"
    assert Store(folder).append(first) and not Store(folder).append(first)
    path, data = lines(folder)
    assert path.name == "oracle_mdlm@nano-s0.nano.jsonl" and data.count(b"\n") == 1
    assert read(path) == [first] == Store(folder).records()
    assert Store(folder).find(first.id, NUMERICS) == first
    assert Store(folder).find(first.id, {**NUMERICS, "threads": 2}) is None


def test_any_flipped_character_is_found(tmp_path):
    """The hash of a line covers every value; the error names file, line and remedy in one line."""
    path, data = lines(store(tmp_path, [bound(train_seed=0), bound(train_seed=0, seed=1)]))
    for at in range(data.index(b"\n") + 1, len(data) - 1, 29):
        broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"jsonl:2: .*; remove this line") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_changed_value_needs_more_than_a_new_checksum(tmp_path):
    """A changed question is found by its id even if the line has a new checksum."""
    path, data = lines(store(tmp_path, [bound()]))
    changed = json.loads(data)
    changed["question"]["seed"] = 7
    body = {name: value for name, value in changed.items() if name != "sha256"}
    changed["sha256"] = sha256(text(body))
    path.write_text(json.dumps(changed) + "\n")
    with pytest.raises(ValueError, match="its field 'id' is not the hash of its field 'question'"):
        read(path)


def test_items_are_sound_json(tmp_path):
    """A likelihood of minus infinity, or a metric that is no number, is null; the rest of its item stays."""
    asked = question()
    made = record(asked, {"acc": (0.5, 0.1, 2)})
    items = [
        {
            "doc_id": i,
            "filter": "none",
            "metrics": {"acc": i, "f1": math.nan},
            "found": [{"value": -math.inf}],
        }
        | {"doc_hash": None, "prompt_hash": None}
        for i in (0, 1)
    ]
    write_items(tmp_path / "raw", made, items)
    path = items_file(tmp_path / "raw", made)
    assert [json.loads(line)["found"] for line in path.read_text().splitlines()] == [[{"value": None}]] * 2
    found = flips.read_items(path)
    assert [item.metrics for item in found.values()] == [{"acc": 0, "f1": None}, {"acc": 1, "f1": None}]
    assert flips.flips(found, found, "acc").n == 2
    with pytest.raises(ValueError, match="metric 'f1' of document 0 is None, not a finite number"):
        flips.flips(found, found, "f1")


def test_items_of_each_numerics_class_have_a_file(tmp_path):
    """One evaluation run with one thread and with two gives two records in a folder; neither may read the other's."""
    one = bound()
    two = record(one.question, {"nll_bound": (2.0, 0.1, 8)}, numerics={**NUMERICS, "threads": 2})
    assert one.id == two.id and one.measurements.numerics != two.measurements.numerics
    for number, each in enumerate((one, two)):
        write_items(tmp_path / "raw", each, [{"doc_id": number}])
    kept = [json.loads(items_file(tmp_path / "raw", each).read_text()) for each in (one, two)]
    assert kept == [{"doc_id": 0}, {"doc_id": 1}]


@pytest.mark.parametrize("left", [1, 200, -1])
def test_a_torn_tail_is_ignored_then_cut_off_by_the_next_append(tmp_path, left):
    """A writer that is killed within a line, or before its newline, loses only that line."""
    first, second, third = bound(), bound(seed=1), bound(seed=2)
    path, data = lines(store(tmp_path, [first, second]))
    start = data.index(b"\n") + 1
    path.write_bytes(data[: start + left] if left > 0 else data[:left])
    with pytest.raises(ValueError, match=":2: incomplete last line"):
        read(path)
    assert Store(tmp_path).records() == [first]
    assert Store(tmp_path).append(third)
    assert read(path) == [first, third]


def test_a_broken_line_inside_stops_the_append(tmp_path):
    path, data = lines(store(tmp_path, [bound()]))
    path.write_bytes(b"{}\n" + data)
    with pytest.raises(ValueError, match="jsonl:1: "):
        Store(tmp_path).append(bound(seed=1))
    assert path.read_bytes() == b"{}\n" + data


def test_same_question_other_answer_is_an_error_and_other_numerics_are_kept(tmp_path):
    first = record(question(), {"gap": (0.2, 0.01, 500)}, samples="a" * 64)
    close = record(question(), {"gap": (0.2 * (1 + 5e-6), 0.01, 500)}, samples="a" * 64)
    folder = store(tmp_path, [first])
    assert not Store(folder).append(close)
    for metrics, samples, said in [
        ({"gap": (0.21, 0.01, 500)}, "a" * 64, r"metrics\.gap\.value is 0\.2 and 0\.21"),
        ({"gap": (0.2, 0.01, 501)}, "a" * 64, r"metrics\.gap\.n is 500 and 501"),
        ({"gap": (0.2, 0.01, 500)}, "b" * 64, "samples is"),
        ({"nll_bound": (0.2, 0.01, 500)}, "a" * 64, r"metrics\.gap is given in only one"),
    ]:
        with pytest.raises(ValueError, match=said):
            Store(folder).append(record(question(), metrics, samples=samples))
    elsewhere = record(
        question(), {"gap": (0.3, 0.01, 500)}, numerics={**NUMERICS, "device": "cuda"}, samples="c" * 64
    )
    assert Store(folder).append(elsewhere)
    assert Store(folder).records() == [first, elsewhere]


def test_answers_agree_symmetrically():
    a, b = (record(question(), {"gap": (value, None, 8)}) for value in (0.2, 0.2001))
    for one, other in ((a, b), (b, a)):
        with pytest.raises(ValueError, match="two results"):
            agree(one, other, Path("here.jsonl"))


def test_publish_copies_once_and_refuses_the_whole_run_before_it_writes(tmp_path):
    target, run = tmp_path / "results", tmp_path / "run"
    records = [bound(), bound(train_seed=1), bound("ar@nano")]
    store(run / "raw", records)
    (run / "log.jsonl").write_text("not a record\n")
    assert publish(run, target) == (3, 0) and publish(run, target) == (0, 3)
    assert sorted(r.id for r in collect(target)) == sorted(r.id for r in records)

    before = {path.name: path.read_bytes() for path in target.glob("*.jsonl")}
    overridden = record(question("duo+3fa9c1"), {"gap": (0.1, 0.01, 8)}, recipe="duo+3fa9c1")
    store(tmp_path / "tuned", [bound("llada@nano"), overridden])
    with pytest.raises(ValueError, match=r"jsonl:1: 'duo\+3fa9c1' has an override"):
        publish(tmp_path / "tuned", target)
    with pytest.raises(ValueError, match="two results"):
        publish(store(tmp_path / "other", [bound("llada@nano"), bound(shift=0.1)]), target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no records in"):
        publish(tmp_path / "empty", target)
    assert {path.name: path.read_bytes() for path in target.glob("*.jsonl")} == before


def test_two_protocols_never_share_a_column():
    """The error names the field that differs and both values."""
    rows = to_frame([bound(), bound("ar@nano", protocol={"rows": 500, "passes": 8})])
    with pytest.raises(ValueError, match="share a column: passes is 4 and 8"):
        one_protocol(rows)
    with pytest.raises(ValueError, match=r"share a row: checkpoint\.step is 2000 and 1000"):
        summarise(to_frame([bound(), bound(step=1000)]))


def test_a_train_seed_counts_once_however_often_it_was_answered():
    """Mean, spread and number of seeds come from train seeds, not from sampling seeds or machines."""
    values = {(0, 0): 1.0, (0, 1): 1.2, (1, 0): 2.0, (2, 0): 3.0}
    made = [record(question(train_seed=t, seed=s), {"gap": (v, 0.1, 8)}) for (t, s), v in values.items()]
    (row,) = summarise(to_frame(made)).to_dict("records")
    assert row["seeds"] == 3 and row["value"] == pytest.approx((1.1 + 2 + 3) / 3)
    assert row["sd_seeds"] == pytest.approx(0.9504, abs=1e-4) and row["se"] == pytest.approx(0.1)


def test_command_line_checks_a_folder_and_names_what_is_missing(tmp_path, capsys):
    store(tmp_path / "run" / "raw", [bound(), bound(seed=1)])
    assert results_command.main(["check", str(tmp_path / "run")]) == 0
    assert "2 records in 1 files" in capsys.readouterr().out
    with pytest.raises(ValueError, match="publish needs the folder"):
        results_command.main(["publish"])
    with pytest.raises(ValueError, match="no folder"):
        results_command.main(["check", str(tmp_path / "nowhere")])


def test_results_statistics_tables_and_figures_import_no_torch():
    """They must run where torch is not installed."""
    code = (
        "import sys, repro.results.store, repro.core.stats, repro.results.reproduction, repro.results.report\n"
        "import paper_figures.__main__ as figures\n[figures.module(name) for name in figures.FIGURES]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unfinished_network_is_marked_in_frames_and_enters_no_hash():
    """The mark is a label: question and hashes stay, and a scale is read from the marked name too."""
    asked = question("mdlm@nano", step=39)
    plain = record(asked, {"nll_bound": (2.0, 0.1, 8)})
    early = record(asked, {"nll_bound": (2.0, 0.1, 8)}, unfinished="step 39 of 900")
    assert (plain.id, plain.key, plain.cell) == (early.id, early.key, early.cell)
    assert "unfinished" not in plain.data()["labels"]
    (row,) = to_frame([early]).itertuples()
    assert row.checkpoint == row.recipe == "mdlm@nano (step 39 of 900)"
    assert unmarked(row.recipe) == "mdlm@nano" and scale_of(row.recipe) == "nano"
    assert read_record(early.data()) == early


def test_tables_keep_a_finished_and_an_unfinished_network_apart(tmp_path):
    whole = record(question("mdlm@nano"), {"nll_bound": (2.0, 0.1, 8)})
    asked = question("mdlm@nano", step=39)
    early = record(asked, {"nll_bound": (4.0, 0.1, 8)}, unfinished="step 39 of 900")
    text = tables(collect(store(tmp_path, [whole, early])))["bounds.md"]
    assert "| mdlm@nano (step 39 of 900) |" in text and "4.00 ± 0.20" in text and "2.00 ± 0.20" in text


def test_tables_keep_raw_and_averaged_weights_of_one_run_apart(tmp_path):
    """Evaluated with `--weights raw` and without, one run has a row for each."""
    asked = [question("mdlm@nano", weights=weights) for weights in ("ema", "raw")]
    averaged = record(asked[0], {"nll_bound": (2.0, 0.1, 8)})
    raw = record(asked[1], {"nll_bound": (4.0, 0.1, 8)}, weights="raw weights")
    early = record(
        question("mdlm@nano", step=39, weights="raw"),
        {"nll_bound": (6.0, 0.1, 8)},
        unfinished="step 39 of 900",
        weights="raw weights",
    )
    text = tables(collect(store(tmp_path, [averaged, raw, early])))["bounds.md"]
    rows = [line for line in text.splitlines() if line.startswith("| mdlm@nano")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "mdlm@nano",
        "mdlm@nano (raw weights)",
        "mdlm@nano (step 39 of 900, raw weights)",
    ]
    for found in (raw, early):
        name = found.labels.marked("mdlm@nano")
        assert unmarked(name) == "mdlm@nano" and scale_of(name) == "nano"
        assert select([found], f"{name}/bound") == [found] and read_record(found.data()) == found


def test_a_name_selects_an_unfinished_network_with_and_without_its_mark():
    early = record(
        question("mdlm@nano", "law", step=39), {"excess": (2.0, 0.1, 8)}, unfinished="step 39 of 900"
    )
    for name in ("mdlm@nano/law", "mdlm@nano-s0/law", "mdlm@nano (step 39 of 900)/law"):
        assert select([early], name) == [early]


def test_rows_of_a_frame_share_the_long_texts():
    """A cell's canonical JSON is held once, however many rows there are: 50,000 records need a third of the memory."""
    frame = to_frame([bound(train_seed=seed) for seed in range(3)])
    assert len({id(each) for each in frame.subject}) == len({id(each) for each in frame.protocol}) == 1
    assert len({id(each) for each in frame.numerics}) == 1


def test_a_line_in_another_form_is_read_by_its_content(tmp_path):
    """The hash is that of the canonical JSON: spaces do not change it, a value does."""
    path, data = lines(store(tmp_path, [bound(train_seed=0)]))
    path.write_bytes(json.dumps(json.loads(data)).encode() + b"\n")
    assert read(path) == [bound(train_seed=0)] and path.read_bytes() != data
    path.write_bytes(path.read_bytes().replace(b'"n": ', b'"n": 1'))
    with pytest.raises(ValueError, match="its sha256 is not that of its content"):
        read(path)
