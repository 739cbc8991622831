"""The price of a published cell: that of the question that answers it, or what is missing if there is none."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from helpers.synthetic import question, record

from repro import verify as verify_command
from repro.evals.__main__ import main as evals
from repro.evals.published import verify
from repro.evals.published.cells import find, read
from repro.evals.published.matching import differing
from repro.evals.published.price import answering, price
from repro.hub import catalogue as checkpoints
from repro.recipes.scale import by_name
from repro.results import store as results
from repro.results.record import Question
from repro.training.cost import plan as training

CELLS = read()
FOUR = ["duo.t5.mdlm.1024", "remdm.t1_long.mdlm.1024", "bd3.t7.mdlm.1024", "duo.i16.mdlm.1024"]


# --- one cell -----------------------------------------------------------------------------------------------


def test_a_price_by_hand():
    """MDLM, 1,024 texts of 1,024 ids, 1,024 steps and a last forward: FLOPs of the DiT at 40 % of an H100's peak, and
    72 bytes per vocabulary id for each draw."""
    shape = checkpoints.entry("kuleshov-group/mdlm-owt").shape
    a_token = 2 * 12 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 12 * 768 * 1024 + 2 * 768 * 50258
    assert 2 * shape.size(0).blocks == 2 * 12 * (4 * 768**2 + 2 * 768 * 3072)
    draws = 72 * 1024 * 50258 / 3.35e12
    hours = 1024 * (1025 * 1024 * a_token / (989e12 * 0.4) + draws) / 3600
    found = price(find(CELLS, "duo.t5.mdlm.1024"))
    assert found.hours == pytest.approx(hours)
    assert found.run == "kuleshov-group/mdlm-owt: generation_quality, drawn_tail, 1024 steps"
    assert found.command == "python -m repro.evals cells duo.t5.mdlm.1024"


def test_uniform_noise_pays_a_posterior_at_every_forward():
    """Duo's network is MDLM's; 152 bytes per vocabulary id, position and forward take several times as long as the
    FLOPs."""
    duo, mdlm = (price(find(CELLS, f"duo.t5.{name}.1024")).hours for name in ("duo", "mdlm"))
    draws = 1024 * 1024 * 50258 * (152 * 1025 - 72) / 3.35e12
    assert duo - mdlm == pytest.approx(draws / 3600) and duo > 4 * mdlm


def test_the_price_is_that_of_the_plan(capsys):
    """`evals plan` and `verify` give the same hours for a question and its cell."""
    assert evals(["plan", "--suite", "fast_dllm", "--precision", "bfloat16", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["questions"]
    (line,) = [
        q
        for q in planned
        if (q["task"], q["preset"]) == ("gsm8k_256", "threshold_0.9, block 32, prefix cache")
    ]
    assert price(find(CELLS, "fast_dllm.t1.both.gsm8k_256")).hours == pytest.approx(line["hours"])


def test_what_is_to_be_typed_gives_a_record_that_answers():
    """A question with a command agrees with its cell in every setting; cells of one question share a run."""
    for cell in CELLS:
        if price(cell).command.startswith("python -m repro.evals"):
            found = answering(cell)
            assert found is not None and found.cell.task.gives(cell.metric)
            assert differing(cell, found.question, found.cell.preset) == {}
    pair = [find(CELLS, name) for name in ("duo.t5.duo.8", "duo.t5_entropy.duo.8")]
    assert price(pair[0]).run == price(pair[1]).run


def test_a_question_that_differs_is_no_command():
    """Negative control: the same cell at 1,000 steps or under another protocol has a price but no command."""
    cell = find(CELLS, "duo.t5.mdlm.1024")
    other = replace(cell, asked={**cell.asked, "plan.steps": 1000})
    assert price(other).command == "" and "plan.steps is" in price(other).missing
    assert price(other).hours is not None
    other = replace(cell, asked={**cell.asked, "protocol.retokenise": "ids"})
    differs = '(protocol.retokenise is "text", published "ids")'
    assert price(other).missing == f"an evaluation with the published settings {differs}"
    other = replace(cell, metric="mauve_of_another_kind")
    assert price(other).command == "" and "does not measure mauve_of_another_kind" in price(other).missing
    assert (
        price(find(CELLS, "remdm.t1_mauve.mdlm.128")).command
        and not price(replace(cell, metric="mauve")).command
    )


def test_what_cannot_be_asked_says_which_fact_is_missing():
    sedd = price(find(CELLS, "duo.t5.sedd_absorb.1024"))
    assert "Google Drive" in sedd.missing and sedd.command == ""
    assert sedd.hours == price(find(CELLS, "duo.t5.mdlm.1024")).hours  # priced like a network of its size
    for cell in CELLS:
        cost = price(cell)
        assert bool(cost.command) != bool(cost.missing), cell.name
        assert cost.hours is not None or cost.missing


def test_a_recipe_is_trained_only_where_no_released_checkpoint_could_answer():
    cell = replace(find(CELLS, "duo.t5.mdlm.1024"), of=("mdlm",))
    found = price(cell)
    assert found.trained and found.command == "accelerate launch -m repro.recipes.mdlm"
    assert found.hours == training(by_name("mdlm"))["gpu_hours"]
    other = replace(cell, of=("kuleshov-group/mdlm-owt", "mdlm"), metric="another")
    assert not price(other).trained and "does not measure another" in price(other).missing


def test_four_numbers_of_one_name_are_priced_and_shown(capsys):
    assert verify_command.main(["--cell", FOUR[0]]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("cost: about ")
    assert all(name in printed for name in FOUR)
    assert [find(CELLS, name).printed for name in FOUR] == [104.85, 51.3, 46.8, 40.7]


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["committed", "empty"])
def test_every_cell_gets_one_of_five_answers_and_most_a_price(folder, tmp_path):
    records = results.collect(results.RAW) if folder == "committed" else []
    began = time.process_time()
    found = verify.verify(CELLS, records)
    assert time.process_time() - began < 5
    assert len(found) == len(CELLS) and {each.answer for each in found} <= set(verify.ANSWERS)
    assert all(each.why for each in found)
    assert all((each.price is not None) == (each.answer == "not run") for each in found)
    prices = [each.price for each in found if each.price is not None]
    assert sum(each.hours is not None for each in prices) > 0.9 * len(prices)


def test_a_record_answers_every_cell_of_its_question():
    """One record of the priced question answers both cells that share it, and no other cell."""
    cell = find(CELLS, "duo.t5.mdlm.8")
    asked = answering(cell)
    places = ("task", "sampler", "plan", "limit", "protocol")
    made = record(
        Question.read(question("mdlm-owt").data() | {place: asked.question[place] for place in places}),
        {"gen_ppl": (830.0, 5.0, 1024), "entropy": (5.91, 0.001, 1024)},
        recipe="mdlm-owt",
        checkpoint="mdlm-owt",
        preset="drawn_tail",
    )
    found = verify.verify(CELLS, [made])
    answers = {each.cell.name: each.answer for each in found}
    assert answers[cell.name] == "pass" and answers["duo.t5_entropy.mdlm.8"] == "pass"
    assert price(cell).run not in {each.price.run for each in found if each.price is not None}
    assert answers["duo.t5.mdlm.16"] == "not run"  # another plan, not another protocol
    assert answers["remdm.t1_mauve.mdlm.128"] == "not run"
