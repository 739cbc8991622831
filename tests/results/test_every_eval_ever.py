"""Records in the format of Every Eval Ever: what a file says, and what its own validator says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from helpers.synthetic import law, naive, paper, question, record, sudoku, timed

from repro.core.stats import wilson
from repro.results.__main__ import main
from repro.results.every_eval_ever import export
from repro.results.store import Store

VALIDATOR = os.environ.get("EVERY_EVAL_EVER") or shutil.which("every_eval_ever")


def files(records, **named):
    return {path: json.loads(content) for path, content in export(records, **named).files.items()}


def test_a_result_says_sampler_cost_seeds_precision_and_uncertainty():
    ((path, data),) = files([sudoku("llada@nano.sudoku", "low_confidence", "4", 0.8, train_seed=3)]).items()
    assert re.fullmatch(r"data/nano/dlm-repro/llada@nano\.sudoku/[0-9a-f-]{36}\.json", path)
    model = data["model_info"]["additional_details"]
    assert (model["train_seed"], model["precision"], model["torch"]) == ("3", "float32", "2.13.0")
    (result,) = data["evaluation_results"]
    details = result["generation_config"]["additional_details"]
    assert (details["sampler"], details["tokens_per_step"]) == ("low_confidence", "4")
    assert (details["nfe"], details["tokens_per_nfe"], details["sampling_seed"]) == ("4.0", "4.0", "0")
    metric = result["metric_config"]
    assert (metric["metric_name"], metric["metric_unit"]) == ("accuracy", "proportion")
    assert metric["lower_is_better"] is False and (metric["min_score"], metric["max_score"]) == (0, 1)
    interval = result["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == wilson(0.8, 500, 0.95) and result["score_details"][
        "score"
    ] == 0.8


def test_a_reference_is_a_detail_of_its_metric_and_an_unknown_metric_is_listed():
    made = export([law("oracle:mdlm@nano", "ancestral", "1", -0.25, 0.1)])
    ((path, content),) = made.files.items()
    assert path.startswith("data/nano/dlm-repro/oracle_mdlm@nano/")
    found = {
        result["metric_config"]["metric_name"]: result for result in json.loads(content)["evaluation_results"]
    }
    assert set(found) == {"excess", "bigram"} and not made.unknown
    assert found["excess"]["score_details"]["details"]["true_samples"] == "0.003"
    assert found["excess"]["metric_config"]["min_score"] == "-Infinity"
    assert found["excess"]["metric_config"]["additional_details"]["best_value"] == "0"
    odd = record(question(task="mine"), {"accuracy": (0.5, None, 10), "smoothness": (2.0, 0.1, 10)})
    made = export([odd])
    assert made.results == 1 and made.unknown == {"smoothness": "mine"}
    (only,) = json.loads(*made.files.values())["evaluation_results"]
    assert only["score_details"]["uncertainty"] == {"num_samples": 10}


def test_intervals_are_those_of_the_tables():
    """A share of texts has Wilson's, whatever its name (that of 9 of 10 had reached 1.1); where all texts are equal
    there is none (it had width 0)."""
    shares = {"pass_1": (0.9, 0.1, 10), "pass_8": (1.0, 0.0, 10), "entropy": (2.0, 0.1, 10)}
    (data,) = files([record(question(task="passes"), shares)]).values()
    found = {
        result["metric_config"]["metric_name"]: result["score_details"]["uncertainty"]
        for result in data["evaluation_results"]
    }
    ends = found["pass_1"]["confidence_interval"]
    assert (ends["lower"], ends["upper"]) == wilson(0.9, 10, 0.95) and ends["method"] == "Wilson"
    assert found["pass_8"] == {"num_samples": 10, "standard_error": {"value": 0.0}}
    assert found["entropy"]["confidence_interval"]["upper"] == pytest.approx(2.196)


def test_what_is_no_result_of_a_model_is_left_out():
    asked = question(task="training")
    asked = type(asked).read(asked.data() | {"task": {**asked.task, "part": "training_curve"}})
    with pytest.raises(ValueError, match="no records with results of a model"):
        export([record(asked, {"loss": (1.0, None, 10)})])


@pytest.mark.parametrize(
    ("sampler", "temperature"),
    [
        ({"part": "random", "version": 1, "temperature": 0.7}, 0.7),
        ({"part": "shaped", "version": 1, "shape": {"temperature": 0.85}, "rule": {"part": "ancestral"}}, 0.85),
        ({"part": "corrector_margin", "version": 1, "temperature": 0.1}, None),
    ],
)  # fmt: skip
def test_temperature_is_that_of_the_tokens(sampler, temperature):
    asked = question(task="sudoku", sampler=sampler, plan={"part": "plan", "version": 1, "gen_length": 16})
    (data,) = files([record(asked, {"accuracy": (0.5, 0.1, 10)}, preset="x", tokens="1")]).values()
    arguments = data["evaluation_results"][0]["generation_config"]["generation_args"]
    assert arguments.get("temperature") == temperature and arguments["max_tokens"] == 16


@pytest.mark.parametrize("name", ["", "/", "..", "data", "a" * 100, "\u202e"])
def test_an_organisation_that_is_no_folder_is_refused(name):
    with pytest.raises(ValueError, match="is no name of a folder"):
        export([sudoku("llada@nano.sudoku", "random", "1", 0.5)], name)


def test_a_file_is_a_pure_function_of_its_records():
    records = paper((0, 1))
    made = export(records)
    assert export(list(reversed(records))).files == made.files
    assert len({path for path in made.files}) == len(made.files) > 2
    other = files([sudoku("GSAI-ML/LLaDA-8B-Base", "random", "1", 0.5)], organisation="Lab")
    ((path, data),) = other.items()
    assert path.startswith("data/nano/GSAI-ML/LLaDA-8B-Base/")
    assert data["source_metadata"]["evaluator_relationship"] == "third_party"
    assert data["source_metadata"]["source_organization_name"] == "Lab"


def test_a_filter_of_lm_eval_is_no_part_of_a_metrics_meaning():
    made = export([record(question(task="gsm8k"), {"exact_match.strict-match": (0.5, 0.2, 8)})])
    assert made.results == 1 and not made.unknown


def test_the_perplexity_of_a_text_is_exported():
    """A bound of a diffusion model as well as an exact value; how much of the text was scored is no result."""
    bits = ("bits_per_byte", "bits_per_word")
    for end in ("", "_bound", "_truncated"):
        results = {f"{name}{end}": (2.0, 0.1, 8) for name in ("nll", "ppl", *bits)}
        counts = {
            name: (1.0, None, 8) for name in ("documents", "documents_unscored", "ids_scored", "draws_error")
        }
        made = export([record(question(task="book.wrapped"), results | counts)])
        assert made.results == 4 and not made.unknown


def test_the_command_writes_files_and_names_what_it_left_out(tmp_path, capsys):
    store = Store(tmp_path / "raw")
    for each in (*paper((0,)), timed("llada@nano.sudoku", "random", "1", "1101", 16)):
        store.append(each)
    store.append(record(question(task="mine"), {"smoothness": (2.0, 0.1, 10)}))
    assert (
        main(["export", "--every-eval-ever", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "o")])
        == 0
    )
    said = capsys.readouterr().out
    written = list((tmp_path / "o").rglob("*.json"))
    assert f"in {len(written)} files" in said and "left out: metric smoothness of task mine" in said
    with pytest.raises(ValueError, match="no folder"):
        main(["export", "--every-eval-ever", "--raw", str(tmp_path / "none"), "--out", str(tmp_path / "o")])


@pytest.mark.skipif(
    VALIDATOR is None, reason="every_eval_ever is not installed: `make test-exports` runs this"
)
def test_its_own_validator_accepts_every_file(tmp_path):
    from repro.results.store import RAW, collect

    records = [
        *collect(RAW),
        *paper((0,)),
        naive("mdlm@nano.text"),
        timed("ar@nano.sudoku", "greedy", "1", "10", 16),
    ]
    for path, content in export(records).files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    command = [VALIDATOR, "validate", "--format", "json", str(tmp_path / "data/*/*/*/*.json")]
    found = subprocess.run(command, capture_output=True, text=True)
    reports = json.loads(found.stdout)
    assert found.returncode == 0, [each for each in reports if each["errors"] or each["warnings"]][:3]
    assert len(reports) > 60
