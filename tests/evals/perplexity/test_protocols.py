"""Protocols of perplexity as data, their tokenizers, and the command line; what cannot be scored is one line."""

import json

import numpy as np
import pytest
import torch
from helpers import wordpiece
from helpers.corpora import ASK, Spelt, blind, task_of, written

from repro.core import parts, registry
from repro.data.byte_level import Gpt2
from repro.data.corpus import UNRESOLVED
from repro.data.documents import AllFiles, HubSplit
from repro.data.released import Released, store_tokenizer
from repro.data.text import Text
from repro.evals.__main__ import main
from repro.evals.perplexity import corpora
from repro.evals.perplexity.catalogue import FILE, read_catalogue
from repro.evals.perplexity.packings import PaddedRows, PieceRows, SpecialIds, WrappedRows
from repro.evals.perplexity.tokenizers import TOKENIZERS, check_ids, mismatch
from repro.evals.published.cells import read
from repro.evals.request import Request, prepare
from repro.evals.suites import read_suite
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# --- what cannot be scored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" \n\n \n", "own.txt is empty: it holds no document"),
        ("ab\n\nba", r"gives no row of 4 ids of text: 2 documents of 4 ids, the longest 2; give more text"),
    ],
)
def test_an_empty_corpus_raises_one_line(tmp_path, text, says):
    (tmp_path / "own.txt").write_text(text, "utf-8")
    task = task_of(AllFiles(path=str(tmp_path / "own.txt"), sha256=UNRESOLVED), PieceRows(), 4)
    with pytest.raises(ValueError, match=says):
        task.answer(blind(Absorbing()), ASK)


def test_documents_without_ids_raise(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"text": ""}\n{"text": ""}\n', "utf-8")
    raw = HubSplit(
        source=str(tmp_path / "own.jsonl"), config=None, revision=UNRESOLVED, split="train", column="text"
    )
    with pytest.raises(ValueError, match="its 2 documents contain no tokens"):
        task_of(raw, PieceRows(), 4).answer(blind(Absorbing()), ASK)


@pytest.mark.parametrize(
    ("packing", "given", "says"),
    [
        (WrappedRows(batch=0), SpecialIds(None, None, None), "no BOS and EOS"),
        (PaddedRows(), SpecialIds(1, 1, None), "no padding"),
        (PaddedRows(), SpecialIds(1, 1, 1), "one id"),
        (PaddedRows(), SpecialIds(1, 1, 2), None),
        (PieceRows(), SpecialIds(None, None, None), None),
    ],
)
def test_special_ids_that_a_packing_needs(packing, given, says):
    found = packing.missing(given)
    assert found is None if says is None else says in found


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        ({"passes": 3}, "passes=3"),
        ({"tokenizer": "gpt"}, "nearest is 'gpt2'"),
        ({"length": 2}, "length=2"),
        ({"packing.batch": -1}, "batch=-1"),
    ],
)
def test_wrong_pins_raise(pins, says):
    with pytest.raises(ValueError, match=says):
        parts.derive(corpora.protocol("owt.wrapped"), pins)


# --- tokenizers ---------------------------------------------------------------------------------------------


def test_a_tokenizer_is_recognised_by_size_and_ids(tmp_path):
    own = Text(documents=written(tmp_path, "abc"), units=Gpt2(), length=8)
    assert mismatch("gpt2", own.vocabulary()) is None
    check_ids("gpt2", own)
    assert "this model has 6" in str(mismatch("gpt2", Spelt(length=4).vocabulary()))
    assert TOKENIZERS["bert-base-uncased"].special == SpecialIds(101, 102, 0)

    class Other(Text):
        def encode(self, text):
            return [1, 2]

    other = Other(documents=own.documents, units=Gpt2(), length=8)
    with pytest.raises(
        ValueError, match=r"encodes 'Hello world' as \[1, 2\], that of gpt2 as \[15496, 995\]"
    ):
        check_ids("gpt2", other)


def test_a_released_tokenizer_neither_truncates_nor_pads(tmp_path):
    """The tokenizer's file truncates at 3 and pads to 5; both are switched off."""
    kept = store_tokenizer(wordpiece.save(tmp_path / "bert") / "tokenizer.json")
    special = {"mask": wordpiece.MASK, "bos": wordpiece.CLS, "eos": wordpiece.SEP, "pad": wordpiece.PAD}
    data = Released(tokenizer_sha256=kept, size=23, total=23, length=8, **special)
    texts = ["a b c d e f g", "a"]
    assert [len(ids) for ids in data.encode_each(texts)] == [7, 1] == [len(data.encode(t)) for t in texts]


# --- protocols as data --------------------------------------------------------------------------------------


def test_every_published_cell_of_perplexity_has_a_protocol():
    """The conditions of each cell in evals/published.toml fit exactly one protocol."""
    for cell in read():
        if cell.task != "perplexity" or cell.asked["protocol.corpus"] == "text8":
            continue  # text8 is in bits per character and cited second-hand; its protocol is not known
        asked = {place.removeprefix("protocol."): value for place, value in cell.asked.items()}
        fit = [
            name
            for name, task in corpora.protocols().items()
            if all(task.protocol().get(place) == value for place, value in asked.items())
        ]
        assert len(fit) == 1, (cell.name, asked, fit)


