"""Tokens of a reply are found in its text, whatever the server writes of places, BOS and parts of characters."""

from __future__ import annotations

import pytest

from repro.evals.engines.alignment import Unaligned, covering, of_continuation, spans

B = "\ufffd"


@pytest.mark.parametrize(
    ("text", "tokens", "found"),
    [
        ("a cat", ["a", " cat"], [(0, 1), (1, 5)]),
        ("a cat", ["<s>", "a", " cat"], [(0, 0), (0, 1), (1, 5)]),
        ("a cat", ["[gMASK]", "<sop>", "a", " cat"], [(0, 0), (0, 0), (0, 1), (1, 5)]),
        (
            "a cat is",
            ["<s>", "a", "cat", "is"],
            [(0, 0), (0, 1), (1, 5), (5, 8)],
        ),  # SentencePiece, decoded alone
        ("a cat", [" a", "\u2581cat"], [(0, 1), (1, 5)]),
        ("caf\u00e9 is", ["caf", B, B, " is"], [(0, 3), (3, 4), (3, 4), (4, 7)]),
        ("\U0001f642 is", [B, B, B, B, "is"], [*[(0, 1)] * 4, (1, 4)]),
        ("a \U0001f642\U0001f642", ["a", " " + B, B, B + B, B], [(0, 1), *[(1, 4)] * 4]),
        ("caf\u00e9", ["caf", "bytes:\\xc3", "bytes:\\xa9"], [(0, 3), (3, 4), (3, 4)]),
        ("<|im_start|>user", ["", "user"], [(0, 12), (12, 16)]),
        ("user", ["", "user"], [(0, 0), (0, 4)]),
        ("caf\u00e9s", ["caf", "", "\u00e9", "s"], [(0, 3), (3, 3), (3, 4), (4, 5)]),
    ],
)
def test_places_of_tokens(text, tokens, found):
    assert spans(text, tokens) == found


@pytest.mark.parametrize(
    ("text", "tokens"), [("a cat", ["a", " dog"]), ("a cat", ["a"]), ("a", ["a", "</s>"]), ("ab", [B, "c"])]
)
def test_tokens_of_another_text_are_refused(text, tokens):
    with pytest.raises(Unaligned):
        spans(text, tokens)


def test_a_token_on_both_sides_is_one_of_the_continuation():
    assert of_continuation("a cat", ["<s>", "a", " cat"], 1) == [2]
    assert of_continuation("a cat", ["a c", "at"], 2) == [0, 1]
    assert of_continuation("a cat", ["<s>", "a", " cat"], 0) == [1, 2]


def test_parts_of_characters_are_told_apart_by_their_bytes():
    """One token a byte, as where a tokenizer falls back to bytes."""
    assert of_continuation("\u00e9\u00e9", [B, B, B, B], 1) == [2, 3]
    assert of_continuation("\u00e9\u00e9", ["bytes:\\xc3", "bytes:\\xa9\\xc3", "bytes:\\xa9"], 1) == [1, 2]
    with pytest.raises(Unaligned, match="which bytes of '\u00e9\u00e9' each of them stands for"):
        of_continuation("\u00e9\u00e9", [B, B, B], 1)


@pytest.mark.parametrize(
    ("text", "tokens", "count"),
    [
        ("a cat", ["a", " cat", "</s>"], 2),
        ("a cat", ["<s>", "a", " cat", "</s>", "\n"], 3),
        ("\U0001f642 a.", [B, B, B, " a", ".", "</s>"], 5),
        ("\U0001f642 a.", [B, "", "", " a", "."], 5),
        ("\U0001f642 a.", ["bytes:\\xf0\\x9f", "bytes:\\x99\\x82", " a", ".", "</s>"], 4),
        ("a \U0001f642", ["a", " ", B, B, "</s>"], 4),
        ("a c", ["a", " cat", " is"], 2),
        ("", ["</s>"], 0),
        ("a cat", ["a", " dog", "</s>"], 3),
    ],
)
def test_tokens_behind_a_text_are_told_from_those_that_write_it(text, tokens, count):
    assert covering(text, tokens) == count
