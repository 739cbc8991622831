"""The functions for notebooks: each file of examples/python runs; an argument is obeyed, or refused in a sentence."""

from __future__ import annotations

import dataclasses
import itertools
import re
import runpy

import numpy as np
import pytest
from helpers.toy import toy

from repro import Results, load, sample, score, stream
from repro.core.files import ROOT
from repro.recipes.scale import by_name
from repro.training.loop import train

EXAMPLES = sorted((ROOT / "examples" / "python").glob("*.py"))
ORACLE = "oracle:mdlm@nano"


@pytest.fixture(autouse=True)
def here(tmp_path, tmp_path_factory, monkeypatch):
    """Prepared data are shared, everything else is written to a folder of the test."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model():
    return load(ORACLE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_runs(path, capsys, tmp_path):
    assert len(EXAMPLES) >= 13
    runpy.run_path(str(path))
    out, err = capsys.readouterr()
    made = list(tmp_path.glob("*.html")) + list(tmp_path.glob("*.tex"))
    assert out.strip() or err.strip() or made


# --- sample -----------------------------------------------------------------------------------------------------


def test_a_string_is_one_prompt_and_n_is_obeyed(model):
    one = sample(model, "AB", steps=8)
    assert len(one) == 1 and one[0] == sample(model, ["AB"], steps=8)[0]
    several = sample(model, ["AB", "CD"], n=3, sampler="ancestral", steps=8)
    assert len(several) == 6 and len(set(several[:3])) == 3, "each continuation has its own draws"
    assert several[:3] == sample(model, "AB", n=3, sampler="ancestral", steps=8)
    assert sample(model, n=2, steps=8) == sample(ORACLE, n=2, steps=8), "a name is a model"
    counted = sample(model, n=np.int64(2), steps=np.int32(8), seed=np.uint64(3))
    assert counted == sample(model, n=2, steps=8, seed=3), "numbers of numpy are numbers"


def test_a_network_of_blocks_fills_its_room_with_whole_blocks(model):
    """By default, after a prompt of any length; before, most lengths needed a `gen_length`."""
    recipe = by_name("bd3_owt_4@nano")
    blocks = dataclasses.replace(model, recipe=recipe, denoiser=recipe.network(0).eval())
    for prompt, length in (("A" * 19, 12), ("A" * 20, 12), ("A" * 28, 4)):
        assert len(list(stream(blocks, prompt, sampler="first_hitting"))[-1].ids) == length
    with pytest.raises(ValueError, match="a prompt of 29 ids leaves no room for a block of 4 tokens"):
        sample(blocks, "A" * 29)


def test_a_trained_folder_is_a_model(tmp_path):
    folder = train(toy("mdlm"), seed=0, out=tmp_path / "run", stop=1, resume=False)
    assert (
        sample(folder, n=1, steps=4)
        == sample(str(folder), n=1, steps=4)
        == sample(load(folder), n=1, steps=4)
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: sample(m, 5), "sample: prompts=5 is no str | Sequence[str] | None"),
        (lambda m: sample(m, [5]), "sample: prompts=[5] is no"),
        (lambda m: sample(m, n="4"), "sample: n='4' is no int"),
        (lambda m: sample(7), "sample: model=7 is no Model | str | Path"),
        (lambda m: sample(m, n=0), "n=0, prompts=None: nothing to generate; give n of 1 or more"),
        (lambda m: sample("oracle:mdml@nano"), "no recipe 'mdml'; nearest is 'mdlm'"),
        (lambda m: stream(m, ["AB"]), "stream: prompt=['AB'] is no str | None"),
        (lambda m: stream(m, sampler="greedy"), "for left_to_right models; this one is absorbing"),
        (lambda m: stream(m, sampler="random", steps=33), "steps 33 exceed gen_length 32"),
        (lambda m: score(m, samplers=1), "score: samplers=1 is no str | Sequence[str] | None"),
        (lambda m: score([]), "score: ckpt is empty; give a checkpoint"),
        (lambda m: score(m, tasks="lawn"), "no task 'lawn' in suite 'nano'; nearest is 'law'"),
        (lambda m: Results.read("absent"), "no folder absent"),
        (lambda m: load(3), "load: ckpt=3 is no str | Path"),
        (
            lambda m: load(ORACLE, precision="bf16"),
            "load: precision='bf16' is unknown; valid: bfloat16, float32",
        ),
        (lambda m: sample(m, block_length=0), "block_length"),
        (lambda m: sample(m, seed=-1), "seed=-1 is no seed; give 0 to"),
        (lambda m: stream(m, seed=2**64), "seed=18446744073709551616 is no seed"),
        (lambda m: score(m, seeds=[]), "seeds is empty; give one or more"),
        (lambda m: score(m, samplers=[]), "samplers is empty"),
        (lambda m: score(m, seeds=-1), "seed=-1 is no seed"),
        (lambda m: score(m, tokens_per_step=0), "tokens_per_step=0 is no rate; give a positive number"),
        (lambda m: score(m, tokens_per_step=[1, -1]), "tokens_per_step=-1 is no rate"),
        (lambda m: score(m, tokens_per_step=float("nan")), "tokens_per_step=nan is no rate"),
        (lambda m: score(m, tokens_per_step="2"), "tokens_per_step='2' is no rate"),
        (lambda m: score(m, shots="2"), "score: shots='2' is no int | None"),
        (lambda m: score(m, template="chatml"), "score: template='chatml' is no None | 'none' | 'chat'"),
        (
            lambda m: load("ar@nano.lexicon"),
            "ar@nano.lexicon-s0; train it (python -m repro.recipes.ar --scale nano",
        ),
        (lambda m: load(ORACLE, device="gpu"), "no device 'gpu'; a GPU is 'cuda'"),
    ],
)
def test_a_wrong_argument_is_one_sentence(call, message, model):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: sample(m, prompt="A"), "sample: no argument 'prompt'; nearest is 'prompts'"),
        (
            lambda m: sample(m, temperature=1.0),
            "no argument 'temperature'; write sampler='random:temperature=0.7'",
        ),
        (lambda m: stream(m, max_new_tokens=3), "stream: no argument 'max_new_tokens'; write gen_length"),
        (lambda m: stream(m, num_samples=3), "stream: no argument 'num_samples'; valid: "),
        (lambda m: score(m, sampler="random"), "score: no argument 'sampler'; nearest is 'samplers'"),
        (lambda m: sample(), "sample: missing a required argument: 'model'"),
    ],
)
def test_an_unknown_argument_names_the_nearest(call, message, model):
    with pytest.raises(TypeError, match=re.escape(message)):
        call(model)


def test_the_functions_are_found_by_completion():
    import repro

    assert {"Results", "certify", "load", "sample", "score", "stream"} <= set(dir(repro))


# --- stream -----------------------------------------------------------------------------------------------------


def test_a_stream_ends_in_the_text_of_sample(model):
    steps = list(stream(model, "AB", sampler="ancestral", steps=8, seed=5))
    assert steps[-1].text == sample(model, "AB", sampler="ancestral", steps=8, seed=5)[0]
    for before, after in itertools.pairwise(steps):
        assert after.number > before.number and after.forwards >= before.forwards
        changed = [i for i in range(30) if before.ids[i] != after.ids[i]]
        assert set(changed) <= set(after.new)
    assert all(len(step.ids) == len(step.pieces) == len(step.confidence) == 30 for step in steps)
    assert all(0 <= p <= 1 for p in steps[-1].confidence), "every position is decided at the end"
    assert steps[0].text.count("·") == sum(p is None for p in steps[0].confidence) > 0


def test_a_stream_shows_what_fills_a_row_after_its_end(model):
    """As for released weights, which have stop ids: no position is left open, and filled ones have no confidence."""
    stops = model.data.encode("DEFG")
    ending = dataclasses.replace(model, stop_ids=tuple(stops))
    options = {"sampler": "random:temperature=1.0", "gen_length": 16, "block_length": 8, "seed": 0}
    steps = list(stream(ending, **options))
    (text,) = sample(ending, **options)
    last = steps[-1]
    assert len(text) < 7, "the row ends within its first block, when later positions were written already"
    stop = model.data.decode([last.ids[len(text)]])
    assert last.text == text + stop * (16 - len(text)) and stop in "DEFG"
    assert all((p is None) == (place > len(text)) for place, p in enumerate(last.confidence))
    written = {place for step in steps for place in step.new}
    assert any(place > len(text) for place in written) and max(written) < 8
    assert last._repr_html_().count("after the end") == 15 - len(text)


def test_revisions_are_told():
    """A corrector writes positions again."""
    steps = list(stream("oracle:duo@nano", sampler="corrector", steps=16, seed=2))
    assert not steps[0].revised and steps[-1].revised
    assert all(set(a.revised) <= set(b.revised) for a, b in itertools.pairwise(steps))


def test_html_needs_no_script_and_escapes_text(model):
    made = stream(model, sampler="ancestral", steps=4)
    page = made._repr_html_()
    assert page.count("<div") == len(made.steps) + 1 == page.count("</div>")
    assert "<script" not in page and "http" not in page
    made.steps[-1].pieces[0] = "<b>&"
    assert "&lt;b&gt;&amp;" in made.steps[-1]._repr_html_()
    assert made.text == made.steps[-1].text


def test_a_stream_is_read_again_from_its_first_step(model):
    made = stream(model, sampler="ancestral", steps=4)
    first = next(made)
    assert repr(made).startswith("Stream of a decode, 1 step read")
    assert list(made) == list(made) == made.steps and made.steps[0] is first and len(made.steps) == 4


# --- score ------------------------------------------------------------------------------------------------------


def test_results_are_records_with_tables(model, tmp_path):
    made = score(model, ["ancestral", "random"], "law", [8, "all"], samples=20, out=tmp_path / "out")
    assert len(made) == 4 and made[0] is made.records[0] and len(made[1:]) == 3
    frame = made.frame()
    assert set(frame.preset) == {"ancestral", "random"} and set(frame.checkpoint) == {ORACLE}
    known = frame[frame.low.notna()]  # samples that are all one text have no interval
    assert (
        len(known) > 0
        and (known.low <= known.value).all()
        and len(frame) == sum(len(r.answer.metrics) for r in made)
    )
    text = made.table(width=100)
    assert "ancestral" in text and "excess" in text and max(map(len, text.splitlines())) <= 100
    latex = made.to_latex()
    assert latex.count(r"\\") == 5 and r"\toprule" in latex and r"$\pm$" in latex
    assert "checkpoint" not in latex and "tokens per step" in latex, "only names that differ are columns"
    assert "<table" in made._repr_html_() and repr(made).startswith("Results of 4 evaluations, 0 skipped")
    assert list(Results.read(tmp_path / "out")) == list(made), "stored in the order in which they were asked"


def test_one_table_of_several_checkpoints(tmp_path):
    made = score([ORACLE, "oracle:duo@nano"], ["ancestral", "corrector"], "law", 8, samples=10, out=tmp_path)
    names = {(r.labels.checkpoint, r.labels.preset) for r in made}
    assert names == {
        (ORACLE, "ancestral"),
        ("oracle:duo@nano", "ancestral"),
        ("oracle:duo@nano", "corrector"),
    }
    assert [(skip.what, skip.reason) for skip in made.skipped] == [
        ("corrector", "for uniform models, this one is absorbing")
    ]
    text = made.table()
    assert f"{ORACLE}, oracle:duo@nano, suite nano" in text and "skipped corrector: for uniform" in text
    assert "checkpoint" in text and "checkpoint" in made.to_latex()
    with pytest.raises(ValueError, match="preset 'corrector' does not fit this model of absorbing noise"):
        score(ORACLE, "corrector", "law", 8, samples=10, out=tmp_path)


def test_progress_is_shown_when_asked(model, tmp_path, capsys):
    score(model, "ancestral", "law", 8, samples=10, out=tmp_path / "a")
    assert capsys.readouterr().err == ""
    score(model, "ancestral", "law", 8, samples=10, out=tmp_path / "b", progress=True)
    assert capsys.readouterr().err.startswith("law, ancestral, 8 tokens per step: ")
