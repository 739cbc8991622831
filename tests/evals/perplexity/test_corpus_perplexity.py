"""Perplexity of corpora: rows by hand, oracles by enumeration, a plain loop, bytes and words."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from helpers import lm_worlds, spaces
from helpers.corpora import ASK, A, B, E, P, Spelt, blind, model, task_of, written

from repro.core import registry
from repro.data.corpus import UNRESOLVED, Vocabulary
from repro.data.counted import Counted
from repro.data.detokenise import Detokenised
from repro.data.documents import AllFiles, HubSplit
from repro.data.packed import Packed
from repro.data.text import Characters
from repro.evals.perplexity import corpus
from repro.evals.perplexity.corpus import pack_corpus
from repro.evals.perplexity.packings import PaddedRows, PieceRows, WrappedPlainRows, WrappedRows
from repro.evals.perplexity.tokenizers import special_ids
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# --- rows ---------------------------------------------------------------------------------------------------


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


def test_a_document_with_a_character_without_an_id_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"own\.txt, document 1: no symbol 'z' in 'azb'"):
        packed(tmp_path, WrappedRows(batch=0), "aab", "azb", "bbbb")


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


# --- reproduction test --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(registry.PARTS, "spelt", "helpers.corpora:Spelt")
