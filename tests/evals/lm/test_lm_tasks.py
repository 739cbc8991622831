"""Tasks of lm-eval, registered and written by users, and its own command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import lm_worlds
from helpers.lm_worlds import BOS, Asked, diffusion

from repro import load
from repro.core import registry
from repro.core.parts import canonical
from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.lm.lm_tasks import _metrics
from repro.evals.lm.prompts import generation_prompt, likelihood_request
from repro.evals.lm.task_files import load_task_config, store_task
from repro.evals.lm.task_selection import TaskOptions, find_tasks
from repro.evals.progress import Lines
from repro.evals.request import Request, prepare
from repro.evals.runner import question
from repro.evals.suites import read_suite
from repro.results.flips import flips, items_of
from repro.results.store import items_file


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    for name in ("Letters", "Asked"):
        monkeypatch.setitem(registry.PARTS, name.lower(), f"helpers.lm_worlds:{name}")


@pytest.fixture(scope="module")
def masked():
    return diffusion()


# --- tasks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yaml_files(tmp_path_factory):
    return lm_worlds.tasks(tmp_path_factory.mktemp("tasks"))


def test_a_stored_task_is_identified_by_content(yaml_files, tmp_path):
    """The same files in another folder have the same digest, one more row changes it; the copy does not need the
    original."""
    digest = store_task(yaml_files["choice"])
    copy = shutil.copytree(yaml_files["choice"].parent, tmp_path / "copy")
    assert store_task(copy / "choice.yaml") == digest
    with open(copy / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"q": "a", "choices": ["b"], "answer": 0, "text": "c"}) + "\n")
    assert store_task(copy / "choice.yaml") != digest
    (copy / "base.yaml").write_text((copy / "choice.yaml").read_text("utf-8"), "utf-8")
    (copy / "functions.py").write_text("def shout(doc):\n    return doc['q'].upper()\n", "utf-8")
    (copy / "more.yaml").write_text(
        "include: base.yaml\ntask: more\ndoc_to_text: !function functions.shout\n", "utf-8"
    )
    more = store_task(copy / "more.yaml")
    shutil.rmtree(copy)
    found = load_task_config(more)
    assert found["task"] == "more" and found["doc_to_text"]({"q": "a"}) == "A"
    with open(found["dataset_kwargs"]["data_files"]["test"], encoding="utf-8") as file:
        assert len(file.readlines()) == 7
    with pytest.raises(ValueError, match="store it again"):
        load_task_config("0" * 64)
    (tmp_path / "lost.yaml").write_text(
        "task: lost\ndataset_kwargs: {data_files: {test: none.jsonl}}\n", "utf-8"
    )
    with pytest.raises(ValueError, match=r"names 'none\.jsonl'"):
        store_task(tmp_path / "lost.yaml")


def with_recipe(model):
    """The model under the recipe and digest of a loadable one, as requests need."""
    real = load("oracle:mdlm@nano")
    return dataclasses.replace(model, recipe=real.recipe, digest=real.digest)


def choice_task(grid):
    return next(cell.task for cell in grid.cells if cell.task.name == "choice")


def test_user_written_tasks_are_evaluated(masked, yaml_files, tmp_path, monkeypatch):
    """A likelihood task is one question, a generation task one per preset and plan; items average to the metric."""
    model = with_recipe(masked)
    paths = [str(yaml_files["choice"]), str(yaml_files["writing"])]
    request = Request(
        ["random", "low_confidence"], paths, [1.0, "all"], out=tmp_path, estimator="levels:draws=16"
    )
    grid = prepare(model, request)
    assert [(c.task.name, c.preset) for c in grid.cells if c.task.name == "choice"] == [("choice", None)]
    assert len(grid.cells) == 1 + 2 * 2
    records = [record for record, _ in grid.run()]
    for record in records:
        with open(items_file(grid.store.folder, record), encoding="utf-8") as file:
            items = [json.loads(line) for line in file]
        metric = "acc" if record.labels.task == "choice" else "exact_match"
        mean = sum(item["metrics"][metric] for item in items) / len(items)
        assert record.answer.metrics[metric].value == pytest.approx(mean) and len(items) == 6
        assert len({item["doc_hash"] for item in items}) == 6
    (choice,) = [r for r in records if r.labels.task == "choice"]
    assert choice.question.task["estimator"]["draws"] == 16
    assert choice.question.protocol["unit"] == "nats, summed"
    assert [new for _, new in prepare(model, request).run()] == [False] * 5
    ids = {question(model, cell).id for cell in grid.cells}
    other = find_tasks(paths[0], model)[0]
    assert len(ids) == 5 and other != choice_task(grid)


def test_what_lm_eval_prints_does_not_reach_the_output(masked, yaml_files, tmp_path, monkeypatch, capsys):
    """It says on the standard output that it resamples metrics such as perplexity, where `--json` writes. Progress is
    shown all the same."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "")
    copy = shutil.copytree(yaml_files["choice"].parent, tmp_path / "copy")
    lines = "task: likely\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
    lines += (
        "output_type: loglikelihood\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{choices[0]}}'\nmetric_list:\n"
    )
    (copy / "likely.yaml").write_text(lines + "  - metric: perplexity\nmetadata: {version: 1}\n")
    request = Request(tasks=[str(copy / "likely.yaml")], out=tmp_path, estimator="duel")
    monkeypatch.setattr("repro.evals.lm.adapter.REQUESTS", 4)
    grid = prepare(with_recipe(masked), request)
    capsys.readouterr()
    ((record, _),) = grid.run(Lines(1).chunk)
    assert record.answer.metrics["perplexity"].se > 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == ["likely: 1 of 2 chunks", "likely: 2 of 2 chunks"]


