"""Requests and the runner: grids, skips and records; sampler error under the exact denoiser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from repro import load, sample, score
from repro.core import parts, rng
from repro.core.files import ADAPTERS, ROOT
from repro.data.corpus import prepared
from repro.data.language import Language
from repro.evals import __main__ as command_line
from repro.evals.published.suite_group import is_suite_group
from repro.evals.request import Request, _rates, default_store, lay_out, prepare
from repro.evals.runner import question
from repro.evals.suites import read_suite
from repro.evals.task import Ask
from repro.evals.tasks.law import bigram_distance
from repro.recipes.scale import by_name
from repro.results.record import read_record
from repro.results.store import Store
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS, preset


@pytest.fixture(scope="module")
def absorbing():
    return load("oracle:mdlm@nano")


@pytest.fixture(scope="module")
def uniform():
    return load("oracle:duo_nelbo@nano")


def excess(model, sampler, rates, folder, samples=500):
    records = score(model, [sampler], ["law"], rates, samples=samples, suite="oracle", out=folder)
    return [record.answer.metrics for record in records]


def test_ancestral_error_of_absorbing_noise_halves_with_the_steps(absorbing, tmp_path):
    """docs/method.md#oracle-12: the error halves as the steps double (n = 500: the ratio is known to about .15)."""
    found = [m["excess"].value for m in excess(absorbing, "ancestral", [4, 2, 1], tmp_path)]
    assert 1.5 < found[0] / found[1] < 2.5 and 1.5 < found[1] / found[2] < 2.6, found


def test_orders_that_ignore_drawn_tokens_are_exact_one_token_at_a_time(absorbing, tmp_path):
    """With an exact denoiser, an order that ignores the drawn tokens gives the exact law; others are biased."""
    for name in ("random", "margin", "entropy"):
        (m,) = excess(absorbing, f"{name}:temperature=1.0", [1], tmp_path)
        assert abs(m["excess"].value) < 4 * m["excess"].se, (name, m)
        assert not preset(name).capabilities.looks_at_draws
    (m,) = excess(absorbing, "low_confidence:temperature=1.0", [1], tmp_path)
    assert m["excess"].value < -5 * m["excess"].se
    assert m["bigram"].value > 5 * abs(m["true_bigram"].value) + 5 * m["true_bigram"].se
    assert preset("low_confidence").capabilities.looks_at_draws


def test_uniform_ancestral_converges_for_both_meanings(uniform, tmp_path):
    """docs/method.md#oracle-13: leave-one-out and posterior-mean denoisers give one law, at 64 steps the language's."""
    (loo,) = excess(uniform, "ancestral", [0.5], tmp_path / "loo", samples=300)
    (mean,) = excess(load("oracle:duo@nano"), "ancestral", [0.5], tmp_path / "mean", samples=300)
    for m in (loo, mean):
        assert abs(m["excess"].value) < 4 * m["excess"].se + 0.01, m


def test_bigram_distance_is_unbiased(absorbing):
    """True samples give 0 on average for small n, where a plug-in distance is far off."""
    data = absorbing.recipe.data
    assert isinstance(data, Language)
    law = data.hmm().bigram()
    keys = rng.keys(3, rng.SENTENCE, 5, torch.arange(2000)).reshape(100, 20)
    found = torch.tensor([bigram_distance(data.hmm().sample(k), law)[0] for k in keys])
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(found))
    plug_in = torch.zeros_like(law)
    ids = data.hmm().sample(keys[0])
    plug_in.view(-1).scatter_add_(
        0, (ids[:, :-1] * len(law) + ids[:, 1:]).flatten(), torch.ones(20 * 31).double()
    )
    assert ((plug_in / plug_in.sum() - law) ** 2).sum() > 3 * found.abs().mean()


def test_finished_questions_are_not_computed_again(absorbing, tmp_path):
    request = Request(["ancestral"], ["law"], [8.0, "all"], samples=50, out=tmp_path)
    first = list(prepare(absorbing, request).run())
    assert [new for _, new in first] == [True, True]
    path = next((tmp_path / "raw").glob("*.jsonl"))
    lines = path.read_bytes()
    path.write_bytes(lines[:-40])  # killed while it wrote the last line
    second = list(prepare(absorbing, request).run())
    assert [new for _, new in second] == [False, True]
    same = [(r.id, r.answer) for r, _ in first]
    assert same == [(r.id, r.answer) for r, _ in second]
    assert [r.id for r in Store(tmp_path / "raw").records()] == [r.id for r, _ in first]


