"""Perplexity of corpora: rows by hand, oracles by enumeration, a plain loop, bytes and words, protocols, the
reproduction test."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import lm_worlds, spaces, wordpiece
from helpers.synthetic import record

from repro.core import parts, registry
from repro.core.parts import part
from repro.data.corpus import UNRESOLVED, Data, Vocabulary
from repro.data.counted import Counted
from repro.data.detokenise import Detokenised
from repro.data.documents import AllFiles, HubSplit
from repro.data.packed import Packed
from repro.data.released import Released, store_tokenizer
from repro.data.text import Characters, Gpt2, Text
from repro.evals.__main__ import main
from repro.evals.perplexity import corpora, corpus
from repro.evals.perplexity.catalogue import FILE, read_catalogue
from repro.evals.perplexity.corpus import Perplexity, pack_corpus
from repro.evals.perplexity.packings import PaddedRows, PieceRows, SpecialIds, WrappedPlainRows, WrappedRows
from repro.evals.perplexity.tokenizers import TOKENIZERS, check_ids, mismatch, special_ids
from repro.evals.published import verify
from repro.evals.published.cells import read
from repro.evals.request import Request, prepare
from repro.evals.suites import read_suite
from repro.evals.task import Ask
from repro.model import Model
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.results.record import Question
from repro.results.tables import perplexities

ASK = Ask(None, None, 0, None)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def written(tmp_path, *texts, name="own.txt") -> AllFiles:
    (tmp_path / name).write_text("\n\n".join(texts), "utf-8")
    return AllFiles(path=str(tmp_path / name), sha256=UNRESOLVED)


def task_of(documents, packing, length, counts="text", passes=4, tokenizer="own", name="own") -> Perplexity:
    return Perplexity(
        name=name,
        corpus=name,
        documents=documents,
        packing=packing,
        length=length,
        passes=passes,
        tokenizer=tokenizer,
        counts=counts,
    )


# --- rows ---------------------------------------------------------------------------------------------------

A, B, E, P = range(4)


@part
class Spelt(Data):
    """Letters a and b, an end E and padding P: four ids, then the mask."""

    length: int

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(size=4, total=6, mask=4, bos=None, eos=E, pad=None, filler=P)

    def row_length(self) -> int:
        return self.length

    def encode(self, text):
        return ["ab".index(letter) for letter in text]


def model(process, denoiser, data) -> Model:
    recipe = SimpleNamespace(process=process, name="toy", data=data, digest=lambda: "toy", score="exact")
    return Model(recipe, denoiser, "raw", "toy", 0, 0, data, None, None)


def blind(process, length=4) -> Model:
    """A network with uniform predictions: ln 4 nats a token."""
    words = spaces.Words(size=4, length=length)
    uniform = spaces.Known(words, process, "leave_one_out", lambda ids, t: torch.full((*ids.shape, 4), 0.25))
    return model(process, uniform, Spelt(length=length))


def packed(tmp_path, packing, *texts, counts="text", process=None, length=5):
    found = pack_corpus(
        task_of(written(tmp_path, *texts), packing, length, counts),
        blind(process or Absorbing(), length),
        None,
    )
    return found.rows.ids.tolist(), found.rows.candidates.astype(int).tolist(), found


def test_rows_have_the_ends_of_their_packing(tmp_path):
    texts = ("aab", "ba", "bbbb")
    marked, where, _ = packed(tmp_path, WrappedRows(batch=0), *texts)
    assert marked == [[E, A, A, B, E], [E, E, B, A, E], [E, E, B, B, E], [E, B, B, E, E]]
    assert where == [[0, 1, 1, 1, 0]] * 4
    plain, where, _ = packed(tmp_path, WrappedPlainRows(batch=0), *texts)
    assert plain == [[E, A, A, B, E], [E, B, A, B, E], [E, B, B, B, E]]
    assert where == [[0, 1, 1, 1, 0]] * 3
    padded, where, _ = packed(tmp_path, PaddedRows(), *texts)
    assert padded == [[E, A, A, B, E], [E, B, A, E, P], [E, B, B, B, E]]
    assert where == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]


def test_a_batch_drops_its_incomplete_last_row(tmp_path):
    _, _, all_joined = packed(tmp_path, WrappedPlainRows(batch=0), "aab", "ba", "bbbb")
    rows, _, by_two = packed(tmp_path, WrappedPlainRows(batch=2), "aab", "ba", "bbbb")
    assert rows == [[E, A, A, B, E], [E, B, B, B, E]]
    assert by_two.documents == {
        "documents": 3.0,
        "documents_without_ids": 0.0,
        "documents_unscored": 1.0,
        "ids_scored": pytest.approx(6 / 9),
    }
    assert all_joined.documents["ids_scored"] == 1.0


def test_pieces_score_every_id_of_a_long_document_once(tmp_path):
    ids, where, found = packed(tmp_path, PieceRows(), "aababba", "ab", "bbbbb")
    assert ids == [[A, A, B, A, B], [B, A, B, B, A], [B] * 5]
    assert where == [[1] * 5, [0, 0, 0, 1, 1], [1] * 5]
    assert found.documents["documents_unscored"] == 1.0 and found.documents["ids_scored"] == pytest.approx(
        12 / 14
    )
    assert found.weights.tolist() == [[5.0, 2.0, 5.0], pytest.approx([5 / 7, 2 / 7, 1.0])]
    assert found.rows.example.tolist() == [0, 0, 2]


def test_counts_is_the_row_or_the_text(tmp_path):
    """A network trained on noised ends scores them; AR never predicts the first; ends that are given have no loss."""
    _, where, found = packed(tmp_path, WrappedPlainRows(batch=0), "aabbab", counts="row")
    assert where == [[1] * 5] * 2 and not found.free.any()
    ids, where, found = packed(
        tmp_path, WrappedPlainRows(batch=0), "aabbab", counts="row", process=LeftToRight()
    )
    assert ids == [[A, A, B, E], [B, A, B, E]] and where == [[1] * 4] * 2 and not found.free.any()
    _, where, _ = packed(tmp_path, PaddedRows(), "ab", counts="row")
    assert where == [[1, 1, 1, 1, 0]]
    documents = written(tmp_path, "aab", "bab")
    own = Counted(data=Packed(documents=documents, units=Characters(), length=5, batch=0), rows=1)
    task = task_of(documents, WrappedRows(batch=0), 5, "row")
    for process, extra in ((Absorbing(), 2), (LeftToRight(), 1)):
        found = pack_corpus(task, model(process, None, own), None)
        assert found.rows.candidates[:, 1:-1].all() and not found.rows.candidates[:, [0, -1]].any()
        assert (found.free == extra).all() and found.rows.ids.shape[1] == 5
    metrics = task.answer(model(LeftToRight(), blind(LeftToRight(), 5).denoiser, own), ASK).metrics
    assert metrics["nll"][0] == pytest.approx(3 * math.log(4) / 4)


@pytest.mark.parametrize(
    ("packing", "own", "tokenizer", "pad", "filler"),
    [
        (WrappedRows(batch=0), {"pad": E}, "own", None, None),  # an EOS that pads elsewhere is a token here
        (PaddedRows(), {"pad": P}, "own", P, None),  # left out of attention, as the model was trained
        (PaddedRows(), {"pad": None, "filler": P}, "own", None, P),
        (PaddedRows(), {"pad": 0}, "bert-base-uncased", None, 0),  # attended and noised, as published
        (PieceRows(), {"pad": P, "filler": P}, "own", None, None),
    ],
)
def test_padding_is_what_pads_these_rows(packing, own, tokenizer, pad, filler):
    vocabulary = Vocabulary(size=4, total=5, mask=4, bos=None, eos=E, **{"pad": None, **own})
    task = task_of(AllFiles(path="x", sha256=UNRESOLVED), packing, 8, tokenizer=tokenizer)
    found = corpus._row_vocabulary(task, vocabulary, special_ids(tokenizer, vocabulary))
    assert (found.pad, found.filler) == (pad, filler)
    assert found.bos == (101 if tokenizer != "own" else E)


# --- oracles ------------------------------------------------------------------------------------------------


def metrics_of(task, process, denoiser, length=4):
    return task.answer(model(process, denoiser, Spelt(length=length)), ASK).metrics


TEXTS = ("ab", "ba", "bb", "a", "abba", "b", "aa")


@pytest.mark.parametrize("counts", ["row", "text"])
def test_the_bound_of_wrapped_rows_of_an_oracle_is_their_log_probability(tmp_path, counts):
    """The exact denoiser's bound is -log p of each row; with ends given, -log p of the text between them."""
    space = spaces.random_space(4, 4)
    documents = written(tmp_path, *(TEXTS * 40))
    task = task_of(documents, WrappedRows(batch=0), 4, counts, passes=8)
    rows = pack_corpus(task, blind(Absorbing()), None).rows.ids
    law = space.as_law()
    exact = 0.0
    for row in rows.tolist():
        given = sum(law[(row[0], x, y, row[3])] for x, y in itertools.product(range(4), repeat=2))
        exact -= math.log(law[tuple(row)] / (1 if counts == "row" else given))
    exact /= len(rows) * (4 if counts == "row" else 2)
    found = metrics_of(task, Absorbing(), spaces.exact(space, Absorbing()))
    value, error = found["nll_bound"][0], found["draws_error"][0]
    assert 0 < error < 0.01 and abs(value - exact) < 4 * error
    assert found["ppl_bound"][0] == pytest.approx(math.exp(value))
    spoiled = metrics_of(task, Absorbing(), spaces.stranger(space, Absorbing()))["nll_bound"][0]
    assert spoiled > exact + 8 * error


