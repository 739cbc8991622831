"""`--data`, `--tokenizer` and `--length` of a recipe's command line, from the data to samples and perplexity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.toy import overrides

from repro import load, sample
from repro.core import parts, registry
from repro.core.files import ROOT
from repro.data.byte_level import trained_tokenizer
from repro.evals import __main__ as evals
from repro.recipes.command import Own, command, select
from repro.recipes.scale import CORPORA, by_name

CHATS = str(ROOT / "evals" / "data" / "chats.jsonl")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def book(last: str = "end") -> str:
    text = "\n\n".join(f"Paragraph {i} of a book that has no {last}." for i in range(50))
    Path("book.txt").write_text(text, "utf-8")
    return "book.txt"


def toy(name: str) -> list[str]:
    """Options of the command line that make a second's training of a recipe at nano."""
    pins = [pin for pin in overrides(name) if not pin.startswith("data.")]
    return [word for pin in pins for word in ("--set", pin)]


EVERY = [(name, scale) for name in registry.RECIPES for scale in ("full", "nano")]


@pytest.mark.parametrize(("name", "scale"), [*EVERY, *(("duo", scale) for scale in CORPORA)])
def test_recipes_and_scales_take_own_data(name, scale):
    """The recipe keeps method and network of its scale, is named by its digest, and reads back."""
    plain = select(by_name(name), scale, [])
    for source in (book(), CHATS):
        made = select(by_name(name), scale, [], Own(source, None, None))
        assert made.suite == "own" and made.name == f"{plain.name}+{made.digest()[:6]}"
        assert parts.read(parts.canonical(made)) == made
        kept = ("process", "steps", "batch", "learning_rate", "precision", "optimizer", "ema")
        assert [getattr(made, pin) for pin in kept] == [getattr(plain, pin) for pin in kept]
        assert type(made.objective) is type(plain.objective) and type(made.backbone) is type(plain.backbone)
        if scale != "full":
            assert made.data.row_length() == plain.data.row_length()
            assert made.teacher is None or made.teacher.recipe.data == made.data


def test_another_text_is_another_recipe_and_the_same_text_the_same():
    one, again = (select(by_name("mdlm"), "nano", [], Own(book(), None, None)) for _ in range(2))
    assert one == again
    other = select(by_name("mdlm"), "nano", [], Own(book("start"), None, None))
    assert other.digest() != one.digest() and other.name != one.name
    longer = select(by_name("mdlm"), "nano", [], Own("book.txt", None, 96))
    assert longer.data.row_length() == 96 == longer.backbone.learned_positions


@pytest.mark.parametrize("name", ["mdlm", "duo", "ar"])
def test_a_run_on_own_text_samples_without_it_and_is_scored_with_it(name, capsys):
    train = ["--scale", "nano.text", "--data", book(), "--length", "24", "--out", "run", *toy(name)]
    assert command(by_name(name), train) == 0
    kept = json.loads(Path("run/recipe.json").read_text("utf-8"))
    assert kept["data"]["documents"]["path"] == "book.txt" and len(kept["data"]["documents"]["sha256"]) == 64
    assert evals.main(["--ckpt", "run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    (found,) = [row for row in rows if row["task"] == "heldout" and row["metric"] == "ppl_bound"]
    assert found["n"] > 2 and found["low"] < found["value"] < found["high"]
    Path("book.txt").unlink()
    (text,) = sample(load("run"), n=1)
    assert len(text) >= 24
    book("start")
    with pytest.raises(ValueError, match=r"cannot resume: run holds .*, not this .*; settings differ"):
        command(by_name(name), [*train, "--resume"])
    shutil.rmtree("runs/data")
    with pytest.raises(ValueError, match=r"book\.txt: expected sha256"):
        evals.main(["--ckpt", "run", "--suite", "own", "--out", "again", "--json"])


def test_a_run_with_a_trained_tokenizer_samples_without_its_data():
    train = ["--scale", "nano.text", "--data", book(), "--tokenizer", "bpe:270", "--length", "24"]
    assert command(by_name("mdlm"), [*train, "--out", "run", *toy("mdlm")]) == 0
    Path("book.txt").unlink()
    trained_tokenizer.cache_clear()
    assert len(sample(load("run"), n=1)) == 1


def test_chats_are_answered(capsys):
    train = ["--scale", "nano", "--data", CHATS, "--length", "160", "--out", "run", *toy("llada_sft")]
    assert command(by_name("llada_sft"), train) == 0
    (text,) = sample(load("run"), ["Why?"], gen_length=8)
    assert "[EOS]" not in text and len(text) <= 8


def test_flags_that_do_not_fit_say_so(tokenizer):
    mdlm = by_name("mdlm")
    for argv, message in [
        (["--tokenizer", "gpt2"], "--tokenizer goes with --data"),
        (["--length", "8"], "--length goes with --data"),
        (
            ["--data", book(), "--tokenizer", "gpt2", "--print"],
            "weights of answerdotai/ModernBERT-large belong",
        ),
        (["--data", book(), "--length", "0", "--scale", "nano", "--print"], "length"),
    ]:
        with pytest.raises(ValueError, match=message):
            command(mdlm, argv)
    free = ["--set", "backbone.weights=null", "--print"]
    assert command(mdlm, ["--data", "book.txt", "--tokenizer", str(tokenizer), *free]) == 0
