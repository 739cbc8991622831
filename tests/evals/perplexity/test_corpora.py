"""Rows as in the papers: padded, or wrapped between BOS and EOS; prepared in bounded memory; detokenisers."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import wordpiece
from helpers.wordpiece import CLS, MASK, PAD, SEP

from repro.core import rng
from repro.core.parts import canonical, derive, read
from repro.data import corpus
from repro.data.corpus import UNRESOLVED, Rows, Vocabulary, prepared
from repro.data.detokenise import Detokenised, detokenise
from repro.data.documents import AllFiles, Files, Hub
from repro.data.packed import Packed, PackedPlain, PackedWhole, Padded
from repro.data.pretrained import Pretrained
from repro.data.text import Characters, Text
from repro.models.denoiser import ForwardWrapper
from repro.models.dit import Dit
from repro.objectives.bound import attention_of, heldout_bound, reading
from repro.objectives.elbo import Elbo
from repro.objectives.masked_ce import Fresh, MaskedCE
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, GlobalBatch
from repro.processes.absorbing import Absorbing
from repro.processes.prediction import Role
from repro.processes.uniform import Uniform


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    folder = wordpiece.save(tmp_path_factory.mktemp("bert"))
    return Pretrained(
        source=str(folder), revision=UNRESOLVED, size=23, begin=CLS, end=SEP, pad=PAD, mask=MASK
    )


def lines(path, texts, column="text", heldout=1) -> Hub:
    """A dataset of one text a row, of which the last `heldout` are held out, as OpenWebText is split."""
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts), "utf-8")
    return Hub(
        source=str(path),
        config=None,
        revision=UNRESOLVED,
        split=f"train[:-{heldout}]",
        heldout_split=f"train[-{heldout}:]",
        column=column,
    )


# --- units ------------------------------------------------------------------------------------------


def test_a_wordpiece_tokenizer_neither_truncates_pads_nor_adds(units, tmp_path):
    data = Padded(documents=lines(tmp_path / "d.jsonl", ["a", "b"]), units=units, length=8)
    ids = data.encode("Bad CAGE. bad")
    assert [wordpiece.WORDS[i] for i in ids] == ["bad", "c", "##a", "##g", "##e", ".", "bad"]
    assert data.decode([CLS, *ids[:2], SEP, PAD, MASK]) == "[BOS]bad c[EOS][PAD][MASK]"
    assert read(canonical(data)) == data
    assert UNRESOLVED not in str(canonical(derive(data, data.resolve())))


@pytest.mark.parametrize(
    ("pins", "says"), [({"begin": 23}, "begin=23 is not an id; give 0 to 22"), ({"size": 22}, "size=22")]
)
def test_ids_that_the_tokenizer_does_not_have_raise(units, pins, says):
    with pytest.raises(ValueError, match=says):
        next(derive(units, pins).encode(["a"], AllFiles(path="none", sha256=UNRESOLVED)))


# --- rows -------------------------------------------------------------------------------------------


def test_padded_rows_by_hand(units, tmp_path):
    """BOS, at most L - 2 ids, EOS, padding; text and EOS are scored, a long text is truncated before its EOS."""
    texts = ["bad a", "", "a b c d e f g", "h"]
    data = Padded(documents=lines(tmp_path / "d.jsonl", texts), units=units, length=6)
    assert data.vocabulary() == Vocabulary(
        size=23, total=23, mask=MASK, bos=CLS, eos=SEP, pad=None, filler=PAD
    )
    rows = data.build()["train"]
    a = units.size - 18
    assert rows.ids.tolist() == [
        [CLS, 21, a, SEP, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD],
        [CLS, a, a + 1, a + 2, a + 3, SEP],
    ]
    assert rows.candidates.astype(int).tolist() == [
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1],
    ]
    assert data.clusters(rows.example).tolist() == [0, 1, 2]
    assert data.build()["heldout"].ids.tolist() == [[CLS, a + 7, SEP, PAD, PAD, PAD]]
    with pytest.raises(ValueError, match="padded rows need a tokenizer with its own BOS, EOS and padding"):
        derive(data, {"units": {"part": "characters", "version": 1}})


def test_wrapped_rows_stand_between_cls_and_sep(units, tmp_path):
    documents = lines(tmp_path / "d.jsonl", ["a b c", "d e", "f g h a", "bad"])
    data = Packed(documents=documents, units=units, length=5, batch=2)
    text = {split: [data.decode(row) for row in rows.ids] for split, rows in data.build().items()}
    assert text["train"] == [
        *(
            "[BOS]a b c[EOS]",
            "[BOS][EOS]d e[EOS]",
        ),  # the EOS of the second document is dropped with the incomplete row
        "[BOS]f g h[EOS]",
    ]
    plain = PackedPlain(documents=documents, units=units, length=5, batch=0)
    assert [plain.decode(row) for row in plain.build()["train"].ids] == [
        *("[BOS]a b c[EOS]", "[BOS]d e f[EOS]", "[BOS]g h a[EOS]"),
    ]
    assert plain.vocabulary() == data.vocabulary() and data.vocabulary().filler is None
    whole = PackedWhole(documents=documents, units=units, length=5, batch=0)
    ((first, second), where) = whole.build()["train"].ids, whole.build()["train"].candidates
    assert [whole.decode(row) for row in (first, second)] == ["a b c[EOS]d", "e[EOS]f g h"]
    assert where.tolist() == 2 * [[False, True, True, True, True]] and whole.vocabulary() == data.vocabulary()
    rows = data.build()["train"]
    assert data.clusters(rows.example).tolist() == [0, 0, 2] and len(set(rows.example.tolist())) == 3


@pytest.mark.parametrize("documents_a_chunk", [1, 2, 5, 256])
def test_rows_do_not_depend_on_the_chunks(tmp_path, monkeypatch, documents_a_chunk):
    texts = ["the cat and the hat " * n for n in (1, 3, 2, 5, 1, 4, 2)]
    documents = lines(tmp_path / "d.jsonl", texts)
    made = [
        Text(documents=documents, units=Characters(), length=7),
        Packed(documents=documents, units=Characters(), length=9, batch=0),
        PackedPlain(documents=documents, units=Characters(), length=9, batch=3),
    ]
    before = [data.build()["train"] for data in made]
    monkeypatch.setattr("repro.data.rows.CHUNK", documents_a_chunk)
    for data, rows in zip(made, before, strict=True):
        after = data.build()["train"]
        assert all((getattr(after, f) == getattr(rows, f)).all() for f in ("ids", "candidates", "example"))


# --- writing ----------------------------------------------------------------------------------------


def test_files_equal_those_of_numpy_for_any_chunks(tmp_path):
    rows = np.arange(24, dtype=np.uint16).reshape(8, 3)
    np.save(tmp_path / "whole.npy", rows)
    file = corpus._Growing(tmp_path / "grown.npy", np.dtype(np.uint16), (3,))
    for chunk in (rows[:1], rows[1:1], rows[1:]):
        file.append(chunk.astype(np.int64))
    file.close()
    assert (tmp_path / "grown.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_corpus_is_prepared_in_bounded_memory(tmp_path):
    """8 MB of tokens in chunks of 4 MB as int64; all rows at once would take at least 64 MB."""
    documents = lines(tmp_path / "d.jsonl", ["abcd" * 500] * 4000, heldout=10)
    data = Text(documents=documents, units=Characters(), length=50)
    next(data.stream("train"))  # the alphabet is read, the dataset cached
    tracemalloc.start()
    made = prepared(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.train.ids.nbytes > 7.9e6 and peak < 2e7, peak


def test_an_empty_split_raises(tmp_path):
    documents = lines(tmp_path / "d.jsonl", ["abcdefg", "ab"])
    with pytest.raises(ValueError, match="split 'heldout' has no rows"):
        prepared(Text(documents=documents, units=Characters(), length=3))
    assert not [path for path in (tmp_path / "runs" / "data").iterdir() if path.is_dir()]


def test_all_files_have_no_training_split(tmp_path):
    (tmp_path / "b.txt").write_text("one\n\ntwo\n\n\nthree", "utf-8")
    documents = AllFiles(path=str(tmp_path / "b.txt"), sha256=UNRESOLVED)
    assert list(documents.texts("heldout")) == [(0, "one"), (1, "two"), (2, "three")]
    assert not list(documents.texts("train"))
    same = Files(path=documents.path, sha256=UNRESOLVED, heldout_stride=2)
    assert documents.resolve() == same.resolve()


# --- filler -----------------------------------------------------------------------------------------

FILLED = Vocabulary(size=4, total=5, mask=4, bos=None, eos=None, pad=None, filler=3)
ROWS = Rows(
    np.array([[0, 1, 2, 3, 3, 3]] * 64), np.array([[1, 1, 1, 0, 0, 0]] * 64, dtype=bool), np.arange(64)
)


@pytest.mark.parametrize("process", [Absorbing(), Uniform(alpha_end=1e-3, eps=1e-3)])
def test_filler_is_noised_at_the_time_of_its_row(process):
    """Clean padding would reveal the length of every text; with l of 3 candidates masked, t is Beta(l, 4 - l)."""
    ids = torch.tensor([[0, 1, 2, 3, 3, 3]]).repeat(2000, 1)
    t = torch.linspace(0.01, 0.99, 2000, dtype=torch.float64)
    expected = t
    if isinstance(process, Absorbing):
        t = (3 * t).ceil() / 3
        expected = 3 * t / 4
    keys = rng.keys(0, rng.BOUND, 0, torch.arange(2000))
    predict = reading(None, process, ids, ids != 3, FILLED, keys)
    prediction = predict(ids, t)
    changed = prediction._tokens != ids
    assert not changed[:, :3].any()
    expected = process.p_flip(expected, FILLED)
    assert abs(changed[:, 3:].double().mean() - expected.mean()) < 4 * (0.25 / 6000) ** 0.5
    late, early = changed[-500:, 3:].double().mean(), changed[:500, 3:].double().mean()
    assert late > early + 0.4


@pytest.mark.parametrize("process", [Absorbing(), Uniform(alpha_end=1e-3, eps=1e-3)])
def test_filler_is_noised_in_training_and_never_scored(process, monkeypatch):
    source = SimpleNamespace(vocabulary=lambda: FILLED, row_length=lambda: 6)
    shape = {"layers": 1, "width": 8, "heads": 2, "ffn": 16, "rope_base": 10_000.0, "norm_eps": 1e-5}
    pins = Dit(**shape, condition=4, frequencies=8, alpha_end=None)
    denoiser = pins.module(Role(source, process.forbidden(FILLED), "leave_one_out"), 0).eval()
    ids, candidates = torch.from_numpy(ROWS.ids), torch.from_numpy(ROWS.candidates)
    batch = Batch(
        ids=ids,
        candidates=candidates,
        attention=attention_of(ids, FILLED),
        index=torch.arange(64),
        step=0,
        seed=0,
        vocabulary=FILLED,
        step_examples=torch.arange(64),
        step_candidates=candidates.sum(1),
    )
    noised = []
    monkeypatch.setattr(
        type(process), "corrupt", lambda self, x0, t, keys, where, v: noised.append(where) or x0
    )
    loss = Elbo(eps=1e-3, group=GlobalBatch())(denoiser, process, batch)
    (where,) = noised
    assert where.all() and loss.tokens == 3 * 64
    monkeypatch.undo()
    bound = heldout_bound(ForwardWrapper(denoiser), process, FILLED, ROWS, passes=2, seed=0)
    assert (bound.tokens == 3).all()
    # a network with a head of zeros predicts uniformly: ln K a token
    assert bound.value == pytest.approx(np.log(4), abs=4 * bound.error + 1e-6)


def test_masked_ce_raises_for_padded_rows():
    loss = MaskedCE(rate=Window(low=0.1, high=0.9), masks=Fresh(), group=GlobalBatch())
    batch = SimpleNamespace(vocabulary=FILLED)
    with pytest.raises(ValueError, match="does not corrupt filler"):
        loss(None, Absorbing(), batch)


# --- detokenisers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "text", "wanted"),
    [
        (
            "lm1b",
            'He said " yes , no " at http : / / a . b ( now ) ?',
            'He said "yes, no" at http://a . b (now)?',
        ),
        ("lm1b", "It 's $ 5 ; ' well ' [ sic ] .", "It's $5; 'well' [sic] ."),
        ("lm1b", "The end .", "The end."),
        (
            "wikitext",
            " = = Robert @-@ B = = \n 1 @,@ 000 @.@ 5 ( x ) , ' a ' . So",
            " == Robert-B ==\n1,000.5 (x), 'a'. So",
        ),
        ("wikitext", "/' 5/ N °", "/'[0-9]/ 1 °"),
        ("wikitext", "5 ° C ; { a } [ b ] the dogs ' tail 's", "5°C; {a} [b] the dogs'tail's"),
        (
            "ptb",
            "<unk> N N N shares of $ N did n't \\/ the firm 's dogs ' #",
            "? 1 1 1 shares of $1 didn't / the firm's dogs' #",
        ),
        ("lambada", "  “ Why ? ” she said \n", '\n" Why ? " she said'),
        ("lambada", "", "\n"),
        ("scientific_papers", "a @-@ b , c .", "a-b, c."),
    ],
)
def test_detokenisers_by_hand(rule, text, wanted):
    assert detokenise(text, rule) == wanted


def test_detokenised_documents_keep_their_numbers(tmp_path):
    documents = Detokenised(documents=lines(tmp_path / "d.jsonl", ["so .", "b , c", "d ?"]), rule="lm1b")
    assert list(documents.texts("train")) == [(0, "so ."), (1, "b, c")]
    assert list(documents.texts("heldout")) == [(0, "d?")]
    assert derive(documents, documents.resolve()).documents.revision != UNRESOLVED
    with pytest.raises(ValueError, match="rule="):
        derive(documents, {"rule": "lm2b"})