def padded_law() -> spaces.Space:
    """Rows of five that are mostly E, letters, E, padding: visible padding reveals where the text ends."""
    space = spaces.random_space(4, 5)
    proper = [
        row[0] == E and P not in row[: (end := row[1:].index(E) + 1)] and set(row[end + 1 :]) <= {P}
        if E in row[1:]
        else False
        for row in space.sentences.tolist()
    ]
    weights = space.law * torch.where(torch.tensor(proper), 300.0, 1.0)
    return spaces.Space(weights / weights.sum(), 4, 5)


def enumerated(space, rows, noised) -> float:
    """Nats per candidate: by level, the mean of the candidates' losses over masked sets of the `noised` positions."""
    total = 0.0
    for row, where in zip(rows.ids.tolist(), rows.candidates, strict=True):
        places = [i for i in range(len(row)) if noised(row[i], where[i])]
        for size in range(1, len(places) + 1):
            subsets = list(itertools.combinations(places, size))
            masked = torch.tensor([[4 if i in s else row[i] for i in range(len(row))] for s in subsets])
            seen = spaces.channel(space, Absorbing(), masked, torch.zeros(len(masked)))
            p = space.conditionals(seen, own=False)
            for k, subset in enumerate(subsets):
                loss = -sum(p[k, i, row[i]].log().item() for i in subset if where[i])
                total += loss / size / len(subsets)
    return total / rows.candidates.sum()