def test_protocols_are_read_as_tasks():
    found = corpora.protocols()
    assert list(found)[:3] == ["owt.wrapped", "lm1b.wrapped", "lm1b.padded"] and len(found) == 11
    assert parts.read(parts.canonical(found["zeroshot.ptb"])) == found["zeroshot.ptb"]
    assert found["zeroshot.ag_news"].documents == read_catalogue()[0]["ag_news"].part()
    with pytest.raises(ValueError, match=r"nearest is 'zeroshot\.ptb'"):
        corpora.protocol("zeroshot.ptp")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('corpora = ["owt"]', 'corpora = ["otw"]', "unknown corpus 'otw'; nearest is 'owt'"),
        ('rule = "ptb"', 'rule = "pbt"', "pbt"),
        ("script = true", "scrip = true", "scrip"),
        ('name = "lm1b.padded"', 'name = "lm1b.wrapped"', "two protocols are called 'lm1b.wrapped'"),
        ('name = "ptb"', 'name = "owt"', "two corpora have one name"),
        ("batch = 1000", "bathc = 1000", "bathc"),
    ],
)
def test_a_wrong_file_raises(tmp_path, old, new, says):
    text = FILE.read_text("utf-8")
    assert old in text
    (tmp_path / "corpora.toml").write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=says):
        corpora.protocols(tmp_path / "corpora.toml")


# --- from the command line ----------------------------------------------------------------------------------


def command(capsys, *more):
    """Standard output of `repro.evals` on the oracle language of nano."""
    assert main(["--ckpt", "oracle:ar@nano" if "--ar" in more else "oracle:mdlm@nano", *more]) == 0
    return capsys.readouterr().out


def test_any_text_is_scored_from_the_command_line(tmp_path, capsys, monkeypatch):
    """A text in the symbols of an oracle language: the exact denoiser's bound is -log p of its rows."""
    from repro.recipes.scale import by_name

    language = by_name("oracle:mdlm@nano").data
    rows = torch.from_numpy(language._draw(1 << 41, 40).ids.astype(np.int64))
    texts = [language.decode(row.tolist()) for row in rows]
    written(tmp_path, *texts, "0" if "0" in texts[0] else texts[0][:3])
    found = json.loads(command(capsys, "--corpus", str(tmp_path / "own.txt"), "--json"))["records"]
    (answer,) = (each["answer"]["metrics"] for each in found)
    exact = -language.hmm().log_likelihood(rows).sum().item() / rows.numel()
    assert abs(answer["nll_bound"]["value"] - exact) < 4 * answer["draws_error"]["value"]
    assert answer["documents_unscored"]["value"] == 1 and answer["documents"]["value"] == 41
    asked = found[0]["question"]
    assert asked["protocol"]["corpus"] == "own" and len(asked["task"]["documents"]["sha256"]) == 64
    table = command(capsys, "--corpus", str(tmp_path / "own.txt"))
    assert "bits_per_byte_bound" in table and f"{answer['nll_bound']['value']:.2f}"[:4] in table
    again = json.loads(command(capsys, "--corpus", str(tmp_path / "own.txt"), "--tasks", "pieces", "--json"))
    assert again["records"][0]["id"] == found[0]["id"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--corpus", "none.txt"], "no file or folder 'none.txt'"),
        (["--corpus", "soto"], "no corpus 'soto'; nearest is 'sotu'"),
        (["--corpus", "ptb:split=test"], "has fixed settings"),
        (["--corpus", "lab/x:colum=y"], "no setting 'colum'; nearest is 'column'"),
        (["--corpus", "lab/x:column="], "setting 'column' has no value"),
        (["--corpus", "OWN", "--tasks", "pices"], "nearest is 'pieces'"),
        (["--corpus", "OWN", "--tasks", "wrapped"], "cannot be run: the vocabulary has no BOS and EOS"),
        (["--corpus", "OWN:column=text"], "no columns or splits"),
        (
            ["--corpus", "OWN", "--tasks", "owt.wrapped"],
            "its rows have 1024 ids; this model reads at most 32",
        ),
        (["--tasks", "zeroshot.ptp"], "nearest is 'zeroshot.ptb'"),
    ],
)
def test_a_wrong_request_raises_one_line(tmp_path, more, says):
    written(tmp_path, "ab")
    more = [each.replace("OWN", str(tmp_path / "own.txt")) for each in more]
    with pytest.raises(ValueError, match=says):
        main(["--ckpt", "oracle:mdlm@nano", *more])


def test_an_unreachable_corpus_raises_one_line_with_its_replacement(tmp_path):
    ours = blind(LeftToRight())
    ours.recipe.suite = "released"
    request = Request(corpus="pubmed", out=tmp_path)
    with pytest.raises(ConnectionError, match=r"cannot fetch ccdv/pubmed-summarization .* unknown"):
        prepare(ours, request)
    with pytest.raises(ConnectionError, match=r"\(no network\); connect, or give a local copy$"):
        prepare(ours, Request(corpus="wikitext", out=tmp_path))


def test_a_loader_script_is_never_run(tmp_path, monkeypatch):
    def load(*args, **more):
        raise RuntimeError("Dataset scripts are no longer supported, but found x.py")

    monkeypatch.setattr("datasets.load_dataset", load)
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n', "utf-8")
    raw = HubSplit(
        source=str(tmp_path / "x.jsonl"), config=None, revision=UNRESOLVED, split="train", column="text"
    )
    with pytest.raises(ValueError, match="is a loader script, and code of a Hub repository is never run"):
        list(raw.texts("heldout"))


def test_suites_name_protocols(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.evals.suites.SUITES", tmp_path)
    (tmp_path / "s.toml").write_text('tasks = []\nprotocols = ["owt.wrapped", "zeroshot.ptb"]\n', "utf-8")
    assert [task.name for task in read_suite("s").tasks] == ["owt.wrapped", "zeroshot.ptb"]
    (tmp_path / "s.toml").write_text('tasks = []\nprotocols = ["otw.wrapped"]\n', "utf-8")
    with pytest.raises(ValueError, match=r"nearest is 'owt\.wrapped'"):
        read_suite("s")


# --- reproduction test --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(registry.PARTS, "spelt", "helpers.corpora:Spelt")
