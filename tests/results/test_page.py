"""The results page: a pure function of its inputs, without requests, in which every number is that of a record."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean, median

import pytest

from repro.core.files import RESULTS, ROOT
from repro.core.stats import wilson
from repro.data.sudoku import FILE, solutions
from repro.results import certificates
from repro.results.__main__ import main
from repro.results.page import build, decodings
from repro.results.record import read_record
from repro.results.store import RAW

STATIC = {path.name: path.read_text("utf-8") for path in build.STATIC.iterdir()}


@pytest.fixture(scope="module")
def made():
    return build.files()


@pytest.fixture(scope="module")
def data(made):
    return json.loads(made["data.js"].removeprefix("const DATA = ").removesuffix(";\n"))


def numbers(node):
    """Every number with a source in the page's data."""
    if isinstance(node, dict):
        if "how" in node and "v" in node:
            yield node
        for inner in node.values():
            yield from numbers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from numbers(inner)


def field(record, path):
    for name in path.split("."):
        record = record[name]
    return record


def test_two_builds_are_equal_byte_by_byte(made, tmp_path):
    """Also in another process, with another hash seed and working directory."""
    words = [sys.executable, "-m", "repro.results", "page", "--out", str(tmp_path / "page")]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    again = {path.name: path.read_text("utf-8") for path in (tmp_path / "page").iterdir()}
    assert again == made
    assert str(ROOT) not in "".join(made.values())


def test_the_page_is_small_and_reaches_nothing_outside(made):
    assert sum(len(text.encode()) for text in made.values()) < build.LIMIT
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made["index.html"])
    assert policy and policy[1].startswith("default-src 'none';") and "http" not in policy[1]
    named = re.findall(r'(?:src|href)="([^"#]+)"', made["index.html"])
    assert set(named) - {"data:,"} == made.keys() - {"index.html"}
    calls = r"fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\(|importScripts|@import|url\("
    for name, text in STATIC.items():
        assert not re.search(calls, text), name
        found = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert found <= {"http://www.w3.org/2000/svg"}, name
    assert "</script" not in made["data.js"]


def test_every_number_of_a_record_is_that_of_the_stored_line(data):
    """The page holds the records as they are stored, and each number follows from the fields that it names."""
    stored = data["sources"]["records"]
    records = {}
    for sha, place in stored.items():
        lines = (ROOT / place["file"]).read_text("utf-8").splitlines()
        assert place["text"] == lines[place["line"] - 1]
        records[sha] = json.loads(place["text"])
        assert read_record(records[sha]).sha256 == sha
        assert re.sub(r',"sha256":"[0-9a-f]{64}"\}$', "}", place["text"]) != place["text"]
    checked = 0
    for number in numbers(data):
        if "from" not in number:
            continue
        values = [field(records[sha], number["field"]) for sha in number["from"]]
        assert number["v"] == pytest.approx(expected(number["how"], values), rel=1e-12), number
        checked += 1
    assert checked > 300


def expected(how, values):
    """What the words of a number say."""
    if how == "equal to" or how.startswith("the same in every record"):
        (value,) = values
        return value
    if how.startswith("mean over"):
        return fmean(values)
    if "Wilson" in how:
        share = fmean(fmean(map(int, digits)) for digits in values)
        return wilson(share, len(values[0]), 0.95)[how.startswith("upper")]
    assert how.startswith("tokens before the end of text"), how
    useful = sum(each["counts"]["useful"] for each in values)
    return useful / sum(median(each["passes"]) for each in values)


def test_every_number_of_a_certificate_is_in_its_file(data):
    checked = 0
    for number in numbers(data):
        if "certificate" not in number:
            continue
        path = certificates.FOLDER / number["certificate"]
        entry = json.loads(path.read_text("utf-8"))["numbers"][number["place"]]
        assert data["sources"]["certificates"][number["certificate"]]["numbers"][number["place"]] == entry
        scale = 3 if number["how"] == "3 tokens divided by" else None
        value = entry[number["field"]]
        assert number["v"] == (value if scale is None else scale / value)
        checked += 1
    assert checked > 200


def test_claims_are_those_of_the_table_with_all_their_records(data):
    with (RESULTS / "tables" / "claims.csv").open() as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    records = data["sources"]["records"]
    assert [claim["name"] for claim in data["ledger"]["claims"]] == list(table)
    for claim in data["ledger"]["claims"]:
        row = table[claim["name"]]
        assert claim["verdict"] == row["verdict"] and claim["n"] == int(row["n"]) == len(claim["seeds"])
        assert claim["mean"] == pytest.approx(float(row["mean"]), rel=1e-5)
        for i, value in enumerate(claim["values"]):
            parts = [
                cell["sign"] * field(json.loads(records[cell["records"][i]]["text"]), cell["field"])
                for cell in claim["cells"]
            ]
            assert value == pytest.approx(sum(parts), rel=1e-12)


def test_points_are_those_of_the_figure(data):
    """Accuracy and forward passes are the rows of paper_figures/out/accuracy_nfe.csv."""
    with (ROOT / "paper_figures" / "out" / "accuracy_nfe.csv").open() as file:
        rows = [[float(row["nfe"]), float(row["accuracy"])] for row in csv.DictReader(file)]
    plot = data["plots"][0]
    assert plot["id"] == "passes"
    points = sorted([point["x"]["v"], point["y"]["v"]] for point in plot["points"])
    assert [x for each in points for x in each] == pytest.approx(
        [x for each in sorted(rows) for x in each], rel=1e-5
    )


def test_every_point_with_a_text_has_decodings_of_the_same_settings(data):
    worlds = {plot["id"]: plot["world"] for plot in data["plots"]}
    assert {"sudoku", "sentences"} <= set(worlds.values())
    for plot in data["plots"]:
        for point in plot["points"]:
            assert (point["items"] in data["items"]) == (plot["world"] != ""), point["preset"]


