"""Suite groups `flagship` and `silver`: their evaluations, cost and docs/gpu.md; the command `cells`; --max-hours."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace

import pytest
from msgspec import structs

from repro import load
from repro.core.errors import Stopped
from repro.evals import suites
from repro.evals.__main__ import main
from repro.evals.planning.plan import plan
from repro.evals.planning.time_budget import TimeBudget
from repro.evals.published import verify
from repro.evals.published.cells import read, under
from repro.evals.published.suite_group import (
    commands,
    is_suite_group,
    of_cells,
    precision,
    read_suite_group,
    steps,
)
from repro.evals.published.suite_group_plan import planned
from repro.evals.request import Request, prepare
from repro.results.record import read_record
from repro.results.store import Store
from scripts.gpu_docs import GROUPS as NAMES
from scripts.gpu_docs import PAGE, page

HOURS = {"flagship": 24.0, "silver": 6.0}


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == page(), "run python -m scripts.gpu_docs"


def test_every_row_has_a_command_its_hours_and_a_verdict():
    text = PAGE.read_text("utf-8")
    for name in NAMES:
        for row in read_suite_group(name):
            assert f"### {row.name}: {row.title}" in text and row.verdict in text
            assert all(command in text for command in commands(row))


@pytest.mark.parametrize(
    ("preset", "speed"), [("low_confidence, block 32", 6.7), ("threshold_0.9, block 32, prefix cache", 54.4)]
)
def test_hours_against_a_published_speed(preset, speed):
    """Tokens a second of Fast-dLLM's table 1 on an A100: planned seconds are at most 10 % and 45 % lower."""
    found = plan(None, Request(suite="fast_dllm"), "a100", "bfloat16")
    (line,) = [line for line in found.lines if (line.task, line.preset) == ("gsm8k_256", preset)]
    said, measured = line.hours * 3600 / line.items, 256 / speed
    assert 0.55 < said / measured < 1 and (speed > 10 or said / measured > 0.9)
    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"{speed} tokens a second" in text or f"at {speed}, {measured:.0f} seconds an item" in text
    assert f"{measured:.0f} seconds an item; the plan" in text and f"says {said:.0f}." in text


# --- what they run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_group_fits_its_hours_and_is_planned_quickly(name, capsys):
    began = time.process_time()
    assert main(["plan", "--suite", name, "--json"]) == 0
    assert time.process_time() - began < 5
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["hours"] < HOURS[name]
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["rows"]))
    listed = [q for row in found["rows"] for plan in row["plans"] for q in plan["questions"]]
    assert all(q["forwards"] and q["items"] for q in listed)


def test_a_row_s_own_commands_plan_the_same(capsys):
    """Run one by one, a row's commands have the plan that the suite group has for it."""
    for row in read_suite_group("flagship"):
        (whole,) = planned(steps([row], Request()), "h100")
        if not whole.questions:
            continue
        hours = 0.0
        for command in commands(row):
            words = shlex.split(command)[3:]
            words = [*words, "--plan"] if words[0] == "cells" else ["plan", *words]
            assert main([*words, "--json"]) == 0
            hours += json.loads(capsys.readouterr().out)["hours"]
        assert hours == pytest.approx(whole.hours), row.name


def test_one_row_by_hand(capsys):
    """F3: MDLM without and with nucleus sampling, 1,024 texts in 1,024 forwards (one more for a drawn tail), and BD3's
    300 texts."""
    (row,) = [row for row in read_suite_group("flagship") if row.name == "F3"]
    (found,) = planned(steps([row], Request()), "h100")
    assert [(line.items, line.forwards) for plan in found.plans for line in plan.lines] == [
        (1024, 1025),
        (1024, 1024),
        (300, 1024),
    ]
    a_token = 2 * 12 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 12 * 768 * 1024 + 2 * 768 * 50258
    forwards, texts = 1024 * (1025 + 1024) + 300 * 1024, 1024 + 1024 + 300
    draws = 72 * 1024 * 50258 / 3.35e12  # bytes an id of the vocabulary, each position once
    assert found.hours == pytest.approx((forwards * 1024 * a_token / (989e12 * 0.4) + texts * draws) / 3600)
    assert [cell.printed for cell in found.step.cells] == [104.85, 51.3, 46.8, 40.7]


