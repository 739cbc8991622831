"""The table of a grid: a row for each preset and rate, columns for tasks, intervals and cost; and its JSON."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
from helpers import synthetic
from helpers.toy import toy
from msgspec.structs import replace
from rich.console import Console

from repro.core.columns import packed
from repro.evals.__main__ import main
from repro.evals.results import Results
from repro.evals.scoring import score
from repro.evals.table import checkpoints, interval, rows, show, shown
from repro.results.record import Labels, Metric, read_record
from repro.training.loop import train


def record(task, preset, tokens, metrics, seed=0, nfe=4.0, per_nfe=2.0, **settings):
    """A record with the fields that a table reads."""
    return SimpleNamespace(
        labels=Labels(
            recipe="toy", task=task, preset=preset, tokens_per_step=tokens, checkpoint="toy", suite="toy"
        ),
        question=SimpleNamespace(
            task={"name": task, **settings},
            sampler=None if preset is None else {},
            seed=seed,
            checkpoint=SimpleNamespace(digest="d", seed=0, step=9, weights="raw"),
        ),
        answer=SimpleNamespace(metrics=metrics, nfe=nfe, tokens_per_nfe=per_nfe),
        measurements=SimpleNamespace(speed=None),
    )


def metric(value, se=0.1, n=50):
    return Metric(value=value, se=se, n=n)


def printed(records, width=120):
    console = Console(file=io.StringIO(), width=width, record=True)
    show(console, "toy", records)
    return console.export_text()


def lines(text):
    """Cells of every body line."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"
    ]


GRID = [
    record(task, preset, tokens, {name: metric(value), f"true_{name}": metric(9.0)})
    for preset, tokens in (("random", "1"), ("random", "all"), ("threshold_0.9", None))
    for task, name, value in (("law", "excess", 0.5), ("quiz", "exact_match", 0.25))
]


def test_tasks_stand_side_by_side():
    """A line for each preset and rate, with each task's metric, interval and NFE; true samples last."""
    found = lines(printed([*GRID, record("bound", None, None, {"nll": metric(2.0)})]))
    assert found[0] == ["bound", "nll", "2.00 ± 0.20", "50"]
    assert [line[:2] for line in found[1:4]] == [
        ["random", "1"],
        ["random", "all"],
        ["threshold_0.9", "adaptive"],
    ]
    for line in found[1:4]:
        assert line[2:] == ["0.50 ± 0.20", "4.0", "2.00", "0.25 [0.15, 0.38]", "4.0", "2.00"]
    assert found[4][0] == "true samples" and found[4][2] == "9.00 ± 0.20"
    assert "law: n = 50; quiz: n = 50; NFE: forwards a row" in printed(GRID)


def test_a_narrow_console_gets_the_table_in_parts():
    """Split by task, then by metric; no cell is cut, and every part has preset, tokens per step and cost."""
    many = [record("law", "origin", "1", {f"metric{c}": metric(1.0) for c in "abcdef"}), *GRID]
    text = printed(many, width=70)
    assert "…" not in text and max(map(len, text.splitlines())) <= 70
    for name in ("metrica", "metricf", "excess", "exact_match"):
        assert name in text
    assert text.count("tokens/NFE") >= 3 and text.count("preset") == text.count("per step") >= 3
    whole, parts = printed(many, width=300), printed(many, width=70)
    for cell in ("1.00 ± 0.20", "0.25 [0.15, 0.38]"):
        assert parts.count(cell) == whole.count(cell) > 0


def test_speeds_stand_with_what_timed_them():
    """One table for each engine, device, clock and batch."""
    kinds = [{}, {"device": "other"}, {"clock": "wall"}]
    text = printed([synthetic.timed("mdlm@nano", "random", "4", "1100", 4, **kind) for kind in kinds])
    for said in ("repro on toy; process", "repro on other; process", "repro on toy; wall"):
        assert text.count(f"engine {said} seconds") == 1
    same = printed([synthetic.timed("mdlm@nano", rule, "4", "1100", 4) for rule in ("random", "margin")])
    assert same.count("engine repro on toy") == 1