def test_the_bound_of_padded_rows_of_an_oracle_equals_enumeration(tmp_path):
    """Padding is noised like the text; if it were always visible, the bound would be lower."""
    space = padded_law()
    texts = ("a", "b", "ab", "ba")
    few = task_of(written(tmp_path, *texts), PaddedRows(), 5)
    rows = pack_corpus(few, blind(Absorbing(), 5), None).rows
    task = task_of(written(tmp_path, *(texts * 100), name="many.txt"), PaddedRows(), 5, passes=8)
    exact = enumerated(space, rows, lambda token, scored: scored or token == P)
    shown = enumerated(space, rows, lambda token, scored: scored)
    found = metrics_of(task, Absorbing(), spaces.exact(space, Absorbing()), 5)
    value, error = found["nll_bound"][0], found["draws_error"][0]
    assert abs(value - exact) < 4 * error < 0.04 < (exact - shown) / 2


@pytest.mark.parametrize(
    ("packing", "counts"),
    [(WrappedRows(batch=0), "row"), (WrappedPlainRows(batch=2), "text"), (PieceRows(), "text")],
)
def test_autoregression_equals_a_plain_loop(tmp_path, packing, counts):
    ours = lm_worlds.model(LeftToRight(), lm_worlds.Letters(length=12, masked=0))
    texts = (
        "the cat sat. on the mat",
        "a",
        "why? because: it is warm there.",
        "so it was said and done again",
    )
    task = task_of(written(tmp_path, *texts), packing, 12, counts)
    ids = [[lm_worlds.ALPHABET.index(c) for c in text] for text in texts]
    rows = _by_hand(packing, ids)
    total = tokens = 0
    for row, first in rows:
        read = torch.tensor([[lm_worlds.BOS, *row]])
        logits = ours.denoiser.logits(ours.denoiser.encode(read, t=None, attention=spaces.Mask()))
        logp = logits[0].double()[:, : lm_worlds.BOS + 1].log_softmax(-1)
        last = len(row) - (isinstance(packing, WrappedPlainRows) and counts == "text")
        for place in range(first, last):
            total -= logp[place, row[place]].item()
            tokens += 1
    found = task.answer(ours, ASK).metrics
    assert found["nll"][0] == pytest.approx(total / tokens, rel=1e-5)
    assert {"ppl", "bits_per_byte", "bits_per_word"} < found.keys()
    assert not [name for name in found if "bound" in name or "draws" in name]


