"""engine-check passes a right server and finds each injected fault; the statistics behind it."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
from helpers.fake_engine import FakeEngine, toy

from repro.evals.__main__ import main
from repro.evals.engines.check import (
    PROMPTS,
    Plan,
    Prompt,
    answers,
    compare,
    greedy_rule,
    read_prompts,
    tokens,
)
from repro.evals.engines.comparisons import walk
from repro.evals.engines.draws import chi_squared, drawn_log_probability, law_of_draws
from repro.evals.engines.engine import Completion, Token
from repro.evals.engines.findings import Report
from repro.evals.engines.http import Limits
from repro.evals.engines.openai import connect

PLAN = Plan(tuple(Prompt(text) for text in PROMPTS[:4]), length=6, margin=0.55, draws=40)
FOUND = {
    "wrong_template": {"template"},
    "other_precision": {"tokens at T = 0", "log-probabilities", "template"},
    "batch_dependent": {"batch of B"},
    "order_dependent": {"order of B"},
    "wrong_stop": {"stop rule of B"},
    "ignored_seed": {"law of draws of B"},
}
"""Fault -> the checks of which at least one must fail; where there is one, no other may."""


@pytest.fixture(scope="module")
def right():
    with FakeEngine() as fake:
        yield connect(fake.name, None, Limits(), {})


def checked(right, plan=PLAN, **faults):
    with FakeEngine(**faults) as fake:
        return compare(right, connect(fake.name, None, Limits(), {}), plan)


def test_a_right_server_agrees_with_another(right):
    told = []
    with FakeEngine() as fake:
        report = compare(right, connect(fake.name, None, Limits(), {}), PLAN, told.append)
    assert told == report.findings, "each one is told"
    assert list(report.lines())[2:-1] == [each.line() for each in told]
    assert report.agrees, list(report.lines())
    assert report.verdict == "PASS: A and B agree in all 14 checks"
    assert all(
        "equal numbers" in f.says for f in report.findings if f.name.startswith(("tokens", "order", "batch"))
    )


def test_a_server_agrees_with_our_own_decoding(right):
    report = compare(right, toy(), PLAN)
    assert report.agrees, list(report.lines())


@pytest.mark.parametrize("fault", FOUND)
def test_each_fault_is_found(right, fault):
    report = checked(right, fault=fault)
    failed, wanted = set(report.failed), FOUND[fault]
    assert failed & wanted and report.verdict.startswith("FAIL: "), list(report.lines())
    if fault in ("wrong_template", "ignored_seed", "wrong_stop"):
        assert failed == wanted, list(report.lines())


def test_a_difference_in_precision_is_told_from_another_text(right):
    said = {f.name: f for f in checked(right, fault="other_precision").findings}["log-probabilities"]
    assert "the size of bfloat16 or float16 rounding" in said.says and said.data["max"] > PLAN.tolerance
    wide = checked(right, fault="other_precision", plan=replace(PLAN, tolerance=0.2))
    assert {"log-probabilities", "tokens at T = 0", "template"}.isdisjoint(wide.failed), list(wide.lines())
    other = checked(right, engine=toy(deviation=0.5))
    said = {f.name: f for f in other.findings}["log-probabilities"]
    assert said.outcome == "fail" and "too large for rounding" in said.says


def test_too_few_draws_are_no_test(right):
    found = law_of_draws("A", right, [PROMPTS[0]], 2, 0.005)
    assert found.outcome == "not checked" and "2 draws are too few to test the law" in found.says


def test_a_server_without_log_probabilities_is_compared_by_its_texts(right):
    report = checked(right, logprobs=False, echo=False)
    assert report.agrees and "not checked: greedy rule of B, log-probabilities" in report.verdict, list(
        report.lines()
    )


# --- command ------------------------------------------------------------------------------------------------
def test_the_command_prints_a_verdict_and_its_exit_code(tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": text, "answer": "a"} for text in PROMPTS[:6]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    few = ["--prompts", str(path), "--length", "6", "--draws", "0", "--margin", "0.4"]
    with FakeEngine() as right, FakeEngine(fault="wrong_stop") as wrong:
        assert main(["engine-check", right.name, right.name, *few]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[-1] == "PASS: A and B agree in all 12 checks" and said[0] == f"A: toy at {right.url}"
        assert len(said) == 15 and all(line.startswith("pass         ") for line in said[2:-1])
        assert main(["engine-check", right.name, wrong.name, "--json", *few]) == 1
        found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "FAIL: stop rule of B" and not found["agrees"]
    assert found["plan"] == {"prompts": 6, "length": 6, "tolerance": 0.005, "margin": 0.4, "draws": 0}


def test_prompts_are_read_strictly(tmp_path):
    path = tmp_path / "prompts.jsonl"
    for text, said in (
        ('{"prompt": "a"}\n', "holds 1 prompts"),
        ('{"prompt": "a"}\n{"prompt": "b", "answer": "c"}\n', "some prompts have an answer"),
        ('{"prompt": "a"}\n{"text": "b"}\n', ":2: .*give lines"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(ValueError, match=said):
            read_prompts(path)


def test_several_models_are_named_by_the_options_of_the_command():
    with FakeEngine(models=("small", "large")) as many, FakeEngine() as one:
        with pytest.raises(ValueError, match=r"name one with --model-a \(small, large\)"):
            main(["engine-check", many.name, one.name])
        with pytest.raises(ValueError, match=r"name one with --model-b \(small, large\)"):
            main(["engine-check", one.name, many.name])


def test_a_diffusion_model_is_no_engine():
    with FakeEngine() as fake, pytest.raises(ValueError, match="is a diffusion model"):
        main(["engine-check", fake.name, "oracle:mdlm@nano"])


# --- comparisons --------------------------------------------------------------------------------------------
def completion(*tokens, finish="length"):
    made = tuple(Token(text, 0.0, {text: 0.0, "other": -gap}) for text, gap in tokens)
    return Completion("".join(text for text, _ in tokens), finish, made)


def test_texts_part_where_they_were_undecided():
    a, b = completion(("x", 3.0), ("y", 0.01)), completion(("x", 3.0), ("z", 0.2))
    assert not walk(a, b, 0.006).failed and walk(a, b, 0.004).failed
    found = walk(a, b, 0.004)
    assert found.same == 1 and found.divergence.says() == "token 1 after 'x': 'y' and 'z' (gap 0.01 nats)"


def test_a_token_that_is_not_the_likeliest_is_found():
    """llama.cpp penalises repeated tokens by default."""
    right, wrong = completion(("x", 3.0)), completion(("x", 3.0), ("y", -0.5))
    assert greedy_rule("A", ["a"], [right], PLAN).outcome == "pass"
    found = greedy_rule("A", ["a"], [wrong], PLAN)
    assert (
        found.outcome == "fail"
        and "token 1 after 'a' is 'y', 0.5 nats less likely than 'other'" in found.says
    )


def test_an_end_is_a_token():
    a, b = completion(("x", 3.0), finish="stop"), completion(("x", 3.0), ("y", 2.0))
    assert walk(a, b, 0.1).divergence.a == "<end of text>" and walk(a, b, 0.1).failed
    assert walk(a, completion(("x", 3.0)), 0.1).divergence is None, "the other was cut by its length"
    listed = Completion("x", "stop", (*completion(("x", 3.0)).tokens, Token("</s>", 0.0, {})))
    assert walk(a, listed, 0.1).divergence is None, "vLLM lists the end token"


@pytest.mark.parametrize("finish", ["length", "end_turn", "content_filter", None])
def test_a_text_that_ends_early_differs_whatever_reason_is_given(finish):
    """A server that writes fewer tokens than asked, or has reasons of its own, has not written the other's text."""
    a, b = completion(("x", 3.0), ("y", 2.0)), completion(("x", 3.0), finish=finish)
    assert walk(a, b, 0.1).divergence.b == "<end of text>" and walk(b, a, 0.1).failed
    half = Completion("x", "length", (*b.tokens, Token("\ufffd", 0.0, {})))
    assert walk(half, completion(("x", 3.0)), 0.1).divergence is None, (
        "half a character is left out at the limit"
    )