def test_a_plan_and_a_run_have_the_same_precision(capsys, monkeypatch):
    """Released weights in bfloat16 by default, in plans and runs; ours in float32."""
    hours = []
    for flags in ([], ["--precision", "float32"]):
        assert main(["cells", "duo.t1.duo", "--plan", *flags]) == 0
        printed = capsys.readouterr().out
        assert f"one H100 80 GB, {'float32' if flags else 'bfloat16'}" in printed
        hours.append(float(printed.split("rows: ")[1].split(" hours")[0]))
    assert hours[1] > 10 * hours[0]
    loaded = []

    def load(ckpt, precision):
        loaded.append((ckpt, precision))
        raise ConnectionError("no network")

    monkeypatch.setattr("repro.model.load", load)
    for flags in ([], ["--precision", "int8"]):
        with pytest.raises(ConnectionError):
            main(["cells", "duo.t1.duo", *flags])
    assert loaded == [("s-sahoo/duo", "bfloat16"), ("s-sahoo/duo", "int8")]
    assert precision("oracle:mdlm@nano", None) == "float32"


def test_a_limit_of_a_row_and_of_the_command_line_both_hold():
    (row,) = [row for row in read_suite_group("flagship") if row.name == "F6"]
    for limit, wanted in ((None, [None, 400]), (50, [50, 50]), (1000, [1000, 400])):
        (step,) = steps([row], Request(limit=limit))
        assert [part.request.limit for part in step.parts] == wanted


@pytest.mark.parametrize(("asked", "found"), [(None, 300), (16, 16), (1024, 300)])
def test_samples_are_at_most_those_requested(asked, found):
    (step,) = of_cells(["bd3.t7.mdlm.1024"], Request(samples=asked), None)
    (line,) = step.parts[0].plan("h100", None).lines
    assert line.items == found


