"""The texts that SmolLM2 wrote for the recipe `smollm2_block4`: what was asked, and what is stored."""

import json
from math import gcd

import pytest

from repro.recipes.smollm2_block4 import RECIPE
from scripts.written_texts import FILE, FORMS, requests, whole_sentences


def test_every_form_is_trained_on_and_held_out():
    asked = requests()
    assert len(set(asked)) == len(asked) == 2436
    assert {
        "What is bread?",
        "What are rivers?",
        "Why does chess matter to people?",
        "Tell a child about the sun.",
    } <= {*asked}
    documents = RECIPE.data.data.documents.second
    assert gcd(len(FORMS), documents.heldout_stride) == 1


def test_a_stored_text_is_a_request_and_an_answer():
    texts = [json.loads(line)["text"] for line in FILE.read_text("utf-8").splitlines()]
    order = {request: i for i, request in enumerate(requests())}
    places = [order[text.partition("\n")[0]] for text in texts]
    assert places == sorted(set(places)) and len(texts) == 2423
    assert all(text.partition("\n")[2] for text in texts)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two", "One."),
        ('He said: "Go!" Then', 'He said: "Go!"'),
        ("It is 3.5 km", ""),
        ("So?", "So?"),
        ("One. Two.\n\nThree", "One. Two."),
    ],
)
def test_an_answer_ends_with_a_whole_sentence(text, kept):
    assert whole_sentences(text) == kept