def test_metrics_that_are_numpy_values_are_stored(masked, yaml_files, tmp_path):
    """brier_score logs the probabilities of the choices as an array; the evaluation ended with a traceback when its
    items were written. A metric that is a number of numpy's is not left out."""
    copy = shutil.copytree(yaml_files["choice"].parent, tmp_path / "copy")
    text = (copy / "choice.yaml").read_text("utf-8")
    lines = text.replace("metric_list: [", "metric_list: [{metric: brier_score}, ")
    (copy / "choice.yaml").write_text(lines, "utf-8")
    request = Request(tasks=[str(copy / "choice.yaml")], out=tmp_path, estimator="duel")
    grid = prepare(with_recipe(masked), request)
    ((record, _),) = grid.run()
    with open(items_file(grid.store.folder, record), encoding="utf-8") as file:
        logged = [json.loads(line)["metrics"]["brier_score"] for line in file]
    scores = [sum((p - (i == gold)) ** 2 for i, p in enumerate(shares)) for gold, shares in logged]
    assert record.answer.metrics["brier_score"].value == pytest.approx(sum(scores) / 6)
    metrics = _metrics({"longest,none": np.int64(7), "half,none": np.float32(0.5), "alias": "choice"}, 6)
    assert metrics == {"longest": (7.0, None, 6), "half": (0.5, None, 6)}