ROWS = """
[[rows]]
name = "A"
title = "a"
verdict = "v"
asks = [{ cells = ["duo.t5.mdlm.8"], samples = 16 }, { ckpt = "s-sahoo/duo", suite = "duo_owt" }]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("duo.t5.mdlm.8", "duo.t5.mdml.8", "no published cell, row or table 'duo.t5.mdml.8'; nearest is"),
        ('suite = "duo_owt"', 'suite = "duo_otw"', "no suite 'duo_otw'; nearest is 'duo_owt'"),
        ('suite = "duo_owt"', 'suite = "duo_owt", tasks = ["quality"]', "no task 'quality' in suite"),
        ('ckpt = "s-sahoo/duo", ', "", "give both 'ckpt' and 'suite'"),
        ("s-sahoo/duo", "s-sahoo/dua", "s-sahoo/dua"),
        ("samples = 16", "sample = 16", "unknown field 'sample'"),
        ('cells = ["duo.t5.mdlm.8"], ', "", "has neither of 'cells' and 'suite'"),
    ],
)
def test_a_wrong_suite_group_is_refused(tmp_path, monkeypatch, old, new, says):
    for path in suites.SUITES.glob("duo_owt.toml"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(suites, "SUITES", tmp_path)
    (tmp_path / "own.toml").write_text(ROWS, "utf-8")
    assert is_suite_group("own") and not is_suite_group("duo_owt")
    assert len(read_suite_group("own")[0].asks) == 2
    assert old in ROWS
    (tmp_path / "own.toml").write_text(ROWS.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=says):
        read_suite_group("own")


def test_cells_name_rows_and_tables_and_skip_with_a_reason(capsys):
    cells = read()
    assert len(under(cells, "duo.t5.mdlm")) == 8 and len(under(cells, "duo.t5")) == 64
    (step,) = of_cells(["duo.t5"], Request(), None)
    assert len(step.skipped) == 24 and {part.ckpt for part in step.parts} == {
        "s-sahoo/duo",
        "s-sahoo/duo-distilled",
        "kuleshov-group/mdlm-owt",
    }
    with pytest.raises(
        ValueError, match=r"no evaluation reproduces duo\.t5\.sedd_absorb\.8: the authors' checkpoint"
    ):
        main(["cells", "duo.t5.sedd_absorb.8"])


@pytest.mark.parametrize(
    ("words", "flag", "form"),
    [
        (["cells", "duo.t5.mdlm", "--samplers", "ancestral"], "--samplers", "cells"),
        (["cells", "duo.t5.mdlm", "--plan", "--max-hours", "2"], "--max-hours", "cells --plan"),
        (["--suite", "flagship", "--tasks", "law"], "--tasks", "--suite flagship"),
        (["plan", "--suite=silver", "--out", "x"], "--out", "plan --suite silver"),
    ],
)
def test_a_flag_without_effect_is_refused(words, flag, form):
    with pytest.raises(ValueError, match=f"{flag} has no effect on `python -m repro.evals {form}`"):
        main(words)


def test_cells_of_a_copy_in_a_folder():
    (step,) = of_cells(["duo.t5.mdlm", "remdm.t1.mdlm"], Request(), "copies/mdlm-owt")
    assert [part.ckpt for part in step.parts] == ["copies/mdlm-owt"] * 2
    for cells, folder in (
        (["duo.t5.mdlm"], "copies/duo"),
        (["duo.t5.mdlm", "duo.t5.duo"], "copies/mdlm-owt"),
    ):
        with pytest.raises(
            ValueError,
            match=r"these published numbers are of kuleshov-group/mdlm-owt.*give --ckpt a folder called",
        ):
            of_cells(cells, Request(), folder)


LAWS = """
tokens_per_step = [8, "all"]
presets = { law = ["ancestral"] }
tasks = [{ part = "law", name = "law", samples = 50 }]
"""
OWN = """
[[rows]]
name = "A"
title = "laws"
verdict = "none"
asks = [
    { ckpt = "oracle:mdlm@nano", suite = "oracle", tasks = ["law"], samples = 4, limit = 3 },
    { ckpt = "oracle:duo_nelbo@nano", suite = "oracle", samples = 4 },
]
"""


def test_a_suite_group_runs_and_continues(tmp_path, monkeypatch, capsys):
    """Two models in a row, their tables and records; the second run computes nothing."""
    (tmp_path / "own.toml").write_text(OWN, "utf-8")
    (tmp_path / "oracle.toml").write_text(LAWS, "utf-8")
    monkeypatch.setattr(suites, "SUITES", tmp_path)
    assert main(["--suite", "own", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "oracle:mdlm@nano, suite oracle" in printed and "oracle:duo_nelbo@nano, suite oracle" in printed
    first = Store(tmp_path / "raw").records()
    assert main(["--suite", "own", "--out", str(tmp_path), "--json"]) == 0
    again = list(map(read_record, json.loads(capsys.readouterr().out)["records"]))
    assert sorted(r.sha256 for r in again) == sorted(r.sha256 for r in first)
    assert {r.question.limit for r in first} == {None, 3}


def test_cells_write_the_record_that_verify_compares(tmp_path, monkeypatch, capsys):
    """From the command to the verdict (fail), with small random weights under a published name and a small judge."""
    import torch
    from helpers import released, tiny_tokenizer
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    words = tiny_tokenizer.save(tmp_path / "tokenizer")
    released.mdlm(tmp_path / "kuleshov-group" / "mdlm-owt", words / "tokenizer.json", model_length=1024)
    judging = AutoTokenizer.from_pretrained(words)
    judging.eos_token = judging.convert_ids_to_tokens(2)
    judging.save_pretrained(tmp_path / "runs" / "gpt2-large")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(judging), max_position_embeddings=1024, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "runs" / "gpt2-large")
    assert main(["cells", "duo.t5.mdlm.8", "--samples", "2", "--out", str(tmp_path / "out")]) == 0
    assert "skipped" not in capsys.readouterr().out  # nothing is said of the suite's other tasks
    (record,) = Store(tmp_path / "out" / "raw").records()
    protocol = record.question.protocol
    assert protocol["weights_precision"] == "bfloat16"
    assert protocol["precision"] == "float32, log-softmax in float64"  # the judge's
    found = {v.cell.name: v for v in verify.verify(read(), Store(tmp_path / "out" / "raw").records())}
    assert found["duo.t5.mdlm.8"].answer == "fail" and found["duo.t5.mdlm.8"].ours > 900
    assert found["duo.t5_entropy.mdlm.8"].answer == "fail"
    assert found["duo.t5.mdlm.16"].answer == "not run"
    assert found["duo.t5.mdlm.1024"].price.hours > 0.2  # for the published sizes


# --- time budget --------------------------------------------------------------------------------------------


class Clock:
    """A clock that advances only when a question is answered."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def slow(monkeypatch):
    """A clock by which every question takes an hour."""
    clock = Clock()
    from repro.evals import request as grid

    asked = grid.Prepared.run

    def run(self, *given):
        for record, new in asked(self, *given):
            clock.now += 3600.0 * new
            yield record, new

    monkeypatch.setattr(grid.Prepared, "run", run)
    return clock


