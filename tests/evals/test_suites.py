"""Published suites and plans: every task exists, and planned forwards are those that decoding counts."""

from __future__ import annotations

import json
import math
import time
from functools import lru_cache
from pathlib import Path

import lm_eval
import pytest
from helpers import lm_worlds

from repro.core import registry
from repro.core.files import ROOT
from repro.evals import batch_size, suites, workload
from repro.evals.__main__ import main
from repro.evals.batch_size import fitting_batch, row_bytes
from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.lm.lm_tasks import STANDARD, LmGeneration, LmLikelihood, LmTask
from repro.evals.planning import device
from repro.evals.planning.device import flops
from repro.evals.planning.plan import plan, subject, unloaded
from repro.evals.request import Request, lay_out, prepare
from repro.evals.suites import SUITES, read_suite
from repro.evals.workload import decoding, of_answers, sizes
from repro.hub import catalogue as checkpoints
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform
from repro.samplers.decode import decode
from repro.samplers.plan import Plan, ServedPlan, cache
from repro.samplers.presets import preset

PUBLISHED = sorted({suite for each in checkpoints.read().values() for suite in each.suites})


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    for name in ("Letters", "Asked"):
        monkeypatch.setitem(registry.PARTS, name.lower(), f"lm_worlds:{name}")


# --- suites -------------------------------------------------------------------------------------------------


def test_every_suite_of_a_checkpoint_exists_and_lays_out():
    """Each plan fits the checkpoint's process: no published setting is skipped."""
    assert set(PUBLISHED) <= {path.stem for path in SUITES.glob("*.toml")}
    for name in PUBLISHED:
        suite = read_suite(name)
        for each in checkpoints.read().values():
            if name in each.suites:
                _, cells, skipped = lay_out(unloaded(each), Request(suite=name), lambda task, model: None)
                assert not skipped, (name, skipped)
                planned = sum(len(p.presets) * max(1, len(p.steps)) for p in suite.plans)
                assert len(cells) == planned + sum(not task.generates for task in suite.tasks)


def lm_tasks():
    return [
        pytest.param(task, id=f"{name}-{task.name}")
        for name in PUBLISHED
        for task in read_suite(name).tasks
        if isinstance(task, LmTask)
    ]


@lru_cache
def index(name):
    """lm-eval's own entry of a task, from its folder alone: reading all of them takes ten seconds."""
    from lm_eval.tasks import TaskManager

    tasks = Path(lm_eval.__file__).parent / "tasks"
    folders = {
        "arc_challenge": ["arc"],
        "arc_challenge_chat": ["arc"],
        "bbh": ["bbh/cot_fewshot"],
        "ceval-valid": ["ceval"],
        "gpqa_main_generative_n_shot": ["gpqa/generative"],
        "gpqa_main_n_shot": ["gpqa/n_shot"],
        "humaneval_instruct": ["humaneval"],
        "mbpp_instruct": ["mbpp"],
        "minerva_math": ["minerva_math", "benchmarks"],
        "mmlu": ["mmlu/default"],
        "truthfulqa_mc2": ["truthfulqa"],
    }.get(name, [name])
    manager = TaskManager(include_path=[str(tasks / f) for f in folders], include_defaults=False)
    assert name in manager.all_tasks, f"lm-eval has no task {name}"
    return manager, manager.task_index[name]


def first_member(manager, entry):
    while "GROUP" in str(entry.kind):
        entry = manager.task_index[entry.cfg["task"][0]]
    return entry.cfg


@pytest.mark.parametrize("task", lm_tasks())
def test_lm_eval_has_the_task_in_that_version(task):
    manager, entry = index(task.task)
    assert task.source == STANDARD and task.task_version == str(entry.cfg["metadata"]["version"])
    assert task.task in sizes()
    if isinstance(task, LmGeneration):
        assert json.loads(task.asks) == first_member(manager, entry)["generation_kwargs"]
    else:
        assert isinstance(task, LmLikelihood)