def test_the_caption_counts_the_items_of_its_own_columns():
    """A metric over other things than items, such as the clusterings of MAUVE, counts beside its own column alone."""
    found = record(
        "quality", "random", "1", {"a_long_name": metric(1.0, n=40), "mauve_clusterings": metric(1.0, n=5)}
    )
    text = printed([found], 60)
    assert "quality: n = 40;" in text and "quality: n = 5;" in text and " to " not in text


def test_seeds_have_a_column_and_missing_cells_are_empty():
    some = [*GRID[:2], record("law", "random", "1", {"excess": metric(0.7)}, seed=3)]
    found = lines(printed(some))
    assert [line[:3] for line in found[:2]] == [["random", "0", "1"], ["random", "3", "1"]]
    assert found[1][-3:] == ["", "", ""] and found[1][3] == "0.70 ± 0.20"
    (line,) = lines(printed([record("law", "random", "1", {"excess": metric(0.7)}, per_nfe=None)]))
    assert line[-2:] == ["4.0", ""]


def test_a_ranking_under_one_template_says_so():
    """Of an lm-eval task and of one that times it, for several samplers and one template only."""

    def words(records):
        return " ".join(printed(records, 200).split())

    note = "quiz: samplers ranked under one template (chat)"
    two = [record("quiz", name, "1", {"acc": metric(0.5)}, template="chat") for name in ("random", "margin")]
    assert note in words(two) and note not in words(two[:1])
    other = record("quiz", "margin", "2", {"acc": metric(0.5)}, template="none")
    assert note not in words([*two, other]) and "template" not in words(GRID)
    timed = [
        record("quiz", name, "1", {"acc": metric(0.5)}, of={"template": "chat"})
        for name in ("random", "margin")
    ]
    assert note in words(timed)


def test_an_unfinished_network_is_marked_wherever_it_is_named():
    """Two runs of a recipe of which one stopped early are told apart by the mark alone; two such also by their seed."""
    metrics = {"nll_bound": (1.0, 0.1, 8)}
    whole = synthetic.bound("mdlm@nano")

    def early(seed):
        asked = synthetic.question("mdlm@nano", "bound", seed, step=39)
        return synthetic.record(asked, metrics, unfinished="step 39 of 900")

    assert list(checkpoints([whole, early(1)]).values()) == ["mdlm@nano", "mdlm@nano (step 39 of 900)"]
    both = list(checkpoints([early(0), early(1)]).values())
    assert both == ["mdlm@nano-s0 (step 39 of 900)", "mdlm@nano-s1 (step 39 of 900)"]
    assert {row["checkpoint"] for row in rows([whole, early(1)])} == {
        "mdlm@nano",
        "mdlm@nano (step 39 of 900)",
    }
    assert printed([whole, early(1)], 200).count("mdlm@nano (step 39 of 900)") >= 1
    assert packed("mdlm@nano (step 39 of 900)", 8).split("\n")[1:] == ["(step 39 ", "of 900)"]


def of_several(*metrics):
    """Records of one task of as many checkpoints, with digests a, b, ... and a hash in the name of each."""
    found = []
    for digest, each in zip("abcdefg", metrics, strict=False):
        one = record("bound", None, None, each)
        one.question.checkpoint.digest, one.labels = (
            digest,
            replace(one.labels, checkpoint=f"mdlm@nano+{digest}23456"),
        )
        found.append(one)
    return found