def test_a_released_causal_network_has_the_loss_of_transformers(tmp_path):
    """The loss of transformers' own model on the same rows, with one BOS."""
    from transformers import AutoModelForCausalLM

    from repro.model import load

    folder = lm_worlds.save(
        lm_worlds.model(LeftToRight(), lm_worlds.Letters(length=48, masked=0)), tmp_path / "llama"
    )
    texts = ("the cat sat on the mat. why?", "it was so", "and so it was said again: be warm")
    task = task_of(written(tmp_path, *texts), WrappedRows(batch=0), 16, "row")
    ids = [i for text in texts for i in [*map(lm_worlds.ALPHABET.index, text), lm_worlds.EOS]]
    cuts = [ids[start : start + 14] for start in range(0, len(ids) - 13, 14)]
    rows = torch.tensor([[lm_worlds.BOS, *cut, lm_worlds.EOS] for cut in cuts])
    theirs = AutoModelForCausalLM.from_pretrained(folder)(rows, labels=rows).loss.item()
    found = task.answer(load(folder), ASK).metrics
    assert found["nll"][0] == pytest.approx(theirs, rel=1e-5) and found["nll"][2] == len(rows)


def _by_hand(packing, ids):
    """(row without its BOS, first scored position) for rows of 12."""
    if isinstance(packing, PieceRows):
        found = []
        for text in (text for text in ids if len(text) >= 12):
            starts = list(range(0, len(text) - 11, 12))
            found += [(text[s : s + 12], 0) for s in starts]
            if left := len(text) % 12:
                found.append((text[-12:], 12 - left))
        return found
    if isinstance(packing, WrappedRows):
        batches, mark = [ids], [lm_worlds.EOS]
    else:
        batches, mark = [ids[:2], ids[2:]], []
    found = []
    for batch in batches:
        stream = [i for text in batch for i in [*text, *mark]]
        found += [([*stream[s : s + 10], lm_worlds.EOS], 0) for s in range(0, len(stream) - 9, 10)]
    return found


# --- units and errors ---------------------------------------------------------------------------------------


def test_bits_a_byte_and_a_word_by_hand(tmp_path):
    """ln 4 nats, or 2 bits, a letter; bytes are those of the text in UTF-8."""
    process = LeftToRight()
    texts = ["é ab", "é baab"]

    class Without(Spelt):
        def encode(self, text):
            return ["ab".index(letter) for letter in text if letter in "ab"]

    blank = model(process, blind(process, 2).denoiser, Without(length=2))
    found = task_of(written(tmp_path, *texts), PieceRows(), 2).answer(blank, ASK).metrics
    size = sum(len(text.encode()) for text in texts)
    assert size == 5 + 7
    assert found["nll"][0] == pytest.approx(math.log(4))
    assert found["bits_per_byte"][0] == pytest.approx(6 * 2 / size)
    assert found["bits_per_word"][0] == pytest.approx(6 * 2 / 4)
    short = (
        task_of(written(tmp_path, "é ab", "é baa"), PieceRows(), 3).answer(blank_of(3, Without), ASK).metrics
    )
    assert short["documents_unscored"][0] == 1 and short["bits_per_byte"][0] == pytest.approx(3 * 2 / 6)


def blank_of(length, data):
    return model(LeftToRight(), blind(LeftToRight(), length).denoiser, data(length=length))


def test_bytes_are_those_before_detokenisation(tmp_path):
    (tmp_path / "own.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in ("ab , ab", "", " ", "a ab .")), "utf-8"
    )

    class Words(Spelt):
        def encode(self, text):
            return [A if c == "a" else B for c in text.strip()]

    raw = HubSplit(
        source=str(tmp_path / "own.jsonl"), config=None, revision=UNRESOLVED, split="train", column="text"
    )
    documents = Detokenised(documents=raw, rule="lm1b")
    assert [text for _, text in documents.texts("heldout")] == ["ab, ab", "", " ", "a ab."]
    found = task_of(documents, PieceRows(), 3).answer(blank_of(3, Words), ASK).metrics
    assert found["bits_per_byte"][0] == pytest.approx((6 + 5) * 2 / (7 + 6))
    assert (found["documents"][0], found["documents_without_ids"][0]) == (4, 2)


