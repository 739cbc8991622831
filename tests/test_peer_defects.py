"""Defects found by reading other suites (D1 to D14), each a test: ours must not have it.

A defect that another file holds already is named here with that test, which must exist; what none held is tested below.

| defect | where | what must hold |
|---|---|---|
| D1 | Duo: losses called with arguments that half the algorithms do not take | every recipe trains through one call |
| D2 | Duo: default sampler refused by MDLM | suites name samplers that fit their process, and say so before a run |
| D3 | Duo, UNI-D2: over-long requests score 0.0; raw weights; means for sums | never; averages; sums |
| D4 | Duo: text after the first EOS counts; remainder batches dropped | by its name only; never |
| D5 | Duo: a script trains another algorithm than it is called after | a recipe is of the kind that it names |
| D6 | LLaDA: one process crashes; guidance needs a mask; EOS flag dead at T > 0 | each works |
| D7 | Fast-dLLM: likelihoods crash; prompts in tokens/s; template by folder name | none of them |
| D8 | dllm: guidance ignored in likelihoods; optimizer not saved; factor past its quota; `until` only | none of them |
| D9 | Tdllm: masks drawn once; loss taken for a bound; dense tensors; run misnamed; secrets needed | by its name |
| D10 | FlowLM: no resume in place | bitwise |
| D11 | BD3-LM: samples of low entropy redrawn; two nucleus values in one table | all scored; p is in the question |
| D12 | dInfer: totals of the last sample of a batch; undefined names | sums over rows; linted |
| D13 | Open-dLLM: top_p swallowed; the first request's settings for the batch | refused or recorded; each its own |
| D14 | ReMDM: scripts have eta of T >= L only | both sets, each at its steps |
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import math
import tomllib

import numpy as np
import pytest
import torch
from helpers import lm_worlds
from helpers.toy import toy

from repro import load
from repro.core import parts, registry
from repro.core.files import ROOT
from repro.evals.lm.adapter import Adapter, Generation
from repro.evals.lm.lm_tasks import drawn
from repro.evals.suites import SUITES, read_suite
from repro.evals.text_quality.gen_ppl import EveryToken, judged
from repro.results.tables.matched import line_of
from repro.samplers.decode import decode
from repro.samplers.plan import Plan, check
from repro.samplers.presets import preset

HERE = ROOT / "tests"


def held(*places):
    """Each `FILE::TEST` is a test of the suite that runs by default; it holds the defect."""
    for place in places:
        file, name = place.split("::")
        (path,) = HERE.rglob(file)
        tree = ast.parse(path.read_text("utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert found, f"{place} is gone; move its defect into this file"
        marks = " ".join(ast.unparse(each) for each in found[0].decorator_list)
        assert "skip" not in marks and "slow" not in marks, f"{place} does not run by default"


def test_a_test_that_is_gone_is_noticed():
    with pytest.raises(AssertionError, match="is gone"):
        held("test_gen_ppl.py::test_that_nobody_wrote")


def test_d1_every_recipe_trains_through_one_call():
    """One loop calls every objective, and 20 steps of every recipe of the registry are trained by default."""
    tree = ast.parse((HERE / "training" / "test_goldens.py").read_text("utf-8"))
    (test,) = (n for n in tree.body if getattr(n, "name", "") == "test_the_first_steps_are_the_golden_ones")
    assert "registry.RECIPES" in ast.unparse(test.decorator_list[0])
    held("test_goldens.py::test_the_first_steps_are_the_golden_ones")


def test_d2_suites_name_samplers_that_fit():
    """What a suite puts is never refused by its own process at run time: `check` passes where a preset says it fits."""
    known = {"absorbing": toy("mdlm").process, "uniform": toy("duo").process}
    programmes, checked = {"flagship", "silver"}, 0  # those are rows of other suites
    for suite in sorted({path.stem for path in SUITES.glob("*.toml")} - programmes):
        read = read_suite(suite)
        lengths = {t.name: t.length for t in read.tasks if t.generates and "length" in parts.leaves(t)}
        for way in (each for each in read.plans if each.task in lengths):
            length = lengths[way.task]
            for name, steps in itertools.product(way.presets, way.steps or [None]):
                made = Plan(gen_length=length, block_length=way.block_length or length, steps=steps)
                for noise in preset(name).capabilities.processes & known.keys():
                    check(preset(name), known[noise], made)
                    checked += 1
    assert checked > 100
    held("test_suites.py::test_every_suite_of_an_entry_is_there_and_lays_out")


def test_d3_over_long_requests_averages_and_sums():
    held(
        "test_lm_harness.py::test_too_long_requests_never_score",
        "test_lm_harness.py::test_scores_are_sums_and_depend_on_neither_order_nor_batch",
        "test_loop.py::test_the_run_folder",
    )


def test_d4_text_after_an_eos_and_the_last_batch():
    held(
        "test_gen_ppl.py::test_what_duos_rule_does_with_ends",
        "test_gen_ppl.py::test_no_sample_is_dropped_and_long_ones_weigh_more",
    )


def test_d5_a_recipe_is_what_it_is_called():
    held("test_parts.py::test_recipes_are_of_the_kind_that_they_name")


def test_d6_lladas_three():
    """One process without a launcher writes texts; guidance and flags are held elsewhere."""
    mine = Adapter(
        lm_worlds.diffusion(), None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8
    )
    request = _request("ab c", max_gen_toks=4)
    assert len(mine.generate_until([request])[0]) <= 4
    held(
        "test_logits_processors.py::test_guidance_is_lladas", "test_logits_processors.py::test_eos_comes_last"
    )


def _request(context, doc=0, **wishes):
    from lm_eval.api.instance import Instance

    return Instance("generate_until", {}, (context, wishes), 0, ("t", doc, 1))


def test_d7_prompts_are_no_tokens_and_names_are_no_settings():
    """Tokens counted are those written, whatever the prompt; a folder called instruct is asked as any other."""
    model = lm_worlds.diffusion()
    counts = []
    for context in ("a", "abcdefgh ijklm nop"):
        mine = Adapter(model, None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8)
        mine.generate_until([_request(context, max_gen_toks=6)])
        counts.append(drawn(mine, {}, []).tokens)
    assert counts == [6, 6]
    named = dataclasses.replace(model, digest="GSAI-ML/LLaDA-8B-Instruct")
    named.recipe.name = "LLaDA-8B-Instruct"
    other = Adapter(named, None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8)
    assert other.generate_until([_request("ab c", max_gen_toks=6)]) == mine.generate_until(
        [_request("ab c", max_gen_toks=6)]
    )
    with pytest.raises(ValueError, match="no chat template"):
        other.apply_chat_template([{"role": "user", "content": "ab"}])
    held("test_lm_harness.py::test_scores_are_sums_and_depend_on_neither_order_nor_batch")


@pytest.mark.parametrize("length", [5, 8])
def test_d8_factor_stays_within_its_block(length):
    """Certain everywhere: the rule commits all that is open, never more, and leaves nothing masked."""
    from repro.processes.absorbing import Absorbing

    model = load("oracle:mdlm@nano")
    plan = Plan(gen_length=length, block_length=length, steps=None)
    found = decode(
        model.denoiser, Absorbing(), preset("factor_1:factor=1000.0"), plan, [[], []], seed=0, names=[0, 1]
    )
    assert found.ids.shape[0] == 2 and (found.ids[:, -length:] < model.data.vocabulary().size).all()
    assert found.cost.writes.tolist() == [length, length]


def test_d8_guidance_state_and_stops():
    held(
        "test_lm_harness.py::test_guidance_reaches_likelihoods_and_greedy_checks",
        "test_likelihood.py::test_guided_scores_are_the_literal_mixture",
        "test_loop.py::test_five_steps_and_five_more_are_ten",
        "test_lm_harness.py::test_every_request_keeps_its_own_wishes",
        "test_lm_harness.py::test_conflicts_are_recorded_or_refused",
    )


def test_d9_what_the_seed_does_stands_under_its_name():
    """Static masks and the symmetric loss are parts of their own, the latter no bound; nothing asks for a token of a
    service."""
    from scripts.reproduce import CELLS

    for name in ("duo", "duo_script"):
        assert registry.recipe(name).score == "improper score"
    for cell in CELLS:
        assert toy(cell.partition("@")[0]).name.partition("@")[0].partition("+")[0] == cell.partition("@")[0]
    for secret in ("HF_TOKEN", "WANDB_API_KEY"):
        users = [p for p in (ROOT / "repro").rglob("*.py") if secret in p.read_text("utf-8")]
        assert users == []
    held(
        "test_objectives.py::test_static_masks_belong_to_the_example_and_fresh_ones_to_the_step",
        "test_objectives.py::test_only_cross_entropy_is_a_proper_score",
        "test_fused_head.py::test_float32_is_the_dense_loss",
    )


def test_d10_a_run_goes_on_where_it_stopped():
    held(
        "test_loop.py::test_five_steps_and_five_more_are_ten",
        "test_loop.py::test_resume_is_of_this_recipe_seed_and_folder",
    )


class Sure:
    """A judge that finds every id equally likely."""

    name, digest, eos = "sure", "0" * 64, None

    def logp(self, windows):
        return [np.full(len(window), -math.log(8)) for window in windows]


def test_d11_samples_of_no_entropy_are_scored_as_they_are():
    """A constant sample is one of n, in gen_ppl as in entropy; nothing is drawn again."""
    from repro.evals.text_quality.quality import by_themselves

    rows = [[1, 2, 3, 4], [5, 5, 5, 5], [6, 7, 6, 7]]
    found = judged(rows, Sure(), EveryToken(length=4))
    assert found.tokens.tolist() == [4, 4, 4] and found.perplexity()[0] == pytest.approx(8)
    mean, _, count = by_themselves(rows, [])["entropy"]
    assert count == 3 and mean == pytest.approx((math.log(4) + 0 + math.log(2)) / 3)


def test_d11_nucleus_is_in_the_question_and_in_the_name():
    """Two values of p are two questions, two rows and two lines of a figure."""
    one, other = (preset(f"ancestral+nucleus:p={p}") for p in (0.9, 0.99))
    assert parts.digest(one) != parts.digest(other) != parts.digest(preset("ancestral"))
    assert line_of("ancestral+nucleus:p=0.9") != line_of("ancestral+nucleus:p=0.99")


def test_d12_totals_are_sums_over_every_row():
    """Tokens and forwards of rows that ended at different steps, added up by hand."""
    model = load("oracle:mdlm@nano")
    plan = Plan(gen_length=8, block_length=8, steps=None)
    together = decode(
        model.denoiser, model.recipe.process, preset("threshold_0.9"), plan, [[]] * 5, seed=0, names=range(5)
    )
    alone = [
        decode(model.denoiser, model.recipe.process, preset("threshold_0.9"), plan, [[]], seed=0, names=[i])
        for i in range(5)
    ]
    for name in ("forwards", "writes", "token_forwards"):
        each = torch.cat([getattr(found.cost, name) for found in alone])
        assert torch.equal(getattr(together.cost, name), each)
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]["select"]
    assert "F" in lint, "names that are nowhere defined are found by pyflakes"


def test_d13_no_wish_is_swallowed():
    held(
        "test_lm_harness.py::test_conflicts_are_recorded_or_refused",
        "test_lm_harness.py::test_model_args_are_read_strictly",
        "test_lm_harness.py::test_every_request_keeps_its_own_wishes",
    )


def test_d14_remasking_has_the_eta_of_its_steps():
    """Paper E.2.4: cap .04, loop .055, rescale .045 below 1,024 steps; .008, .02, .015 from there on."""
    below = {"remdm_cap": 0.04, "remdm_loop": 0.055, "remdm_rescale": 0.045}
    above = {"remdm_cap": 0.008, "remdm_loop": 0.02, "remdm_rescale": 0.015}
    found = []
    for way in read_suite("remdm_owt").plans:
        for name in way.presets:
            for family in below:
                if name.startswith(family):
                    eta = json.loads(parts.to_json(preset(name)))["rule"]["eta"]
                    found += [(family, steps, eta) for steps in way.steps]
    assert found == [(f, s, (below if s < 1024 else above)[f]) for f, s, _ in found] and len(found) == 18