def test_checkpoints_stand_beside_each_other():
    """A column for each, with its own number of items where these differ; below each other where the console is too
    narrow, and no number is cut."""
    two = of_several({"nll": metric(1.0), "loss": metric(2.0)}, {"nll": metric(3.0)})
    assert lines(printed(two)) == [
        ["bound", "nll", "1.00 ± 0.20", "3.00 ± 0.20", "50"],
        ["bound", "loss", "2.00 ± 0.20", "", "50"],
    ]
    unequal = of_several({"nll": metric(1.0)}, {"nll": metric(3.0, n=9)})
    assert lines(printed(unequal)) == [["bound", "nll", "1.00 ± 0.20", "50", "3.00 ± 0.20", "9"]]
    many = of_several(*[{"nll": metric(float(i))} for i in range(7)])
    text = printed(many, 80)
    assert all(f"{i}.00 ± 0.20" in text for i in range(7)) and len(lines(text)) >= 7


def test_a_folder_stands_for_a_name_with_a_hash():
    """In tables, frames and LaTeX; the title has both; a name without a hash stays."""
    two = of_several({"nll": metric(1.0)}, {"nll": metric(3.0)})
    given = {"a": "runs/mine", "b": "runs/other"}
    found = Results(two[:1], given={"a": given["a"]}) + Results(two[1:], given={"b": given["b"]})
    assert found.title() == "runs/mine: mdlm@nano+a23456, runs/other: mdlm@nano+b23456, suite toy"
    head = found.table(100).partition("┡")[0].partition("┏")[2]
    assert "runs/mine" in head and "runs/other" in head and "+" not in head
    assert list(found.frame()["checkpoint"]) == list(given.values()) and "runs/mine" in found.to_latex()
    two[1].labels = replace(two[1].labels, checkpoint="mdlm@nano")
    assert list(checkpoints(two, given).values()) == ["runs/mine", "mdlm@nano"]


def test_checkpoints_of_one_name_have_lines_of_their_own():
    """Two trainings of one recipe, seed and step: by what the user called them, else by their digests; no result takes
    the place of another, whether in the table, its JSON or LaTeX."""
    two = [record("quiz", "random", "1", {"acc": metric(value)}) for value in (0.25, 0.75)]
    for each, digest in zip(two, ("a" * 64, "b" * 64), strict=True):
        each.question.checkpoint.digest = digest
    given = {"a" * 64: "runs/mine", "b" * 64: "runs/other"}
    assert list(checkpoints(two, given).values()) == ["runs/mine", "runs/other"]
    assert list(checkpoints(two).values()) == ["toy aaaaaaaa", "toy bbbbbbbb"]
    assert {row["checkpoint"]: row["value"] for row in rows(two, given)} == {
        "runs/mine": 0.25,
        "runs/other": 0.75,
    }
    assert [line[:4] for line in lines(printed(two))] == [
        ["random", "toy aaaaaaaa", "1", "0.25 [0.15, 0.38]"],
        ["random", "toy bbbbbbbb", "1", "0.75 [0.62, 0.85]"],
    ]
    latex = Results(two, given=given).to_latex()
    assert "0.25 [" in latex and "0.75 [" in latex and "runs/other" in latex


def test_no_record_takes_the_place_of_another():
    """Two evaluations of one checkpoint with the same labels (other shots, other limit) have a line each."""
    for preset, tokens in (("random", "1"), (None, None)):
        two = [record("quiz", preset, tokens, {"acc": metric(value)}) for value in (0.25, 0.75)]
        text = printed(two)
        assert "0.25 [" in text and "0.75 [" in text
        latex = Results(two).to_latex()
        assert "0.25 [" in latex and "0.75 [" in latex
    other = record("quiz", None, None, {"acc": metric(0.5)})
    other.question.checkpoint.digest = "e"
    text = printed([*two, other])
    assert all(f"{value} [" in text for value in ("0.25", "0.50", "0.75"))


