"""Suggestions in error messages: a typo or a part of a name finds it, an unrelated word finds nothing."""

import re

import pytest

from repro.__main__ import COMMANDS
from repro.core import registry
from repro.core.errors import MOST, UnknownSymbol, counted, naming, nearest, similar
from repro.evals.likelihood.estimator_presets import ESTIMATORS
from repro.evals.suites import SUITES
from repro.samplers.presets import LOGITS_PROCESSORS, PRESETS

NAMES = {
    "parts": list(registry.PARTS),
    "recipes": list(registry.RECIPES),
    "layouts": list(registry.LAYOUTS),
    "presets": list(PRESETS),
    "processors": list(LOGITS_PROCESSORS),
    "estimators": list(ESTIMATORS),
    "suites": [path.stem for path in SUITES.glob("*.toml")],
    "commands": list(COMMANDS),
}
UNRELATED = re.findall(
    r"\w+",
    "banana computer telephone yesterday purple elephant kitchen garden mountain coffee potato guitar hospital"
    " library weather football pencil dragon castle winter summer market bridge music golden forest island camera"
    " student happy hello world foo baz qux whatever resnet transformer diffuser clip whisper attention humaneval mmlu",
)


@pytest.mark.parametrize("kind", NAMES)
def test_a_typo_finds_its_name_and_an_unrelated_word_none(kind):
    """Two letters swapped, one left out, one doubled, in the middle of every name that has five or more letters."""
    valid = NAMES[kind]
    for name in (each for each in valid if len(each) >= 5):
        i = len(name) // 2
        for typo in (
            name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :],
            name[:i] + name[i + 1 :],
            name[:i] + name[i:],
        ):
            assert typo in valid or similar(typo, valid) == name, typo
    assert {word: found for word in UNRELATED if (found := similar(word, valid))} == {}


@pytest.mark.parametrize(
    ("name", "valid", "found"),
    [
        ("low_confidense", "presets", "low_confidence"),
        ("low-confidence", "presets", "low_confidence"),
        ("Ancestral", "presets", "ancestral"),
        ("ancestral_sampler", "presets", "ancestral"),
        ("confidence", "presets", "low_confidence"),
        ("lowconf", "presets", "low_confidence"),
        ("threshold", "presets", "threshold_0.9"),
        ("mdml", "recipes", "mdlm"),
        ("duo-nelbo", "recipes", "duo_nelbo"),
        ("mldm_owt", "recipes", "mdlm_owt"),
        ("level", "estimators", "levels"),
        ("nano.sudok", "suites", "nano.sudoku"),
        ("smaple", "commands", "sample"),
        ("checkpoints", "commands", "checkpoint"),
        ("evaluation", "commands", None),
    ],
)
def test_what_people_type(name, valid, found):
    assert similar(name, NAMES[valid]) == found


def test_where_nothing_is_near_the_valid_names_are_listed():
    assert nearest("banana", ["b", "a"]) == "valid: a, b" and nearest("x", []) == "valid: none"
    assert nearest("banana", [f"{i:03}" for i in range(MOST + 2)]).endswith(" and 2 more")
    assert nearest("banana", map(str, range(1500))) == "none of 1,500 names is like it"
    assert nearest("--fh", ["--hf", "--out"]) == "nearest is '--hf'" and similar("", ["a"]) is None


def test_a_place_is_named_for_symbols_alone():
    with (
        pytest.raises(UnknownSymbol, match=r"^book\.txt, document 3: no 'z'$"),
        naming("book.txt, document 3"),
    ):
        raise UnknownSymbol("no 'z'")
    with pytest.raises(ValueError, match=r"^other$"), naming("book.txt"):
        raise ValueError("other")


def test_a_number_of_one_has_no_plural():
    assert [counted(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
