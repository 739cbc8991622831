"""Released causal weights: the tokenizer decides where BOS stands, as in lm-eval's own adapter HFLM.

One folder's tokenizer puts BOS before every text, the other's does not. Log-likelihoods, rolling sums, texts, and
texts of prompts that are truncated equal HFLM's at batch sizes 1 and 4.
"""

from __future__ import annotations

import json

import pytest
from helpers import lm_worlds
from lm_eval.api.instance import Instance

from repro import load, sample
from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.lm.adapter import Adapter, Generation
from repro.processes.left_to_right import LeftToRight
from repro.samplers.presets import preset

PAIRS = [
    *[(f"{a} {b}", f" {c}") for a, b, c in zip(*(lm_worlds.words(k, 6) for k in (1, 2, 3)), strict=True)],
    *[("trailing  ", "spaces"), ("", "no context"), ("ab", "c"), ("abcdefghij" * 4, " fits")],
]
LONG = [". ".join(lm_worlds.words(k, 40)) for k in (7, 8)] + ["ab"]


@pytest.fixture(scope="module", params=["text", "empty"])
def folder(request, tmp_path_factory):
    """A tiny Llama in transformers' layout whose tokenizer adds BOS ("text"), or adds none ("empty")."""
    made = lm_worlds.save(lm_worlds.model(LeftToRight()), tmp_path_factory.mktemp(request.param))
    if request.param == "empty":
        path = made / "tokenizer.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "post_processor": None}), "utf-8")
    return request.param, made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="module")
def pair(folder, runs):
    """Our adapter for the folder, and HFLM's."""
    from lm_eval.models.huggingface import HFLM

    rule, path = folder
    model = load(path)
    assert model.data.vocabulary().bos_rule == rule
    return model, HFLM(pretrained=str(path), device="cpu", dtype="float32", max_length=48, batch_size=4)


def adapter(model, batch: int, overlong: str = "error") -> Adapter:
    generation = Generation(preset("greedy"), None, 1.0, "suite")
    return Adapter(model, estimator("next_token"), generation, overlong, 0, batch)


def instances(kind: str, arguments) -> list[Instance]:
    return [Instance(kind, {}, each, 0, ("t", i, 1)) for i, each in enumerate(arguments)]


@pytest.mark.parametrize("batch", [1, 4])
def test_likelihoods_and_texts_are_those_of_lm_eval(pair, batch):
    model, theirs = pair
    theirs.batch_size_per_gpu = batch
    mine = adapter(model, batch)
    pairs = instances("loglikelihood", PAIRS)
    ours, other = mine.loglikelihood(pairs), theirs.loglikelihood(pairs, disable_tqdm=True)
    assert [a for a, _ in ours] == pytest.approx([a for a, _ in other], abs=2e-4)
    assert [g for _, g in ours] == [g for _, g in other]
    texts = instances("loglikelihood_rolling", [(text,) for text in LONG])
    other = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    assert mine.loglikelihood_rolling(texts) == pytest.approx(other, rel=1e-5)
    arguments = {"until": ["z"], "max_gen_toks": 8, "do_sample": False}
    wanted = instances(
        "generate_until", [(q, arguments) for q, _ in PAIRS if 0 < len(q) < 39 and q == q.rstrip()]
    )
    assert mine.generate_until(wanted) == theirs.generate_until(wanted, disable_tqdm=True)


def test_truncated_prompts_are_those_of_lm_eval(pair):
    """Longer prompts lose their left, the BOS of the tokenizer included."""
    model, theirs = pair
    arguments = {"until": ["z"], "max_gen_toks": 8, "do_sample": False}
    wanted = instances("generate_until", [("abcdefghij" * 7 + tail, arguments) for tail in ("", "k", " end")])
    ours = adapter(model, 1, "truncate").generate_until(wanted)
    theirs.batch_size_per_gpu = 1
    assert ours == theirs.generate_until(wanted, disable_tqdm=True)


def test_sample_continues_as_the_evaluations_do(pair):
    """`sample` reads the same prompt ids and ends where the evaluations end."""
    model, _ = pair
    (text,) = adapter(model, 1).generate_until(
        instances("generate_until", [("hello", {"until": [], "max_gen_toks": 12, "do_sample": False})])
    )
    assert sample(model, ["hello"], gen_length=12, sampler="greedy") == [text]