def test_single_token_answers_take_one_draw():
    """docs/method.md#llada-likelihood: 1 draw for MMLU, CMMLU and C-Eval, 128 elsewhere."""
    draws = {t.name: t.estimator.draws for t in read_suite("llada_base").tasks if isinstance(t, LmLikelihood)}
    assert draws.pop("mmlu") == draws.pop("cmmlu") == draws.pop("ceval-valid") == 1
    assert set(draws.values()) == {128}


INSTRUCT = {  # docs/method.md#llada-settings: gen length / block, flags
    ("mmlu_pro", 256, 256): "low_confidence",
    ("arc_challenge_chat", 512, 512): "low_confidence",
    ("gsm8k", 512, 512): "low_confidence+eos_last:ids=[126081,126348]",
    ("gsm8k_256", 256, 8): "low_confidence",
    ("minerva_math", 512, 512): "low_confidence+eos_last:ids=[126081,126348]",
    ("minerva_math", 512, 64): "low_confidence",
    ("gpqa_main_generative_n_shot", 64, 64): "low_confidence+eos_last:ids=[126081,126348]",
    ("humaneval_instruct", 512, 512): "low_confidence+no_eos",
    ("mbpp_instruct", 256, 256): "low_confidence+eos_last:ids=[126081,126348]",
    ("ifeval", 512, 512): "low_confidence+eos_last:ids=[126081,126348]",
}


def test_a_mask_that_is_the_last_id_is_no_id_of_text():
    """mdlm-owt has GPT-2's 50,257 ids and the mask; LLaDA's mask is one of the ids that its network can give."""
    sizes = [
        unloaded(checkpoints.entry(name)).data.vocabulary().size
        for name in ("kuleshov-group/mdlm-owt", "GSAI-ML/LLaDA-8B-Instruct")
    ]
    assert sizes == [50257, 126464]


def test_llada_instruct_has_the_published_settings():
    entry = checkpoints.entry("GSAI-ML/LLaDA-8B-Instruct")
    assert (entry.eos, entry.eot) == (126081, 126348)
    _, cells, _ = lay_out(unloaded(entry), Request(suite="llada_instruct"), lambda task, model: None)
    found = {}
    for cell in cells:
        asked = cell.ask.plan
        assert asked.steps == asked.gen_length
        found[cell.task.name, asked.gen_length, asked.block_length] = cell.ask.sampler
    assert found == {key: preset(name) for key, name in INSTRUCT.items()}