def test_numbered_metrics_have_a_line_for_each_number():
    answer = {f"{what}_{n}": metric(n / 10) for n in (8, 16) for what in ("bias", "flips")}
    found = lines(printed([record("levels", None, None, {**answer, "loss": metric(1.0, None)})]))
    assert found[0] == ["levels", "loss", "1", "50"]
    assert [line[:2] for line in found[1:]] == [["levels", "8"], ["levels", "16"]] and found[1][
        2
    ] == "0.80 ± 0.20"


def test_a_numbered_metric_has_the_interval_that_json_has():
    """`accuracy_16` of choice_draws is a mean over repeats: no share of items that are each right or wrong."""
    found = record("levels", None, None, {"accuracy_16": metric(0.7, 0.1, 20)})
    ((_, number, shown_as),) = lines(printed([found]))
    (row,) = rows([found])
    assert (number, shown_as) == ("16", "0.70 ± 0.20")
    assert (row["low"], row["high"]) == pytest.approx((0.7 - 0.196, 0.7 + 0.196))


def test_intervals_by_kind():
    """Shares: Wilson's, also at 0 and 1; otherwise normal; None without a standard error."""
    low, high = interval("exact_match.strict", metric(1.0, 0.0, 20))
    assert high == 1 and low == pytest.approx(0.839, abs=1e-3)
    assert interval("gap", metric(1.0, 0.5)) == pytest.approx((0.02, 1.98))
    assert interval("loss", metric(1.0, None)) is None and shown("loss", metric(1.0, None)) == "1"
    assert shown("acc", metric(0.5, 0.07, 50)) == "0.50 [0.37, 0.63]"


def test_an_interval_of_rounding_alone_is_not_shown():
    """The bigram distance of samples that are all one text, as the greedy ones are, has a standard error of 1e-9."""
    assert shown("bigram", metric(0.69104312, 1e-9)) == "0.691"
    assert shown("excess", metric(0.06378, 1.1e-4)) == "0.06378 ± 0.00022"
    assert shown("bigram", metric(0.0, 1e-12)) == "0"
    found = record("law", None, None, {"bigram": metric(0.69104312, 1e-9), "same": metric(1.0, 0.0)})
    assert [(row["low"], row["high"]) for row in rows([found])] == [(None, None)] * 2, "nor printed as JSON"


def test_all_samplers_on_a_trained_net(tmp_path, monkeypatch, capsys):
    """`--samplers all`: every preset and rate of the suite in one table with its skips; JSON agrees. The same network
    under a second name, whose lines would stand twice in every table, is refused."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    out = train(toy("mdlm", "data.heldout=600"), seed=0, out=tmp_path / "run", stop=None, resume=False)
    arguments = [
        "--ckpt",
        str(out),
        "--samplers",
        "all",
        "--samples",
        "8",
        "--limit",
        "8",
        "--tokens-per-step",
        "4,all",
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    drawn = [r for r in data["rows"] if r["preset"] is not None and not r["metric"].startswith("true_")]
    keys = {(r["preset"], r["tokens_per_step"] or "adaptive") for r in drawn}
    assert len(keys) > 6 and ("ancestral", "4") in keys
    table = {(line[0], line[1]): line for line in lines(text)}
    for row in drawn:
        line = table[row["preset"], row["tokens_per_step"] or "adaptive"]
        assert (
            shown(row["metric"], metric(row["value"], row["se"], row["n"])) in line
            and f"{row['nfe']:.1f}" in line
        )
        assert row["low"] <= row["value"] <= row["high"]
    assert rows(map(read_record, data["records"])) == data["rows"]
    for skip in data["skipped"]:
        (told,) = [line for line in text.splitlines() if line.endswith(f": {skip['reason']}")]
        assert told.startswith("skipped ") and skip["what"] in told
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"run and \./run are one checkpoint; give one of them"):
        main(["--ckpt", "run,./run", "--tasks", "bound", "--limit", "4"])
    with pytest.raises(ValueError, match=r"run and \./run are one checkpoint"):
        score(["run", "./run"], tasks="bound", limit=4)