def test_an_empty_text_ends_at_its_first_token():
    a, b = Completion("", "stop"), completion(("x", 0.01))
    assert not walk(a, b, 0.006).failed and walk(a, b, 0.004).failed


def test_parts_of_characters_may_be_written_in_any_way():
    text, rest = "\U0001f642 a.", ("\u0020a", ".", "</s>")
    ways = [("\ufffd",) * 3, ("\ufffd", "", ""), ("bytes:\\xf0", "bytes:\\x9f\\x99", "bytes:\\x82")]
    made = [
        Completion(text, "stop", tuple(Token(each, -1.0, {}) for each in (*way, *rest[: 2 + n % 2])))
        for n, way in enumerate(ways)
    ]
    for other in made:
        assert walk(made[0], other, 0.1) == walk(other, made[0], 0.1)
        assert walk(made[0], other, 0.1).same == 5 and walk(made[0], other, 0.1).divergence is None
    wrong = replace(made[0], tokens=(*made[0].tokens[:4], Token(".", -3.0, {})))
    assert max(walk(made[0], wrong, 0.1).differences) == 2.0, "tokens behind such a character count"


def test_minus_infinity_differs_from_a_number():
    a = completion(("x", 3.0))
    b = replace(a, tokens=(replace(a.tokens[0], logprob=-math.inf),))
    found = tokens([a], [b], PLAN)
    assert found.outcome == "fail" and "|difference| at most inf" in found.says
    assert tokens([b], [b], PLAN).outcome == "pass"
    data = Report("A", "B", {}, [found]).data()
    assert data["findings"][0]["data"]["max"] is None, "JSON has no infinity"