SUITE = """
[[tasks]]
part = "law"
name = "law"
samples = 50

[[plans]]
task = "law"
presets = ["random:temperature=1.0", "ancestral"]
steps = [16, 32]

[[plans]]
task = "law"
presets = ["threshold_0.9:temperature=1.0"]
block_length = 8
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "SUITES", tmp_path)

    def write(text):
        (tmp_path / "own.toml").write_text(text, "utf-8")
        return "own"

    return write


def test_plans_run_as_written_and_flags_replace_one_field(own, tmp_path):
    model, _ = subject("oracle:mdlm@nano")
    own(SUITE)
    asked = [
        (c.preset, c.ask.plan.steps, c.tokens_per_step) for c in prepare(model, Request(suite="own")).cells
    ]
    assert asked == [
        ("random:temperature=1.0", 16, "2"),
        ("random:temperature=1.0", 32, "1"),
        ("ancestral", 16, "2"),
        ("ancestral", 32, "1"),
        ("threshold_0.9:temperature=1.0, block 8", None, None),
    ]
    one = prepare(model, Request(["ancestral"], None, [4.0], suite="own", out=tmp_path)).cells
    assert [(c.preset, c.ask.plan.steps) for c in one] == [("ancestral", 8), ("ancestral, block 8", 8)]
    blocks = prepare(model, Request(suite="own", block_length=16, out=tmp_path))
    assert [c.ask.plan.block_length for c in blocks.cells] == [16] * 5
    lost = prepare(model, Request(["ancestral"], suite="own", out=tmp_path))
    assert "--tokens-per-step" in lost.skipped[0].reason  # the second plan has no steps


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("block_length = 8", "blok_length = 8", "blok_length"),
        ('task = "law"\npresets = ["random', 'task = "lwa"\npresets = ["random', "nearest is 'law'"),
        ("steps = [16, 32]", "", "lacks steps"),
        ("block_length = 8", "steps = [4]", "adaptive"),
        ("block_length = 8", 'cache = "prefx"', "nearest is 'prefix'"),
        ('"ancestral"', '"ancestrla"', "nearest is 'ancestral'"),
        ("[[plans]]", '[presets]\nlaw = ["ancestral"]\n\n[[plans]]', "plans and presets"),
        (SUITE[SUITE.index("[[plans]]") :], "", "tokens_per_step"),
    ],
)
def test_a_wrong_suite_is_refused(own, old, new, says):
    assert old in SUITE
    with pytest.raises(ValueError, match=says):
        read_suite(own(SUITE.replace(old, new, 1)))


# --- groups of lm-eval --------------------------------------------------------------------------------------


def test_a_group_is_one_question_with_every_member_s_items(tmp_path, monkeypatch):
    """The accuracy of a group is lm-eval's own aggregate, weighted by size; each item names its member."""
    from lm_eval.tasks import TaskManager

    from repro.evals.lm import lm_tasks
    from repro.evals.lm.adapter import Adapter
    from repro.evals.task import Ask

    for name, rows in (("one", 3), ("two", 5)):
        (tmp_path / name).mkdir()
        path = lm_worlds.tasks(tmp_path / name, rows)["choice"]
        text = path.read_text("utf-8").replace("task: choice", f"task: {name}")
        text = text.replace("rows.jsonl", str(tmp_path / name / "rows.jsonl"))
        (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
    (tmp_path / "all.yaml").write_text(
        "group: all\ntask: [one, two]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
        "metadata: {version: 2}\n",
        "utf-8",
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(lm_tasks, "standard_tasks", lambda: manager)
    model = lm_worlds.diffusion()
    common = {"source": STANDARD, "shots": 0, "template": "none", "overlong": "error"}
    rule = estimator("levels:draws=16")
    task = LmLikelihood(name="all", task="all", task_version="2", estimator=rule, **common)
    answer = lm_tasks.evaluate(task, Adapter(model, rule, None, "error", 0, 8), Ask(None, None, 0, None))
    assert answer.metrics["acc"][2] == 8
    assert [item["task"] for item in answer.items] == ["one"] * 3 + ["two"] * 5
    assert answer.metrics["acc"][0] == pytest.approx(sum(i["metrics"]["acc"] for i in answer.items) / 8)


# --- plans --------------------------------------------------------------------------------------------------


def test_a_plan_needs_no_weights_and_is_quick(capsys):
    began = time.process_time()
    assert main(["plan", "--suite", "fast_dllm", "--json"]) == 0
    assert time.process_time() - began < 5
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"] == "LLaDA-8B-Instruct" and len(found["questions"]) == 32
    assert found["hours"] == pytest.approx(sum(line["hours"] for line in found["questions"]))
    (whole,) = [
        q
        for q in found["questions"]
        if q["task"] == "gsm8k_256" and q["preset"] == "low_confidence, block 32"
    ]
    size = sizes()["gsm8k"]
    assert whole["items"] == 1319 and whole["forwards"] == 256
    assert whole["token_forwards"] == 256 * (size.prompt + 5 * size.shot + 256)


def test_hours_by_hand():
    """LLaDA, one row of 1,000 ids, one forward, logits of 32: 2 x 6.98e9 x 1000 + 4 x 32 x 4096 x 1e6 + head."""
    shape = checkpoints.entry("GSAI-ML/LLaDA-8B-Base").shape
    network = shape.size(8_020_000_000)
    one = workload.Workload(items=1, forwards=1, tokens=1000, keys=1e6, heads=32)
    expected = 2 * 6.979321856e9 * 1000 + 4 * 32 * 4096 * 1e6 + 2 * 4096 * 126464 * 32
    assert flops(one, network) == pytest.approx(expected)
    h100 = device.device("h100", "bfloat16")
    assert device.seconds(one, network, h100, 1) == pytest.approx(expected / 989e12 / 0.4)
    few = workload.Workload(
        items=1, forwards=1, tokens=4, keys=4000, heads=4
    )  # 16 GB of weights are read for four ids
    assert device.seconds(few, network, h100, 1) == pytest.approx(16.04e9 / 3.35e12 / 0.4)
    assert device.seconds(few, network, h100, 8) == pytest.approx(16.04e9 / 3.35e12 / 0.4 / 8)
    wide, small = device.device("h100", "float32"), device.device("h100", "int8")
    assert device.seconds(one, network, wide, 1) == pytest.approx(expected / 67e12 / 0.4)
    assert device.seconds(few, network, wide, 1) == pytest.approx(32.08e9 / 3.35e12 / 0.4)
    assert device.seconds(one, network, small, 1) == device.seconds(one, network, h100, 1)
    assert device.seconds(few, network, small, 1) == pytest.approx(8.02e9 / 3.35e12 / 0.4)


def test_a_plan_and_a_run_have_the_same_default_precision(capsys):
    """float32 by default; memory and batch follow. A precision that a checkpoint cannot have is an error."""
    ask = ["plan", "--ckpt", "GSAI-ML/LLaDA-8B-Instruct", "--suite", "fast_dllm", "--json"]
    found = {}
    for flags in ([], ["--precision", "bfloat16"], ["--precision", "float32"]):
        assert main([*ask, *flags]) == 0
        found[tuple(flags[1:])] = json.loads(capsys.readouterr().out)
    plain, narrow = found[()], found[("bfloat16",)]
    assert plain == found[("float32",)] and plain["device"] == "one H100 80 GB, float32"
    assert narrow["device"] == "one H100 80 GB, bfloat16" and plain["hours"] > 10 * narrow["hours"]
    assert plain["questions"][0]["batch"] < narrow["questions"][0]["batch"]
    with pytest.raises(ValueError, match="oracle:mdlm@nano holds no released weights; leave out --precision"):
        main(["plan", "--ckpt", "oracle:mdlm@nano", "--precision", "bfloat16"])
    with pytest.raises(ValueError, match="leave out --precision bfloat16"):
        main(["--ckpt", "oracle:mdlm@nano", "--precision", "bfloat16"])


def test_flags_without_effect_and_unknown_suites_are_errors(capsys):
    with pytest.raises(ValueError, match=r"--out has no effect on `python -m repro\.evals plan`"):
        main(["plan", "--suite", "duo_owt", "--out", "x"])
    with pytest.raises(ValueError, match="no device 'h10'; nearest is 'h100'"):
        main(["plan", "--device", "h10", "--suite", "duo_owt"])
    with pytest.raises(ValueError, match="give --ckpt"):
        main(["plan", "--suite", "nano"])


PLANNED = [  # preset, process, plan of 16 ids: (block, steps, cache)
    ("low_confidence", "absorbing", (16, 16, None)),
    ("low_confidence", "absorbing", (4, 8, None)),
    ("low_confidence", "absorbing", (4, 8, "prefix")),
    ("low_confidence", "absorbing", (4, 16, "dual")),
    ("low_confidence", "absorbing", (8, 16, "dual:refresh=2")),
    ("low_confidence+guided:scale=1.0", "absorbing", (8, 8, None)),
    ("low_confidence+dream_quotas", "absorbing", (16, 16, None)),
    ("low_confidence+dream_quotas", "absorbing", (8, 32, "prefix")),
    ("random+guided:scale=1.0+rounded_quotas", "absorbing", (8, 48, None)),
    ("low_confidence+rounded_quotas", "absorbing", (8, 48, "dual:refresh=2")),
    ("first_hitting", "absorbing", (8, None, None)),
    ("remdm_cap", "absorbing", (16, 12, None)),
    ("drawn_tail", "uniform", (16, 5, None)),
    ("greedy_tail", "uniform", (8, 4, None)),
    ("ancestral", "uniform", (16, 6, None)),
    ("corrector", "uniform", (16, 6, None)),
    ("greedy", "left_to_right", (16, 16, None)),
]


@lru_cache
def world(noise):
    if noise == "absorbing":
        return lm_worlds.diffusion()
    if noise == "left_to_right":
        return lm_worlds.model(LeftToRight())
    return lm_worlds.model(Uniform(alpha_end=1e-3, eps=1e-3), data=lm_worlds.Letters(length=48, masked=0))


@pytest.mark.parametrize(("name", "noise", "way"), PLANNED)
def test_planned_forwards_are_those_that_decoding_counts(name, noise, way):
    block, steps, kept = way
    asked = Plan(gen_length=16, block_length=block, steps=steps)
    if kept is not None:
        asked = ServedPlan(gen_length=16, block_length=block, steps=steps, cache=cache(kept), stop=())
    model = world(noise)
    prompt = model.data.encode("abcde")
    found = decode(model.denoiser, model.recipe.process, preset(name), asked, [prompt], seed=0, names=[0])
    said = decoding(preset(name), asked, len(prompt), noise == "left_to_right")
    if name == "remdm_cap":  # may finish early, at random
        assert 1 <= found.cost.forwards.item() <= said.forwards
        return
    assert found.cost.forwards.item() == said.forwards
    assert found.cost.token_forwards.item() == said.tokens


def test_likelihoods_count_every_answer():
    """Multiple choice under absorbing noise: draws, and one forward a token for is_greedy; causal: one in all."""
    size = sizes()["arc_challenge"]
    masked = of_answers(size, 0, estimator("llada_mc"), world("absorbing"))
    assert masked.forwards == (128 + size.answer) * size.choices and masked.items == 1172
    causal = of_answers(size, 0, estimator("next_token"), world("left_to_right"))
    assert causal.forwards == size.choices
    assert causal.limited(10).items == 10
    guided = of_answers(size, 0, estimator("llada_mc+guided:scale=0.5"), world("absorbing"))
    assert guided.forwards == 2 * masked.forwards and guided.keys == 2 * masked.keys


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [0, 1e8, 1e9, 2e10, 1e12])
@pytest.mark.parametrize("length", [128, 1024, 4096])
def test_the_batch_fits_and_twice_as_many_would_not(free, length):
    shape = checkpoints.entry("GSAI-ML/LLaDA-8B-Base").shape
    network = shape.size(8_020_000_000)
    batch = fitting_batch(network, length, free, positions=32, value=2)
    row = row_bytes(network, length, 32, 2, False)
    assert math.log2(batch).is_integer() and 1 <= batch <= batch_size.MOST
    assert batch == 1 or batch * row <= free
    assert batch == batch_size.MOST or 2 * batch * row > batch_size.SPARE * free
    assert fitting_batch(network, length, free, positions=32, value=2, cached=True) <= batch


def test_a_plan_of_an_oracle_has_unknown_cost(tmp_path):
    found = plan("oracle:mdlm@nano", Request(suite="nano"), "cpu")
    assert found.unknown == len(found.lines) and "training" in found.skipped[0].what


def test_every_published_plan_has_a_known_cost():
    for name in PUBLISHED:
        found = plan(None, Request(suite=name), "h100")
        sized = all(each.shape for each in checkpoints.read().values() if name in each.suites)
        assert (found.unknown == 0 and found.hours > 0) == sized, name
    assert (ROOT / "evals" / "tasks" / "sizes.toml").is_file()
