"""Regression tests for defects D1 to D14 of other suites, which this suite must not have.

The defects are described in docs/method.md#peer-defects. Where another file has the test already, it is named here and
must exist and run by default; the other tests are below.
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
from repro.core import parts
from repro.core.files import ROOT
from repro.evals.lm.adapter import Adapter, Generation
from repro.evals.lm.lm_tasks import generation_answer
from repro.evals.suites import SUITES, read_suite
from repro.evals.text_quality.gen_ppl import EveryToken, score_texts
from repro.recipes.scale import by_name
from repro.results.tables.matched import line_of
from repro.samplers.decode import decode
from repro.samplers.plan import Plan, check
from repro.samplers.presets import preset

HERE = ROOT / "tests"


def tested_in(*places):
    """Assert that each `FILE::TEST` exists and runs by default."""
    for place in places:
        file, name = place.split("::")
        (path,) = HERE.rglob(file)
        tree = ast.parse(path.read_text("utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert found, f"{place} does not exist; name the test that replaces it"
        marks = " ".join(ast.unparse(each) for each in found[0].decorator_list)
        assert "skip" not in marks and "slow" not in marks, f"{place} does not run by default"


def test_a_missing_test_is_noticed():
    with pytest.raises(AssertionError, match="does not exist"):
        tested_in("test_gen_ppl.py::test_that_does_not_exist")


def test_d1_every_recipe_trains_through_one_call():
    """The golden tests train 20 steps of every recipe of the registry, all through one training loop."""
    tree = ast.parse((HERE / "training" / "test_goldens.py").read_text("utf-8"))
    (test,) = (n for n in tree.body if getattr(n, "name", "") == "test_the_first_steps_are_the_golden_ones")
    assert "registry.RECIPES" in ast.unparse(test.decorator_list[0])
    tested_in("test_goldens.py::test_the_first_steps_are_the_golden_ones")


def test_d2_suites_name_samplers_that_fit():
    """`check` accepts every plan of a suite under each process that the preset declares as supported."""
    known = {"absorbing": toy("mdlm").process, "uniform": toy("duo").process}
    groups, checked = {"flagship", "silver"}, 0  # these list questions of other suites
    for suite in sorted({path.stem for path in SUITES.glob("*.toml")} - groups):
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
    tested_in("test_suites.py::test_every_suite_of_a_checkpoint_exists_and_lays_out")


def test_d3_over_long_requests_averages_and_sums():
    tested_in(
        "test_lm_harness.py::test_too_long_requests_never_score",
        "test_lm_harness.py::test_scores_are_sums_and_depend_on_neither_order_nor_batch",
        "test_loop.py::test_the_run_folder",
    )


def test_d4_text_after_an_eos_and_the_last_batch():
    tested_in(
        "test_gen_ppl.py::test_duos_rule_and_eos",
        "test_gen_ppl.py::test_no_sample_is_dropped_and_long_ones_weigh_more",
    )


def test_d5_a_recipe_is_what_it_is_called():
    tested_in("test_parts.py::test_recipes_have_the_kinds_of_their_sources")


def test_d6_single_process_guidance_and_eos_flags():
    """A single process without a launcher generates texts; guidance and EOS flags are tested elsewhere."""
    mine = Adapter(
        lm_worlds.diffusion(), None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8
    )
    request = _request("ab c", max_gen_toks=4)
    assert len(mine.generate_until([request])[0]) <= 4
    tested_in(
        "test_logits_processors.py::test_guidance_is_lladas", "test_logits_processors.py::test_eos_comes_last"
    )


def _request(context, doc=0, **arguments):
    from lm_eval.api.instance import Instance

    return Instance("generate_until", {}, (context, arguments), 0, ("t", doc, 1))


def test_d7_prompts_do_not_count_and_names_set_nothing():
    """Only generated tokens are counted; a model named "Instruct" is treated like any other."""
    model = lm_worlds.diffusion()
    counts = []
    for context in ("a", "abcdefgh ijklm nop"):
        mine = Adapter(model, None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8)
        mine.generate_until([_request(context, max_gen_toks=6)])
        counts.append(generation_answer(mine, {}, []).tokens)
    assert counts == [6, 6]
    named = dataclasses.replace(model, digest="GSAI-ML/LLaDA-8B-Instruct")
    named.recipe.name = "LLaDA-8B-Instruct"
    other = Adapter(named, None, Generation(preset("random"), None, 1.0, "suite"), "error", 0, 8)
    assert other.generate_until([_request("ab c", max_gen_toks=6)]) == mine.generate_until(
        [_request("ab c", max_gen_toks=6)]
    )
    with pytest.raises(ValueError, match="no chat template"):
        other.apply_chat_template([{"role": "user", "content": "ab"}])
    tested_in("test_lm_harness.py::test_scores_are_sums_and_depend_on_neither_order_nor_batch")


@pytest.mark.parametrize("length", [5, 8])
def test_d8_factor_stays_within_its_block(length):
    """With a very large factor the rule commits all masked positions of the block in one step, and no others."""
    from repro.processes.absorbing import Absorbing

    model = load("oracle:mdlm@nano")
    plan = Plan(gen_length=length, block_length=length, steps=None)
    found = decode(
        model.denoiser, Absorbing(), preset("factor_1:factor=1000.0"), plan, [[], []], seed=0, names=[0, 1]
    )
    assert found.ids.shape[0] == 2 and (found.ids[:, -length:] < model.data.vocabulary().size).all()
    assert found.cost.writes.tolist() == [length, length]


def test_d8_guidance_state_and_stops():
    tested_in(
        "test_lm_harness.py::test_guidance_reaches_likelihoods_and_greedy_checks",
        "test_likelihood.py::test_guided_scores_mix_conditional_and_unconditional_logits",
        "test_loop.py::test_five_steps_and_five_more_are_ten",
        "test_lm_harness.py::test_every_request_keeps_its_own_arguments",
        "test_lm_harness.py::test_conflicts_are_recorded_or_refused",
    )


def test_d9_the_reference_script_s_choices_are_named():
    """Static masks and the symmetric loss (not a bound) are parts of their own; no code needs a service's API token."""
    from scripts.reproduce import CELLS

    for name in ("duo", "duo_script"):
        assert by_name(name).score == "improper score"
    for cell in CELLS:
        assert toy(cell.partition("@")[0]).name.partition("@")[0].partition("+")[0] == cell.partition("@")[0]
    for secret in ("HF_TOKEN", "WANDB_API_KEY"):
        users = [p for p in (ROOT / "repro").rglob("*.py") if secret in p.read_text("utf-8")]
        assert users == []
    tested_in(
        "test_objectives.py::test_static_masks_depend_on_the_example_and_fresh_ones_on_the_step",
        "test_objectives.py::test_only_cross_entropy_is_a_proper_score",
        "test_fused_head.py::test_float32_is_the_dense_loss",
    )