def test_a_function_of_the_task_may_name_its_metrics(masked, yaml_files, tmp_path):
    """As those of squad or drop do. The names had to be those of lm-eval's metrics."""
    copy = shutil.copytree(yaml_files["writing"].parent, tmp_path / "copy")
    code = "def scores(doc, results):\n    return {'size': len(results[0])}\n\n\n"
    code += "def longest(sizes):\n    return max(sizes)\n"
    (copy / "functions.py").write_text(code, "utf-8")
    config = (copy / "writing.yaml").read_text("utf-8")
    lines = [line for line in config.splitlines() if not line.startswith("metric_list")]
    lines += ["process_results: !function functions.scores", "metric_list:", "  - metric: size"]
    lines += ["    aggregation: !function functions.longest", "    higher_is_better: true", ""]
    (copy / "writing.yaml").write_text("\n".join(lines), "utf-8")
    request = Request(["random"], [str(copy / "writing.yaml")], ["all"], out=tmp_path)
    grid = prepare(with_recipe(masked), request)
    ((record, _),) = grid.run()
    with open(items_file(grid.store.folder, record), encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    sizes = [len(item["found"][0][0]) for item in found]
    assert [item["metrics"]["size"] for item in found] == sizes
    assert record.answer.metrics["size"].value == max(sizes)


def test_a_metric_without_a_number_is_named(masked, yaml_files, tmp_path):
    copy = shutil.copytree(yaml_files["choice"].parent, tmp_path / "copy")
    (copy / "rolling.yaml").write_text(
        "task: rolling\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: \"{{'ab' * 400}}\"\n"
        "metric_list:\n  - metric: word_perplexity\nmetadata: {version: 1}\n",
        "utf-8",
    )
    request = Request(tasks=[str(copy / "rolling.yaml")], out=tmp_path, estimator="levels:draws=3")
    with pytest.raises(ValueError, match=r"a metric of task rolling \(OverflowError.*metric_list"):
        list(prepare(with_recipe(masked), request).run())


def test_a_text_without_ids_is_named_with_its_task_and_document(masked, yaml_files, tmp_path):
    copy = shutil.copytree(yaml_files["choice"].parent, tmp_path / "copy")
    row = {"q": "a b\u00e9", "choices": ["a", "b"], "answer": 0, "text": "c"}
    with open(copy / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    for name, request in (("choice", {"estimator": "duel"}), ("writing", {"samplers": ["random"]})):
        grid = prepare(
            with_recipe(masked), Request(tasks=[str(copy / f"{name}.yaml")], out=tmp_path, **request)
        )
        with pytest.raises(
            ValueError, match=f"^task {name}, document 6: no symbol '\u00e9' in .*reads 31 symbols"
        ):
            list(grid.run())


def test_shots_and_template_reach_the_prompts(yaml_files, tmp_path):
    """The network reads the few-shot examples and the template; with `none` it reads the context alone."""
    data = Asked(length=48, masked=1, template="q: {}\n")
    chat = with_recipe(diffusion(data=data))
    found = {}
    for name, pins in {"chat": {}, "none": {"template": "none"}, "shots": {"shots": 1}}.items():
        request = Request(tasks=[str(yaml_files["choice"])], out=tmp_path / name, estimator="duel", **pins)
        ((record, _),) = prepare(chat, request).run()
        found[name] = record.question.task, record.answer, prompts_of(tmp_path / name)
    assert [found[name][0]["template"] for name in found] == ["chat", "none", "chat"]
    assert [found[name][0]["shots"] for name in found] == [None, None, 1]
    assert found["none"][2] == found["chat"][2] != found["shots"][2], "prompts as lm-eval hashes them"
    context, choice = "ab c", "d"
    raw = likelihood_request(chat, context, choice, "error", "none")
    assert list(raw.prompt) == [BOS, *data.encode("ab c")] and raw.continuation == tuple(data.encode("d"))
    assert generation_prompt(chat, context, 4, "error", "none") == list(raw.prompt)
    assert list(likelihood_request(chat, context, choice, "error", "chat").prompt) == [
        BOS,
        *data.encode("q: ab c\n"),
    ]


def prompts_of(folder):
    (file,) = (folder / "items").glob("*.jsonl")
    return [json.loads(line)["prompt_hash"] for line in file.read_text("utf-8").splitlines()]


def test_options_without_effect_are_refused(masked, yaml_files, tmp_path):
    """An estimator, shots and a template that no task takes; and shots that lm-eval would silently ignore."""
    model = with_recipe(masked)
    choice, writing = str(yaml_files["choice"]), str(yaml_files["writing"])

    def refused(message, **request):
        with pytest.raises(ValueError, match=message):
            list(prepare(model, Request(out=tmp_path, **request)).run())

    refused("none of the selected tasks takes an estimator", tasks=[writing], estimator="levels")
    refused("none of the selected tasks takes an estimator", suite="draws", estimator="levels")
    refused("is one of lm-eval's", suite="nano", shots=2)
    refused("has no chat template", tasks=[choice], template="chat")
    path = tmp_path / "pinned.yaml"
    choosing = yaml_files["choice"].read_text("utf-8").replace("task: choice", "task: pinned")
    path.write_text(f"{choosing}num_fewshot: 0\n", "utf-8")
    (tmp_path / "rows.jsonl").write_bytes(yaml_files["choice"].with_name("rows.jsonl").read_bytes())
    refused("ran with 0 shots, not 2: it sets num_fewshot: 0", tasks=[str(path)], shots=2)
    (task,) = [task for task in read_suite("llada_base").tasks if task.name == "hellaswag"]
    (given,) = TaskOptions("subsets", None, None).apply([task], model)
    assert given.estimator == estimator("subsets"), "the option also applies to the suite's own tasks"


def test_several_estimators_are_several_questions(masked, yaml_files, tmp_path):
    """One question and its items per estimator; generation tasks are unchanged."""
    model = with_recipe(masked)
    paths = [str(yaml_files["choice"]), str(yaml_files["writing"])]
    several = "llada_mc:draws=2,batch=1;levels:draws=16"
    request = Request(["random"], paths, ["all"], out=tmp_path, estimator=several)
    records = [record for record, _ in prepare(model, request).run()]
    names = [record.labels.task for record in records]
    assert names == ["choice by llada_mc:draws=2,batch=1", "choice by levels:draws=16", "writing"]
    assert [r.question.task["estimator"]["draws"] for r in records[:2]] == [2, 16]
    one, other = (items_of(tmp_path, f"oracle:mdlm@nano/{name}") for name in names[:2])
    assert flips(one, other, "acc").n == 6
    with pytest.raises(ValueError, match="nearest is 'levels'"):
        prepare(model, dataclasses.replace(request, estimator="llada_mc;level"))


def test_the_protocol_records_what_the_sampler_overrides(masked, yaml_files, tmp_path):
    """do_sample=False with a sampler of temperature 1 is recorded in the protocol; nothing where both agree."""
    model = with_recipe(masked)
    request = Request(["random", "ancestral"], [str(yaml_files["writing"])], ["all"], out=tmp_path)
    (greedy, _), (drawn, _) = prepare(model, request).run()
    assert "overridden" not in greedy.question.protocol
    assert drawn.question.protocol["overridden"] == {"do_sample": [False, "temperature 1.0"]}


def test_misspelt_task_names_and_wrong_files_are_reported(masked, tmp_path):
    known = read_suite("nano").tasks
    from repro.evals.lm.task_selection import tasks_by_name

    with pytest.raises(ValueError, match="no task 'bonud' in suite 'nano'; nearest is 'bound'"):
        tasks_by_name(["bonud"], "nano", known, masked)
    for name, said in (
        ("sudoku", "of suite nano.sudoku: give --suite nano.sudoku"),
        ("sudko", "nearest is 'sudoku'"),
    ):
        with pytest.raises(ValueError, match=f"neither this suite nor lm-eval has a task {name!r}; .*{said}"):
            tasks_by_name([name], "nano", known, masked)
    with pytest.raises(ValueError, match="no file"):
        tasks_by_name([str(tmp_path / "none.yaml")], "nano", known, masked)
    (tmp_path / "group.yaml").write_text("group: all\ntask: [a, b]\n", "utf-8")
    with pytest.raises(ValueError, match="no single task"):
        tasks_by_name([str(tmp_path / "group.yaml")], "nano", known, masked)


WRONG_YAML = {
    "an unknown metric": ("metric: acc", "metric: acuracy", "lm-eval has no metric 'acuracy'; valid: acc, "),
    "negative shots": (
        "test_split: test",
        "test_split: test\nnum_fewshot: -1",
        "num_fewshot is -1; give 0 or more",
    ),
    "a template that reaches Python": (
        "{{q}}",
        "{{q.__class__.__mro__}}",
        "a template cannot be rendered .*unsafe",
    ),
    "a template without end": (
        "{{q}}",
        "{% for i in range(1000000000) %}{{i}}{% endfor %}",
        "a template cannot be rendered .*Range too big",
    ),
    "an answer that is no choice": (
        'doc_to_target: "{{answer}}"',
        'doc_to_target: "{{7 if answer == 1 else answer}}"',
        "doc_to_target of document 1 gives 7, which is none of its 3 choices",
    ),
    "a first answer that is no choice": (
        'doc_to_target: "{{answer}}"',
        'doc_to_target: "{{answer + 3}}"',
        "lm-eval cannot build the task .*wrong.yaml .IndexError",
    ),
}


@pytest.mark.parametrize("case", WRONG_YAML)
def test_what_lm_eval_lets_pass_is_refused(case, masked, yaml_files, tmp_path):
    """Each of these would give a record with accuracy 0 or with no metric."""
    from repro.evals.lm.task_selection import tasks_by_name

    old, new, message = WRONG_YAML[case]
    text = yaml_files["choice"].read_text("utf-8")
    assert old in text
    (tmp_path / "rows.jsonl").write_bytes(yaml_files["choice"].with_name("rows.jsonl").read_bytes())
    (tmp_path / "wrong.yaml").write_text(
        text.replace(old, new).replace("task: choice", "task: wrong"), "utf-8"
    )
    with pytest.raises(ValueError, match=message):
        tasks_by_name([str(tmp_path / "wrong.yaml")], "nano", read_suite("nano").tasks, masked)


def test_data_files_of_one_name_are_kept_apart(tmp_path):
    """Two folders each with a data.jsonl: the few-shot split does not take the rows of the test split."""
    for split, text in (("train", "shots"), ("test", "rows")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data.jsonl").write_text(json.dumps({"q": text}) + "\n", "utf-8")
    (tmp_path / "two.yaml").write_text(
        "task: two\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {train: train/data.jsonl, test: [test/data.jsonl]}}\n",
        "utf-8",
    )
    files = load_task_config(store_task(tmp_path / "two.yaml"))["dataset_kwargs"]["data_files"]
    read = [json.loads(Path(path).read_text("utf-8"))["q"] for path in (files["train"], *files["test"])]
    assert read == ["shots", "rows"]


def test_registered_tasks_are_built_from_their_settings(masked):
    from repro.evals import cli
    from repro.evals.lm.task_selection import tasks_by_name

    text = "cache_error:rows=2,block_length=8,refreshes=[1,2],name=errors,law:samples=7"
    names = cli.score_parser().parse_args(["--tasks", text]).tasks
    found = tasks_by_name(names, "nano", read_suite("nano").tasks, masked)
    assert [canonical(task) for task in found] == [
        {
            "part": "cache_error",
            "version": 1,
            "name": "errors",
            "rows": 2,
            "block_length": 8,
            "refreshes": [1, 2],
        },
        {"part": "law", "version": 1, "name": "law", "samples": 7},
    ]
    for wrong, message in {
        "cache_error:rows=2": "'cache_error' lacks block_length, refreshes; write cache_error:block_length=VALUE,",
        "decoding_speed": "task 'decoding_speed' lacks of, metric",
        "law:sample=7": "no setting 'sample'; nearest is 'samples'",
        "law:samples=few": 'samples="few": expected int',
        "lav:samples=7": "no registered task 'lav'; nearest is 'law'",
    }.items():
        with pytest.raises(ValueError, match=message):
            tasks_by_name([wrong], "nano", [], masked)


def test_the_protocol_of_harness_tasks_is_fixed():
    """It is part of the question, and so of the identity of stored records."""
    suite = read_suite("nano.sudoku")
    (task,) = [t for t in suite.tasks if t.name == "sudoku"]
    assert task.protocol() == {"harness": "lm-eval", "output": "generate_until", "draws": "float64"}


# --- lm-eval's own command line -----------------------------------------------------------------------------


@pytest.fixture
def capitals(tmp_path):
    """A multiple-choice task in the symbols of the oracle language."""
    rows = [{"q": "AB" + "CDEF"[i], "choices": ["GH", "IJKL"], "answer": i % 2} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "capitals.yaml").write_text(
        "task: capitals\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\n'
        'doc_to_target: "{{answer}}"\ntarget_delimiter: ""\nmetadata: {version: 2.0}\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
        "utf-8",
    )
    return tmp_path / "capitals.yaml"


def test_lm_eval_knows_the_model_by_name(capitals):
    """Registered as "repro"; with the exact denoiser the log-likelihoods are those of the language."""
    import tomllib

    import torch
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from repro.core.files import ROOT
    from repro.evals import lm_harness

    data = load("oracle:mdlm@nano").data
    found = simple_evaluate(
        model="repro",
        model_args="ckpt=oracle:mdlm@nano,estimator=subsets",
        tasks=[load_task_config(store_task(capitals))],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=10,
        batch_size=4,
    )
    for sample in found["samples"]["capitals"]:
        ids = [data.encode(context + choice) for context, choice in sample["arguments"]]
        before = data.hmm().log_likelihood(torch.tensor([data.encode(sample["doc"]["q"])]))
        want = [float(data.hmm().log_likelihood(torch.tensor([row])) - before) for row in ids]
        assert [value for value, _ in sample["filtered_resps"]] == pytest.approx(want, abs=1e-8)
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][
        "lm_eval.models"
    ]
    module, _, name = entry["repro"].partition(":")
    assert (module, getattr(lm_harness, name)) == ("repro.evals.lm_harness", lm_harness.Repro)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("ckpt=oracle:mdlm@nano,samplr=random", "no model_arg 'samplr'; nearest is 'sampler'"),
        ("sampler=random", "ckpt=DIR"),
        ("ckpt=oracle:mdlm@nano,estimator=level", "nearest is 'levels'"),
        ("ckpt=oracle:mdlm@nano,estimator=next_token", "for left_to_right models, not absorbing"),
        ("ckpt=oracle:mdlm@nano,policy=ours", "policy='ours' is not suite or task"),
        ("ckpt=oracle:mdlm@nano,batch_size=auto", "batch_size='auto' is not a positive integer"),
        ("ckpt=oracle:mdlm@nano,max_batch_size=4", "max_batch_size=4 has no effect"),
    ],
)
def test_model_args_are_read_strictly(arguments, message):
    from repro.evals.lm_harness import Repro

    with pytest.raises(ValueError) as error:
        Repro.create_from_arg_string(arguments)
    assert message in str(error.value)


@pytest.mark.slow
def test_lm_evals_command_line_runs(capitals, capsys):
    from repro.evals.lm_harness import main

    rows = capitals.with_name("rows.jsonl")
    capitals.write_text(capitals.read_text("utf-8").replace("rows.jsonl", str(rows)), "utf-8")
    arguments = ["--include_path", str(capitals.parent), "--tasks", "capitals", "--device", "cpu"]
    assert main(["run", "--model", "repro", "--model_args", "ckpt=oracle:mdlm@nano", *arguments]) == 0
    assert "capitals" in capsys.readouterr().out