def test_a_run_stops_within_its_hours_and_continues(tmp_path, slow):
    """Four questions of an hour each with 2.5 hours: two are answered, then the other two, none twice."""
    model = load("oracle:mdlm@nano")
    request = Request(["random"], ["law"], [16, 32], (0, 1), samples=4, suite="oracle", out=tmp_path)
    asked, left = [], []
    for _ in range(3):
        budget = TimeBudget(2.5, slow)
        records = list(budget.within(prepare(model, request)))
        asked.append(sum(new for _, new in records))
        left.append(budget.left)
    assert asked == [2, 2, 0] and left == [2, 0, 0]
    whole = prepare(model, replace(request, out=tmp_path / "whole"))
    undisturbed = {record.id: record.answer for record, _ in whole.run()}
    assert {r.id: r.answer for r in Store(tmp_path / "raw").records()} == undisturbed


def test_the_first_question_of_all_runs_without_an_estimate(tmp_path, slow):
    model = load("oracle:mdlm@nano")
    request = Request(["random"], ["law"], [16, 32], samples=4, suite="oracle", out=tmp_path)
    budget = TimeBudget(0.5, slow)
    assert sum(new for _, new in budget.within(prepare(model, request))) == 1 and budget.left == 1
    assert budget.needed == pytest.approx(1.0) and "1 evaluations are left, about 1 hours" in budget.say()


@pytest.mark.parametrize(("seconds", "left"), [(3500, 0), (3700, 1)])
def test_the_time_of_an_earlier_run_counts(tmp_path, slow, seconds, left):
    """A stored record that took so many seconds decides whether a like question is started within an hour."""
    model = load("oracle:mdlm@nano")
    request = Request(["random"], ["law"], [16, 32], samples=4, suite="oracle", out=tmp_path)
    grid = prepare(model, request)
    (first, _), *_ = replace(grid, cells=grid.cells[:1]).run()
    known = structs.replace(first, measurements=structs.replace(first.measurements, seconds=seconds))

    class Slow(Store):
        def find(self, question, numerics, timed_on=None):
            return known if question == first.id else None

    budget = TimeBudget(1.0, slow)
    found = list(budget.within(replace(grid, store=Slow(grid.store.folder))))
    assert [new for _, new in found] == [False, True][: 2 - left] and budget.left == left


def test_the_command_line_stops_with_a_line_and_a_code(tmp_path, capsys):
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--tasks", "law", "--samples", "4"]
    arguments += ["--samplers", "random", "--tokens-per-step", "16,32", "--out", str(tmp_path)]
    with pytest.raises(Stopped, match="2 evaluations are left; run the same command to continue"):
        main([*arguments, "--max-hours", "1e-9"])
    assert main([*arguments, "--max-hours", "1"]) == 0
    assert "random" in capsys.readouterr().out
    for wrong in ("0", "-1", "x"):
        with pytest.raises(ValueError, match="no positive number of hours"):
            main([*arguments, "--max-hours", wrong])