def test_d10_a_run_goes_on_where_it_stopped():
    tested_in(
        "test_loop.py::test_five_steps_and_five_more_are_ten",
        "test_loop.py::test_resume_needs_the_same_recipe_seed_and_folder",
    )


class Uniform:
    """A judge under which every id is equally likely."""

    name, digest, eos = "uniform", "0" * 64, None

    def logp(self, windows):
        return [np.full(len(window), -math.log(8)) for window in windows]


def test_d11_samples_without_entropy_are_scored():
    """A constant sample counts in gen_ppl and in entropy; nothing is drawn again."""
    from repro.evals.text_quality.quality import diversity_metrics

    rows = [[1, 2, 3, 4], [5, 5, 5, 5], [6, 7, 6, 7]]
    found = score_texts(rows, Uniform(), EveryToken(length=4))
    assert found.tokens.tolist() == [4, 4, 4] and found.perplexity()[0] == pytest.approx(8)
    mean, _, count = diversity_metrics(rows, [])["entropy"]
    assert count == 3 and mean == pytest.approx((math.log(4) + 0 + math.log(2)) / 3)


def test_d11_the_nucleus_is_part_of_the_question_and_of_the_label():
    """Two values of p give two questions and two lines of a figure."""
    one, other = (preset(f"ancestral+nucleus:p={p}") for p in (0.9, 0.99))
    assert parts.digest(one) != parts.digest(other) != parts.digest(preset("ancestral"))
    assert line_of("ancestral+nucleus:p=0.9") != line_of("ancestral+nucleus:p=0.99")


def test_d12_totals_are_sums_over_every_row():
    """Costs of rows decoded together, which end at different steps, equal those of each row alone."""
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
    assert "F" in lint, "pyflakes finds undefined names"


def test_d13_no_argument_is_ignored():
    tested_in(
        "test_lm_harness.py::test_conflicts_are_recorded_or_refused",
        "test_lm_tasks.py::test_model_args_are_read_strictly",
        "test_lm_harness.py::test_every_request_keeps_its_own_arguments",
    )


def test_d14_remasking_has_the_eta_of_its_steps():
    """arXiv 2503.00307 App. E.2.4: cap .04, loop .055, rescale .045 for T < 1,024; .008, .02, .015 for T >= 1,024."""
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