def test_decodings_agree_with_what_was_scored(data):
    """The networks were trained again, so single puzzles may end otherwise; most do not."""
    puzzles = [json.loads(line)["clues"] for line in FILE.read_text("utf-8").splitlines()]
    same, total = 0, 0
    for point in data["plots"][0]["points"]:
        digits = next(each["digits"] for each in point["outcomes"] if each["seed"] == decodings.TRAIN_SEED)
        assert point["outcomes"][point["recorded"]]["digits"] == digits
        for item in data["items"][point["items"]]:
            assert item["prompt"] == puzzles[item["item"]]
            assert item["right"] == (item["text"] in solutions(item["prompt"]))
            same, total = same + (item["right"] == (digits[item["item"]] == "1")), total + 1
    assert total == 230 and same / total > 0.85


def test_a_position_is_noise_then_written_then_revised_or_settled():
    steps = [
        {"forwards": 1, "kl": 0.5, "fits": 2, "writes": [[1, "3", 0.9, 0]]},
        {"forwards": 2, "kl": None, "fits": 1, "writes": [[0, "1", 0.8, 0], [1, "4", 0.7, 1]]},
        {"forwards": 3, "kl": None, "fits": 1, "writes": [[0, "·", 0.1, 1]]},
    ]
    item = {"item": 0, "start": "··", "steps": steps, "text": "·4"}
    found = decodings.frames(item, Path("x.json"))
    assert [(frame["t"], frame["s"]) for frame in found] == [
        ("··", "nn"),
        ("·3", "nw"),
        ("14", "wr"),
        ("·4", "ns"),
        ("·4", "ss"),
    ]
    assert [frame["k"] for frame in found] == [None, 0.5, None, None, None] and found[1]["p"] == {"1": 0.9}
    with pytest.raises(ValueError, match=r"x\.json: the steps of item 0 lead to '·4', its text is '14'"):
        decodings.frames({**item, "text": "14"}, Path("x.json"))


def test_every_colour_and_marker_is_defined(data):
    families = {series["colour"] for plot in data["plots"] for series in plot["series"]}
    assert families <= set(re.findall(r"\.c-([\w-]+) \{", STATIC["page.css"]))
    shapes = STATIC["plot.js"].partition("const SHAPES = {")[2].partition("};")[0]
    used = {series["shape"] for plot in data["plots"] for series in plot["series"]}
    assert used <= set(re.findall(r"^  (\w+):", shapes, re.M))
    lines = [[s for s in plot["series"] if s["colour"] != "reference"] for plot in data["plots"]]
    assert all(len(shown) - sum(s["dash"] == "4 per step" for s in shown) <= 8 for shown in lines)


def luminance(colour):
    """Relative luminance (WCAG 2.2) of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_have_contrast(dark):
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for text and 3 for marks, on the page and on cards."""
    css = STATIC["page.css"].partition("@media (prefers-color-scheme: dark)")[2 * dark]
    css = css.partition("* { box-sizing")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))
    marks = [name for name in colours if name.startswith("rule-")]
    marks += ["ar", "llada", "mdlm", "duo", "duo_mended", "duo_nelbo", "reference"]
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "accent", "good", "bad", "warn", "noise", *marks):
            one, other = sorted((luminance(colours[name]), luminance(colours[ground])))
            needed = 3.0 if name in marks else 4.5
            assert (other + 0.05) / (one + 0.05) >= needed, (name, ground)
    for text, ground in (("new", "new-tint"), ("revised", "revised-tint"), ("ink", "clue"), ("soft", "clue")):
        one, other = sorted((luminance(colours[text]), luminance(colours[ground])))
        assert (other + 0.05) / (one + 0.05) >= 4.5, (text, ground)


def test_a_page_of_own_records_shows_these_alone(tmp_path):
    """No claims, and certificates only where a folder is given; plots of the records come before those of laws."""
    own = tmp_path / "raw"
    own.mkdir()
    shutil.copy(RAW / "llada@nano.sudoku-s0.speed.sudoku.jsonl", own)
    assert not build.data(own, None)["items"], "the stored decodings are of another network"
    shutil.rmtree(own)
    own.mkdir()
    shutil.copy(RAW / "llada@nano.sudoku-s1.speed.sudoku.jsonl", own)
    alone, both = build.data(own, None), build.data(own, certificates.FOLDER)
    assert alone["certificates"] == [] and alone["sources"]["certificates"] == {}
    assert alone["ledger"] == both["ledger"] == {"claims": [], "untestable": []}
    assert {place["file"] for place in alone["sources"]["records"].values()} == {
        "llada@nano.sudoku-s1.speed.sudoku.jsonl"
    }
    assert both["certificates"] and both["plots"][0]["id"] == alone["plots"][0]["id"]
    laws = [plot["id"].startswith("law") for plot in both["plots"]]
    assert (
        any(laws)
        and laws == sorted(laws)
        and not any(plot["id"].startswith("law") for plot in alone["plots"])
    )


def test_bad_input_is_one_line(tmp_path, monkeypatch):
    empty = tmp_path / "raw"
    empty.mkdir()
    arguments = ["page", "--out", str(tmp_path / "page"), "--raw", str(empty), "--certificates", str(empty)]
    with pytest.raises(ValueError, match="has no records to plot; run a suite"):
        main(arguments)
    assert not (tmp_path / "page").exists()
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        main([*arguments[:3], "--raw", str(tmp_path / "nowhere")])
    monkeypatch.setattr(build, "LIMIT", 1000)
    with pytest.raises(ValueError, match="more than 1,000; give --raw a folder of fewer records"):
        main(arguments[:3])