def test_errors_are_of_documents_and_no_smaller_than_those_of_the_draws(tmp_path):
    """Two equal documents have no spread, but the draws do; AR has no draws."""
    space, process = spaces.random_space(4, 4), Absorbing()
    task = task_of(written(tmp_path, "abba", "abba"), PieceRows(), 4)
    found = task.answer(model(process, spaces.exact(space, process), Spelt(length=4)), ASK).metrics
    assert found["nll_bound"][1] >= found["draws_error"][0] * (1 - 1e-9) > 0
    one = task_of(written(tmp_path, "abbaab"), PieceRows(), 4).answer(blank_of(4, Spelt), ASK).metrics
    assert math.isnan(one["nll"][1])  # one document: unknown, None in the record


def test_rows_of_one_document_are_one_unit(tmp_path):
    """A network to which b is less likely than a: errors by hand over documents, not over rows."""
    process = LeftToRight()
    words = spaces.Words(size=4, length=2)
    law = torch.tensor([0.6, 0.2, 0.1, 0.1]).double()
    known = spaces.Known(words, process, "leave_one_out", lambda ids, t: law.expand(*ids.shape, 4))
    found = (
        task_of(written(tmp_path, "aaaaaa", "bbbbbb", "aabb"), PieceRows(), 2)
        .answer(model(process, known, Spelt(length=2)), ASK)
        .metrics
    )
    nats = np.array([6 * -math.log(0.6), 6 * -math.log(0.2), 2 * -math.log(0.6 * 0.2)])
    tokens = np.array([6, 6, 4])
    mean = nats.sum() / 16
    error = math.sqrt(3 / 2 * ((nats - mean * tokens) ** 2).sum()) / 16
    assert found["nll"][:2] == (pytest.approx(mean), pytest.approx(error))
    assert found["ppl"][1] == pytest.approx(math.exp(mean) * error)


def test_batches_make_no_difference(tmp_path, monkeypatch):
    space, process = spaces.random_space(4, 4), Absorbing()
    task = task_of(written(tmp_path, *TEXTS), WrappedRows(batch=0), 4, "row")
    ours = model(process, spaces.exact(space, process), Spelt(length=4))
    whole = task.answer(ours, ASK).metrics
    monkeypatch.setattr(corpus, "MAX_LOGITS", 1)
    again = task.answer(ours, ASK).metrics
    assert {name: m[0] for name, m in again.items()} == pytest.approx(
        {n: m[0] for n, m in whole.items()}, rel=1e-12
    )
    assert again["nll_bound"] == pytest.approx(whole["nll_bound"], rel=1e-12)


def test_a_limit_draws_rows_of_the_whole_corpus(tmp_path):
    documents = written(tmp_path, *(["ab", "ba", "bb"] * 9))
    task = task_of(documents, WrappedPlainRows(batch=0), 4)
    ours = blind(Absorbing())
    all_rows = pack_corpus(task, ours, None).rows
    some = pack_corpus(task, ours, 9)
    assert len(all_rows) == 27 and len(some.rows) == some.weights.shape[1] == 9
    assert set(some.rows.example) <= set(all_rows.example) and some.rows.example.max() > 12


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
        (["--corpus", "lab/x:colum=y"], "no setting 'colum', or no value given for it; nearest is 'column'"),
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
    with pytest.raises(ConnectionError, match=r"\(no network\)$"):
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


# --- reproduction test -----------------------------------------------------------------------------------------------


def published(
    protocol, value, metric="ppl_bound", checkpoint="duo", se=0.01, drawn=None, precision="float32", **pins
):
    task = parts.derive(corpora.protocol(protocol), pins) if pins else corpora.protocol(protocol)
    subject = {"digest": checkpoint, "recipe": checkpoint, "seed": 0, "step": 0, "weights": "raw"}
    asked = Question.read(
        {
            "checkpoint": subject,
            "task": parts.canonical(task),
            "sampler": None,
            "plan": None,
            "seed": 0,
            "limit": None,
            "protocol": task.protocol() | {"precision": precision},
        }
    )
    metrics = {metric: (value, se, 4096)} | ({} if drawn is None else {"draws_error": (drawn, None, 4)})
    return record(asked, metrics, recipe="x", checkpoint=checkpoint)


def results_by_cell(*records):
    return {each.cell.name: each for each in verify.verify(read(), list(records))}


