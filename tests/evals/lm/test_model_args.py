"""The arguments of `--model repro` in lm-eval's command line: decoding settings, and names that other models use."""

from __future__ import annotations

import re

import pytest
from lm_eval.api.instance import Instance

from repro.evals.lm_harness import Repro
from repro.samplers.plan import Plan, PrefixCache, ServedPlan

ORACLE = "ckpt=oracle:mdlm@nano"


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (f"{ORACLE},pretrained=gpt2", "no model_arg 'pretrained'; this model takes ckpt=DIR"),
        (f"{ORACLE},dtype=bfloat16", "this model takes precision=float32, bfloat16 or int8"),
        (f"{ORACLE},remasking=random", "this model takes sampler=low_confidence or sampler=random"),
        (f"{ORACLE},steps=8", "steps=8 is for generated text, which needs a sampler; add sampler=PRESET"),
        (
            f"{ORACLE},cache=dual",
            "cache=dual is for generated text, which needs a sampler; add sampler=PRESET",
        ),
        (f"{ORACLE},sampler=random,steps=8,tokens_per_step=2", "give one of them"),
        (f"{ORACLE},sampler=random,block_length=many", "block_length='many' is no positive number"),
        (f"{ORACLE},sampler=random,cache=dul", "no cache 'dul'; nearest is 'dual'"),
        (f"{ORACLE},precision=bfloat16", "an oracle has no weights; leave out --precision bfloat16"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Repro.create_from_arg_string(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, plan",
    [
        ("", Plan(gen_length=16, block_length=16, steps=16)),
        ("tokens_per_step=4", Plan(gen_length=16, block_length=16, steps=4)),
        ("steps=8,block_length=8", Plan(gen_length=16, block_length=8, steps=8)),
        ("tokens_per_step=2,block_length=5", Plan(gen_length=20, block_length=5, steps=8)),
        (
            "block_length=8,cache=prefix:refresh=2",
            ServedPlan(gen_length=16, block_length=8, steps=16, cache=PrefixCache(refresh=2), stop=()),
        ),
    ],
)
def test_decoding_settings_make_the_plan(arguments, plan):
    model = Repro.create_from_arg_string(f"{ORACLE},sampler=random,{arguments}".rstrip(","))
    assert model._plan(16) == plan


def test_the_settings_decode():
    """Eight steps of two ids: 8 forwards a row, and another text than with one id a step."""
    request = Instance("generate_until", {}, ("AB", {"until": [], "max_gen_toks": 16}), 0, ("t", 0, 1))
    texts, forwards = [], []
    for extra in ("steps=8,block_length=8", "steps=16"):
        model = Repro.create_from_arg_string(f"{ORACLE},sampler=random:temperature=1.0,{extra}")
        texts += model.generate_until([request])
        forwards.append(int(model.forwards[0][0]))
    assert forwards == [8, 16] and texts[0] != texts[1] and all(len(text) == 16 for text in texts)
