"""The real language model of `make models` (SmolLM2-135M-Instruct) wherever weights are taken; `make test-real`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import repro
from repro.core.files import ADAPTERS, ROOT
from repro.hub import packaged

pytestmark = pytest.mark.real
NAME = "smollm2"


@pytest.fixture(scope="module")
def file():
    return packaged.file(NAME)


@pytest.fixture(scope="module")
def theirs(file):
    """Network and tokenizer as transformers itself reads the file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return network.eval(), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


@pytest.fixture(scope="module")
def ours(file):
    return repro.load(NAME)


def test_logits_and_ids_are_those_of_transformers(ours, theirs):
    from repro.models.attention import Mask

    network, tokenizer = theirs
    for text in (
        "The capital of France is",
        "Two plus 1234,\n\n  it's na\u00efve \u4f60\u597d <|im_end|>",
        "   x\t3.14\n",
    ):
        ids = tokenizer(text).input_ids
        assert ours.data.encode(text) == ids
        with torch.no_grad():
            mine = ours.denoiser.logits(ours.denoiser.encode(torch.tensor([ids]), t=None, attention=Mask()))
            assert (mine - network(torch.tensor([ids])).logits).abs().max() < 1e-4


def test_it_knows_a_capital(ours):
    assert "Paris" in repro.sample(ours, ["The capital of France is"], gen_length=8, sampler="greedy")[0]


def test_likelihoods_and_texts_are_those_of_lm_eval(ours, theirs, tmp_path):
    """lm-eval's own HFLM on the same network and tokenizer, on the committed local tasks: 2e-4 and equal texts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from repro.evals.lm_harness import Repro

    network, tokenizer = theirs
    asked = [
        json.loads(line) for line in (ROOT / "evals/data/chats.jsonl").read_text("utf-8").splitlines()[:6]
    ]
    pairs = [(each["messages"][0]["content"], " " + each["messages"][1]["content"][:60]) for each in asked]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    until = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    texts = [Instance("generate_until", {}, (pair[0], until), index) for index, pair in enumerate(pairs)]
    reference = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=1)
    wanted = reference.loglikelihood(requests), reference.generate_until(texts)
    mine = Repro(ckpt=NAME, sampler="greedy", batch_size=4)
    found = mine.loglikelihood(requests), mine.generate_until(texts)
    assert np.allclose([x for x, _ in found[0]], [x for x, _ in wanted[0]], atol=2e-4)
    assert [greedy for _, greedy in found[0]] == [greedy for _, greedy in wanted[0]]
    assert found[1] == wanted[1]


def test_released_adapters_write_english_by_block_diffusion():
    """`smollm2_block4`: words of the texts it was trained on, several of them different, in whole blocks of 4; of an
    address, and in answer to a question."""
    model = repro.load(ADAPTERS / "smollm2_block4")
    assert model.denoiser.required_block_size == 4
    known = {
        word
        for _, text in model.data.data.documents.texts("train")
        for word in re.findall(r"[a-z]+", text.lower())
    }
    for prompt, expected in (("The state of our economy", "we"), ("What is bread?\n", "bread")):
        text = repro.sample(model, [prompt], gen_length=48)[0]
        found = re.findall(r"[a-z]+", text.lower())
        assert len(found) > 25 and len(set(found)) > 12 and expected in found
        assert np.mean([word in known for word in found]) > 0.9