def test_a_record_of_a_protocol_answers_its_cell():
    found = results_by_cell(published("owt.wrapped", 25.3), published("zeroshot.ptb", 99.0))
    assert found["duo.t1.duo.owt"].answer == "pass"
    assert found["duo.t2.duo.ptb"].answer == "fail"
    assert found["duo.t2.duo.wikitext"].answer == "not comparable"
    assert 'protocol.corpus is "ptb", published "wikitext"' in found["duo.t2.duo.wikitext"].why
    assert found["mdlm.owt.mdlm.owt"].answer == "not run"


def test_cells_that_count_other_tokens_are_not_comparable():
    found = results_by_cell(published("owt.wrapped", 25.2, counts="text"))["duo.t1.duo.owt"]
    assert found.answer == "not comparable"
    assert found.why == 'protocol.counted is "text alone", published "every position of a row"'


def test_on_the_same_rows_only_the_draws_differ():
    """The error over documents, 3 of 89.35, would decide nothing; the draws' error of .004 nats is .36."""
    found = results_by_cell(published("zeroshot.ptb", 89.9, se=3.0, drawn=0.004))["duo.t2.duo.ptb"]
    assert found.answer == "pass" and found.se == pytest.approx(89.9 * 0.004)
    assert results_by_cell(published("zeroshot.ptb", 89.9, se=3.0))["duo.t2.duo.ptb"].answer == "inconclusive"
    off = results_by_cell(published("zeroshot.ptb", 95.0, se=3.0, drawn=0.004))["duo.t2.duo.ptb"]
    assert off.answer == "fail"


def test_an_exact_perplexity_is_compared_without_an_error():
    found = results_by_cell(published("owt.wrapped", 17.5, metric="ppl", checkpoint="ar_owt", se=2.0))
    assert found["duo.t1.ar.owt"].answer == "pass" and found["duo.t1.ar.owt"].se == 0
    assert (
        results_by_cell(published("lm1b.padded", 22.3, metric="nll", checkpoint="ar_lm1b"))[
            "duo.t1_unpacked.ar.lm1b"
        ].answer
        == "not run"
    )


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(registry.PARTS, "spelt", f"{__name__}:Spelt")


# --- tables -------------------------------------------------------------------------------------------------


def test_the_table_has_a_section_per_protocol_and_names_bounds():
    made = [
        published("owt.wrapped", 25.3, drawn=0.004),
        published("owt.wrapped", 17.5, metric="ppl", checkpoint="ar_owt"),
        published("owt.wrapped", 26.0, counts="text", name="owt.text"),
        published("zeroshot.ptb", 90.0),
    ]
    files = perplexities.tables(made)
    page = files["perplexity.md"]
    assert page.count("\n## ") == 3 and page.count("| duo ") == 3
    assert (
        "## owt, wrapped rows of 1024\n\n"
        "EOS: between documents; counted: every position of a row; tokens: gpt2; float32; protocol and documents: "
        in page
    )
    lines = [line.split(",") for line in files["perplexity.csv"].splitlines()]
    found = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [(row["corpus"], row["checkpoint"], row["bound"], row["ppl"]) for row in found] == [
        ("owt", "ar_owt", "exact", "17.5"),
        ("owt", "duo", "bound", "25.3"),
        ("owt", "duo", "bound", "26"),
        ("ptb", "duo", "bound", "90"),
    ]
    assert [row["draws_error"] for row in found] == ["", "0.004", "", ""]
    assert perplexities.REMEDY in perplexities.tables([])["perplexity.md"]


def test_texts_precisions_and_detokenisers_have_their_own_sections():
    """Files of one name and different contents are two corpora; one file in two folders is one corpus."""

    def sections(*pins):
        made = [published("owt.wrapped", 25.0, checkpoint=f"c{i}", **each) for i, each in enumerate(pins)]
        return perplexities.tables(made)["perplexity.md"].count("\n## ")

    def book(path, digest):
        return {"corpus": "book", "documents": {"part": "all_files", "path": path, "sha256": digest}}

    assert sections(book("a/book.txt", "1" * 64), book("b/book.txt", "2" * 64)) == 2
    assert sections(book("a/book.txt", "1" * 64), book("b/book.txt", "1" * 64)) == 1
    plain = book("a/book.txt", "1" * 64)
    rules = {"part": "detokenised", "documents": plain["documents"], "rule": "ptb"}
    assert sections(plain, plain | {"documents": rules}) == 2
    made = [published("owt.wrapped", 25.0, checkpoint=p, precision=p) for p in ("float32", "bfloat16")]
    assert perplexities.tables(made)["perplexity.md"].count("\n## ") == 2