def test_empty_texts_show_nothing():
    """As of a reasoning model whose reasoning takes all tokens, so that `content` is null."""
    empty = [Completion("", "length", refused=True)] * len(PLAN.prompts)
    found = [tokens(empty, empty, PLAN), answers(empty, empty, PLAN)]
    assert {each.outcome for each in found} == {"not checked"}
    report = Report("A", "B", {}, found)
    assert not report.agrees and report.verdict.startswith(
        "FAIL: no check could be made; not checked: tokens"
    )


def test_draws_of_another_law_have_a_small_p():
    stated = {"a": -0.5108256, "b": -1.2039728}  # .6, .3, and .1 unlisted
    assert chi_squared(stated, Counter({"a": 62, "b": 28, "c": 10}), 100)[0] > 0.5
    p, (worst, expected) = chi_squared(stated, Counter({"a": 66, "b": 34}), 100)
    assert p == pytest.approx(0.003823, abs=1e-6)  # exp(-chi2 / 2), chi2 .6 + .5333 + 10
    assert worst == "" and expected == pytest.approx(10, abs=1e-4)
    assert chi_squared(stated, Counter({"a": 8}), 8)[0] is None, "one class: nothing is tested"


def test_the_mean_log_probability_of_draws():
    """Of the law .6, .3, .1 (the last counts as the second) the mean is .6 log .6 + .4 log .3, the variance .1153."""
    top = {"a": -0.5108256, "b": -1.2039728}

    def drawn(*counts, ended=0):
        return drawn_log_probability(
            [Token(text, 0.0, top) for text, count in zip("abc", counts, strict=True) for _ in range(count)],
            ended,
        )

    p, mean, expected = drawn(60, 30, 10)
    assert p > 0.9999 and mean == pytest.approx(expected) == pytest.approx(
        0.6 * -0.5108256 + 0.4 * -1.2039728
    )
    assert drawn(70, 20, 10)[0] == pytest.approx(0.0412, abs=1e-4)  # 10 of 100, 2.04 of sqrt(.24 * 100)
    assert drawn(70, 20, 10, ended=20)[0] == 1, "the ends of texts that are not listed may explain it"
    assert drawn(30, 10, 0)[0] == 1, "too few"