def test_the_question_holds_what_the_answer_depends_on(absorbing):
    request = Request(["ancestral", "random"], tokens_per_step=[1, 2], suite="nano")
    _, found, _ = lay_out(absorbing, request, lambda task, model: task.skip(model))
    ids = {question(absorbing, cell).id for cell in found}
    assert len(ids) == len(found)
    law = next(cell for cell in found if cell.task.name == "law")
    asked = question(absorbing, law)
    other = type(law)(law.task, Ask(law.ask.sampler, law.ask.plan, 1, None), law.preset, law.tokens_per_step)
    assert question(absorbing, other).id != asked.id and question(absorbing, other).cell == asked.cell


def test_samples_do_not_depend_on_their_number(absorbing):
    both = sample(absorbing, n=3, sampler="ancestral", seed=5)
    assert sample(absorbing, n=1, sampler="ancestral", seed=5) == both[:1]
    assert len(set(both)) == 3


def test_skips_carry_reasons(absorbing, tmp_path, capsys):
    code = command_line.main(
        [
            "--ckpt",
            "oracle:mdlm@nano",
            "--samples",
            "20",
            "--tokens-per-step",
            "0.5,all",
            "--out",
            str(tmp_path),
        ]
    )
    shown = capsys.readouterr().out
    assert code == 0
    assert "skipped sample: for left_to_right models, this one is absorbing" in shown
    assert "skipped random:temperature=1.0 at 0.5 tokens per step: steps 64 exceed gen_length 32" in shown
    assert "skipped task training: this model has no run folder with a training log" in shown
    assert "true samples" in shown


def test_json_holds_whole_records(tmp_path, capsys):
    arguments = [
        "--ckpt",
        "oracle:duo_nelbo@nano",
        "--tasks",
        "law",
        "--samples",
        "20",
        "--tokens-per-step",
        "all",
    ]
    assert command_line.main([*arguments, "--json", "--out", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    (record,) = map(read_record, shown["records"])
    assert record.answer.nfe == 1.0 and record.question.plan["steps"] == 1
    assert record == Store(tmp_path / "raw").records()[0]


def suite_files():
    return [
        path for path in sorted((ROOT / "evals" / "suites").glob("*.toml")) if not is_suite_group(path.stem)
    ]


@pytest.mark.parametrize("path", suite_files(), ids=lambda p: p.stem)
def test_suites_read_back(path):
    suite = read_suite(path.stem)
    names = [task.name for task in suite.tasks]
    assert len(names) == len(set(names))
    for task in suite.tasks:
        assert parts.read(parts.canonical(task)) == task


def test_the_python_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRO_RUNS", raising=False)
    text = (ROOT / "README.md").read_text("utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert "'0.5'" not in capsys.readouterr().out
    assert list(Path("runs").rglob("*.jsonl"))


def test_bound_of_the_exact_denoiser_is_the_entropy(absorbing, uniform, tmp_path):
    """The gap of the bound is 0 with exact conditionals: paired on the same rows, within 4 standard errors."""
    for name, model in {"absorbing": absorbing, "uniform": uniform}.items():
        (record,) = score(model, tasks=["bound"], limit=256, suite="nano", out=tmp_path / name)
        gap = record.answer.metrics["gap"]
        assert abs(gap.value) < 4 * gap.se and gap.se < 0.1, (name, gap)


def test_plans_that_do_not_fit_are_refused(absorbing):
    from repro.samplers.plan import check

    with pytest.raises(ValueError, match="adaptive"):
        check(preset("threshold_0.9"), absorbing.recipe.process, Plan(gen_length=8, block_length=8, steps=4))
    with pytest.raises(ValueError, match="multiple of block_length"):
        check(preset("random"), absorbing.recipe.process, Plan(gen_length=8, block_length=3, steps=8))
    with pytest.raises(ValueError, match="for absorbing models"):
        check(preset("random"), by_name("ar@nano").process, Plan(gen_length=8, block_length=8, steps=8))


def test_one_question_under_two_names_appears_once(absorbing):
    """Tables print the preset whose settings were used; the temperature is never changed silently."""
    names = ["random", "random:temperature=0.0", "random:temperature=0.5"]
    request = Request(names, ["law"], [1], suite="nano")
    _, found, skipped = lay_out(absorbing, request, lambda task, model: task.skip(model))
    law = [(cell.preset, cell.ask.sampler) for cell in found if cell.task.name == "law"]
    assert law == [(n, preset(n)) for n in ("random", "random:temperature=0.5")]
    assert ("random:temperature=0.0 for law", "the same evaluation as random") in [
        (s.what, s.reason) for s in skipped
    ]


def test_a_rate_is_labelled_as_planned(absorbing):
    """16 tokens at 3, 5 and 7 a step take 6, 4 and 3 steps; 4 and 5 a step are the same question."""
    request = Request(["random"], ["law"], [1, 2, 3, 4, 5, 7, "all"], suite="oracle")
    _, found, _ = lay_out(absorbing, request, lambda task, model: task.skip(model))
    length = found[0].ask.plan.gen_length
    rates = [cell.tokens_per_step for cell in found]
    assert rates[:2] == ["1", "2"] and rates[-1] == "all"
    assert rates[:-1] == [f"{length / cell.ask.plan.steps:g}" for cell in found[:-1]]
    assert not {"3", "5", "7"} & set(rates)


@pytest.mark.parametrize(
    "recipe, sampler, more", [("mdlm", "low_confidence", 3), ("duo_nelbo", "ancestral", 0)]
)
def test_a_task_that_is_none_of_the_suites_has_one_sampler(recipe, sampler, more):
    """Not all of them, which only `all` asks for; the suite's own tasks keep theirs."""
    model = load(f"oracle:{recipe}@nano")
    mine = str(ROOT / "examples" / "newcomer" / "finish.yaml")
    _, cells, _ = lay_out(model, Request(tasks=[mine, "law"], tokens_per_step=[1]), lambda task, model: None)
    asked = {name: {c.preset for c in cells if c.task.name == name} for name in ("finish", "law")}
    assert asked["finish"] == {sampler} and len(asked["law"]) > more


def test_a_left_to_right_model_is_asked_for_one_token_per_step():
    """The suite's other rates are no skips that nobody asked for."""
    nano, causal = read_suite("nano"), SimpleNamespace(recipe=by_name("ar@nano"))
    assert nano.tokens_per_step != [1] == _rates(nano, causal)
    assert _rates(nano, SimpleNamespace(recipe=by_name("mdlm@nano"))) == nano.tokens_per_step


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(["threshold_0.9"], ["law"], [1, 2], suite="oracle"), "every sampler here is adaptive"),
        (Request(corpus="book.txt", suite="oracle"), "suite 'oracle' has no effect"),
        (Request(["random"], ["law"], [1], (0, 1, 0), suite="oracle"), "seed 0 is given twice"),
    ],
)
def test_what_would_have_no_effect_is_refused(absorbing, request_, says):
    with pytest.raises(ValueError, match=says):
        lay_out(absorbing, request_, lambda task, model: task.skip(model))


def test_quoted_rows_are_of_documents_that_training_did_not_evaluate(tmp_path, monkeypatch):
    """The in-training bound reads the first 512 rows; their documents are left out, all others take part."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    recipe = by_name("mdlm@nano.text")
    (task,) = [task for task in read_suite("nano.text").tasks if task.name == "bound"]
    model = SimpleNamespace(data=recipe.data, corpus=None)
    quoted = set(task._rows(model, task.rows).example.tolist())  # type: ignore[attr-defined]
    names = recipe.data.clusters(prepared(recipe.data).heldout.example)
    in_training = set(names[: recipe.heldout_rows].tolist())
    assert not quoted & in_training and len(quoted) == len(set(names.tolist()) - in_training) > 5


@pytest.mark.parametrize("ckpt", ["oracle:mdlm@nano", "oracle:duo_nelbo@nano"])
def test_all_is_every_registered_preset(ckpt, tmp_path):
    """Each preset has records or a reason; one that is greedy draws at temperature 1 where a law is compared."""
    request = Request(["all"], ["law"], [8.0], samples=4, suite="oracle", out=tmp_path)
    grid = prepare(load(ckpt), request)
    ran = {record.labels.preset for record, _ in grid.run()}
    reasons = {skip.what.partition(" ")[0] for skip in grid.skipped}
    for name in PRESETS:
        assert any(each.partition(":")[0] == name for each in ran | reasons), name
    assert len(ran) > 5 and not {"low_confidence", "random", "greedy"} & ran
    suite = prepare(load(ckpt), Request(None, ["law"], [8.0], samples=4, suite="oracle", out=tmp_path))
    assert {cell.preset for cell in suite.cells} < ran


@pytest.mark.parametrize("name", ["limit", "samples", "batch", "block_length"])
def test_a_number_below_one_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}=0 is too small"):
        Request(out=tmp_path / "out", **{name: 0})
    assert not list(tmp_path.iterdir())


def test_more_samples_than_memory_holds_are_refused():
    with pytest.raises(ValueError, match="samples=1000000000 is more than"):
        Request(samples=10**9)


def test_records_lie_in_the_run_and_never_beside_released_adapters(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    places = {
        tmp_path / "mine" / "step_00000009": tmp_path / "mine" / "raw",
        ADAPTERS / "smollm2_block4" / "step_00000009": tmp_path / "smollm2_block4" / "raw",
        None: tmp_path / "smollm2_block4" / "raw",
    }
    for folder, raw in places.items():
        assert default_store(SimpleNamespace(folder=folder), "smollm2_block4") == raw
