"""Documents, units and rows of running text: held-out documents do not leak, and packing loses no text."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from repro.core.parts import canonical, derive, read
from repro.data import sources
from repro.data.byte_level import Bpe, BpeMerges, Gpt2, learn_bpe
from repro.data.corpus import UNRESOLVED, prepared
from repro.data.documents import Column, Files, Hub, Mixture, Sotu
from repro.data.packed import Packed, PackedWhole
from repro.data.text import Alphabet, Characters, Text
from repro.recipes.scale import CORPORA
from scripts import tokenizer

SOTU = Sotu(sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6", heldout_stride=20)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def folder(path: Path, texts: list[str]) -> Files:
    """A folder of documents, every third held out."""
    path.mkdir()
    for number, text in enumerate(texts):
        (path / f"{number:03}.txt").write_text(text, "utf-8")
    return Files(path=str(path), sha256=UNRESOLVED, heldout_stride=3)


def texts(documents, split) -> list[str]:
    return [text for _, text in documents.texts(split)]


# --- documents ----------------------------------------------------------------------------------------


def test_sotu_is_the_text_that_was_measured():
    """249 addresses, 12,185,751 bytes, 106 characters; every 20th is held out."""
    train, heldout = dict(SOTU.texts("train")), dict(SOTU.texts("heldout"))
    assert sum(len(text.encode()) for text in [*train.values(), *heldout.values()]) == 12_185_751
    assert Characters().vocab_size(SOTU) == 106
    assert train.keys() | heldout.keys() == set(range(249)) and not train.keys() & heldout.keys()
    assert sorted(heldout) == list(range(19, 249, 20))
    assert train[0].startswith("Fellow-Citizens of the Senate and House of Representatives:")


def test_another_text_than_the_pinned_one_is_refused():
    with pytest.raises(ValueError, match=f"sotu: expected sha256 {'0' * 64}, found {SOTU.sha256}"):
        Sotu(sha256="0" * 64, heldout_stride=20).texts("train")


def test_reading_sotu_imports_neither_it_nor_torch():
    code = (
        "import sys; from repro.data.text import Text, Characters; from repro.data.documents import Sotu\n"
        "import repro.data.chat, repro.data.packed\n"
        f"documents = Sotu(sha256={SOTU.sha256!r}, heldout_stride=20)\n"
        "Text(documents=documents, units=Characters(), length=64).vocabulary()\n"
        "heavy = {'sotu', 'torch', 'pandas', 'datasets', 'transformers', 'tokenizers'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_single_file_holds_a_document_a_block(tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes(b"one\nstill one\n\ntwo\r\n \r\n\r\nthree\n\n\nfour\n")
    documents = Files(path=str(file), sha256=UNRESOLVED, heldout_stride=2)
    assert texts(documents, "train") == ["one\nstill one", "three"]
    assert texts(documents, "heldout") == ["two", "four\n"]
    pinned = derive(documents, documents.resolve())
    assert pinned.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text("one\n\ntwo, changed", "utf-8")
    with pytest.raises(ValueError, match=f"expected sha256 {pinned.sha256}, found "):
        pinned.texts("train")


def test_what_cannot_be_read_says_so(tmp_path):
    def read_it(path, stride=2):
        return Files(path=str(path), sha256=UNRESOLVED, heldout_stride=stride).texts("train")

    (tmp_path / "bytes.txt").write_bytes(b"ab\xff")
    (tmp_path / "empty.txt").write_text("\n \n", "utf-8")
    (tmp_path / "none").mkdir()
    for path, message in [
        (tmp_path / "byte.txt", r"no file or folder .*byte\.txt'; nearest is 'bytes\.txt'"),
        (tmp_path / "bytes.txt", r"bytes\.txt is not UTF-8 text \(byte 2\)"),
        (tmp_path / "empty.txt", "has 0 documents, so heldout_stride=2 holds out none"),
        (tmp_path / "none", r"none has no \.txt file"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_it(path)
    with pytest.raises(ValueError, match="heldout_stride=1"):
        read_it(tmp_path, stride=1)


def test_a_dataset_gives_documents_by_column_and_split(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "row {i}", "n": {i}}}\n' for i in range(5)), "utf-8")
    documents = Hub(
        source=str(file),
        config=None,
        revision=UNRESOLVED,
        split="train[:-2]",
        heldout_split="train[-2:]",
        column="text",
    )
    assert list(documents.texts("train")) == [(0, "row 0"), (1, "row 1"), (2, "row 2")]
    assert texts(documents, "heldout") == ["row 3", "row 4"]
    assert derive(documents, documents.resolve()).revision == sources.fingerprint([file])
    with pytest.raises(ValueError, match="no column 'texts'; nearest is 'text'"):
        derive(documents, {"column": "texts"}).texts("train")


def mixed(tmp_path: Path, repeats: int) -> Mixture:
    """Three documents of files and six rows of a column, every third of each held out."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(6)), "utf-8")
    column = Column(source=str(rows), revision=UNRESOLVED, split="train", column="text", heldout_stride=3)
    return Mixture(first=folder(tmp_path / "a", ["one", "two", "three"]), second=column, repeats=repeats)


def test_a_mixture_repeats_its_second_source_in_training_alone(tmp_path):
    documents = mixed(tmp_path, 2)
    again = [(1, "row 0"), (3, "row 1"), (7, "row 3"), (9, "row 4")]
    assert list(documents.texts("train")) == [(0, "one"), (2, "two"), *again, *again]
    assert list(documents.originals("heldout")) == [(4, "three"), (5, "row 2"), (11, "row 5")]
    resolved = derive(documents, documents.resolve())
    assert resolved.second.revision == sources.fingerprint([tmp_path / "rows.jsonl"])
    assert resolved.first.sha256 == documents.first.resolve()["sha256"]
    with pytest.raises(ValueError, match="repeats=0 would leave out the second source"):
        Mixture(first=documents.first, second=documents.second, repeats=0)


def test_rows_of_a_mixture_are_those_of_its_sources_and_name_both(tmp_path):
    documents = mixed(tmp_path, 3)
    data = PackedWhole(documents=documents, units=Alphabet(characters=" 012345ehnortw"), length=4, batch=0)
    rows = prepared(data)
    assert data.decode(rows.train.ids[:3].ravel().tolist()) == "one[EOS]two[EOS]row "
    assert len(set(rows.train.example.tolist())) == len(rows.train)
    (tmp_path / "rows.jsonl").write_text('{"text": "?"}\n' * 6, "utf-8")
    with pytest.raises(ValueError, match=r"a and .*rows.jsonl, document 1"):
        prepared(derive(data, {"length": 5}))


def test_no_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    documents = Hub(
        source="Skylion007/openwebtext",
        config=None,
        revision=UNRESOLVED,
        split="train[:-100000]",
        heldout_split="train[-100000:]",
        column="text",
    )
    for ask in (Packed(documents=documents, units=Gpt2(), length=1024, batch=1000).build, documents.resolve):
        with pytest.raises(
            ConnectionError,
            match=r"^cannot fetch Skylion007/openwebtext \(no network\); connect",
        ):
            ask()


# --- units ----------------------------------------------------------------------------------------


def test_a_character_outside_the_alphabet_is_named_with_its_nearest(tmp_path):
    data = Text(documents=folder(tmp_path / "d", ["abc", "cde", "xyz"]), units=Characters(), length=2)
    assert data.encode("zebad"[1:4]) == [4, 1, 0]
    for text, stranger, close in [("abé", "é", "e"), ("abw", "w", "x"), ("~", "~", "z")]:
        said = f"character '{stranger}' in '{text}' is outside the alphabet of 8 .*nearest is '{close}'.*--tokenizer"
        with pytest.raises(ValueError, match=said):
            data.encode(text)


def test_training_text_names_the_document_of_a_character_without_an_id(tmp_path):
    documents = folder(tmp_path / "d", ["abc", "cab", "bca", "abd", "cba"])
    data = Text(documents=documents, units=Alphabet(characters="abc"), length=2)
    with pytest.raises(ValueError, match=r"d, document 3: character 'd' in 'abd' is outside"):
        list(data.stream("train"))


def test_bpe_learns_nothing_from_held_out_documents(tmp_path):
    """Its merges do not depend on held-out documents, but on training documents."""
    base = ["the cat and the hat " * 20] * 2
    a = folder(tmp_path / "a", [*base, "zyzzyva " * 99])
    b = folder(tmp_path / "b", [*base, "qoph qoph " * 99])
    c = folder(tmp_path / "c", [base[0], "zyzzyva " * 99, base[1]])
    learnt = [[Bpe(size=264).decode([i], d) for i in range(256, 264)] for d in (a, b, c)]
    assert learnt[0] == learnt[1] != learnt[2]
    assert not any("z" in unit for unit in learnt[0]) and any("zy" in unit for unit in learnt[2])


def test_bpe_is_exact_on_any_text_and_trained_once(tmp_path):
    documents = folder(tmp_path / "d", ["the cat and the hat " * 20] * 3)
    data = Text(documents=documents, units=Bpe(size=264), length=8)
    text = " Ünïcödé — 中文\n\tcat"
    assert data.decode(data.encode(text)) == text
    assert len(data.encode("the cat")) < 7
    assert len(list((tmp_path / "runs" / "data").glob("bpe-*.json"))) == 1


def test_bpe_of_the_same_text_in_other_documents_is_another(tmp_path):
    """Documents of `aa` do not give the merge `aaaa`, whether or not the other tokenizer was trained before."""
    long = folder(tmp_path / "long", ["aaaa", "aaaa", "z"])
    short = folder(tmp_path / "short", ["aa", "aa", "z", "aa", "aa", "z"])
    one, other = ("".join(text for _, text in each.texts("train")) for each in (long, short))
    assert one == other and Bpe(size=258).tokenizer(long).get_vocab_size() == 258
    with pytest.raises(ValueError, match="the largest is 257"):
        Bpe(size=258).tokenizer(short)


def test_bpe_refuses_more_units_than_the_text_gives(tmp_path):
    documents = folder(tmp_path / "d", ["ab", "ab", "ab"])
    with pytest.raises(ValueError, match="size=300 is too large for this text; the largest is 257"):
        next(Bpe(size=300).encode(["a"], documents))
    with pytest.raises(ValueError, match="size=255"):
        Bpe(size=255)


def test_gpt2_is_gpt2():
    """Known ids of its public vocabulary; the text of the end-of-text token does not become that token."""
    data = Text(documents=SOTU, units=Gpt2(), length=64)
    assert data.encode("Hello world") == [15496, 995]
    assert data.vocabulary().size == 50257 and data.vocabulary().total == 50259
    assert 50256 not in data.encode("<|endoftext|>") and data.decode([50256]) == "<|endoftext|>"


# --- rows ----------------------------------------------------------------------------------------


def test_rows_are_consecutive_ids_of_one_document(tmp_path):
    documents = folder(tmp_path / "d", ["abcdefg", "hij", "mnopq", "rstuvw"])
    data = Text(documents=documents, units=Characters(), length=3)
    splits = data.build()
    assert [data.decode(row) for row in splits["train"].ids] == ["abc", "def", "hij", "rst", "uvw"]
    assert [data.decode(row) for row in splits["heldout"].ids] == ["mno"]
    assert splits["train"].candidates.all() and splits["train"].candidates.shape == (5, 3)
    assert [(int(n) >> 32, int(n) & 0xFFFFFFFF) for n in splits["train"].example] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (3, 0),
        (3, 1),
    ]
    assert data.expected_rows() == 5


def test_special_ids_are_beyond_the_units_and_written_out(tmp_path):
    data = Text(documents=folder(tmp_path / "d", ["abc", "abd", "abe"]), units=Characters(), length=3)
    vocabulary = data.vocabulary()
    assert (vocabulary.size, vocabulary.mask, vocabulary.bos, vocabulary.total) == (5, 5, 6, 7)
    assert data.decode([6, 0, 5, 5, 4]) == "[BOS]a[MASK][MASK]e"
    with pytest.raises(ValueError, match="no token has the id 7; the largest id is 6"):
        data.decode([7])


@pytest.mark.parametrize("units", [Characters(), Bpe(size=258), Gpt2()])
def test_packing_gives_the_stream_back(tmp_path, units):
    """Rows without their first and last id are the documents, each with an end, up to the dropped remainder."""
    written = ["the cat and the hat " * n for n in (1, 3, 2, 5, 1, 4)]
    documents = folder(tmp_path / "d", written)
    data = Packed(documents=documents, units=units, length=10, batch=0)
    vocabulary, rows = data.vocabulary(), data.build()["train"]
    end = vocabulary.eos
    assert end == vocabulary.bos == (50256 if isinstance(units, Gpt2) else vocabulary.size - 1)
    stream = [i for text in texts(documents, "train") for i in [*data.encode(text), end]]
    inner = rows.ids[:, 1:-1].reshape(-1)
    assert inner.tolist() == stream[: len(inner)] and len(stream) - len(inner) < 8
    assert (rows.ids[:, [0, -1]] == end).all() and end in inner
    assert rows.candidates[:, 1:-1].all() and not rows.candidates[:, [0, -1]].any()
    assert vocabulary.mask == vocabulary.total - 1 == vocabulary.size


def test_packing_by_batches_drops_a_remainder_each(tmp_path):
    documents = folder(tmp_path / "d", ["abcde", "fgh", "-", "ij", "klmnopq", "-"])
    whole = Packed(documents=documents, units=Characters(), length=5, batch=0)
    pairs = derive(whole, {"batch": 2})
    assert [whole.decode(row[1:-1]) for row in whole.build()["train"].ids] == [
        *("abc", "de[EOS]", "fgh", "[EOS]ij", "[EOS]kl", "mno", "pq[EOS]"),
    ]
    assert [pairs.decode(row[1:-1]) for row in pairs.build()["train"].ids] == [
        *("abc", "de[EOS]", "fgh", "ij[EOS]", "klm", "nop"),
    ]
    assert pairs.expected_rows() == 6 and pairs.row_length() == 5


def test_sotu_packs_nearly_without_loss():
    data = Packed(documents=SOTU, units=Characters(), length=130, batch=0)
    rows = data.build()
    characters = {split: sum(len(text) + 1 for _, text in SOTU.texts(split)) for split in rows}
    assert {split: len(rows[split]) for split in rows} == {s: n // 128 for s, n in characters.items()}


def test_preparing_opens_the_same_arrays_twice_and_detects_a_broken_file(tmp_path):
    data = Text(documents=folder(tmp_path / "d", ["abcdefg"] * 30), units=Characters(), length=3)
    first, second = prepared(data), prepared(data)
    assert first.digest == second.digest
    for split in ("train", "heldout"):
        for field in ("ids", "candidates", "example"):
            built = getattr(data.build()[split], field)
            assert (getattr(getattr(first, split), field) == built).all()
            assert (getattr(getattr(second, split), field) == built).all()
    assert first.train.ids.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("train.ids.npy", lambda data: data[:-5], "is truncated or not a file of an array"),
        ("train.ids.npy", lambda data: b"", "is truncated or not a file of an array"),
        ("train.ids.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "the arrays have the digest"),
        ("heldout.example.npy", lambda data: data.replace(b"<i8", b"<f8"), "an array of float64"),
        ("heldout.candidates.npy", lambda data: data.replace(b", 3)", b", 1)"), "an array of bool"),
        (
            "meta.json",
            lambda data: data.replace(b'"digest": "', b'"digest": "0'),
            "the arrays have the digest",
        ),
        (
            "meta.json",
            lambda data: data.replace(b'"train": ', b'"train": 1'),
            r"expected uint8 with shape \[1\d+, 3\]",
        ),
        (
            "meta.json",
            lambda data: data.replace(b'"train"', b'"trail"'),
            "meta.json: invalid enum value 'trail'",
        ),
        (
            "meta.json",
            lambda data: data.replace(b'"length": 3', b'"length": 4'),
            "describes another data source",
        ),
    ],
)
def test_a_prepared_corpus_that_was_changed_is_refused(name, change, says, tmp_path):
    data = Text(documents=folder(tmp_path / "d", ["abcdefg"] * 30), units=Characters(), length=3)
    file = prepared(data).folder / name
    before = file.read_bytes()
    file.write_bytes(change(before))
    assert file.read_bytes() != before
    with pytest.raises(ValueError, match=rf"is broken \(.*{says}.*\); remove that folder and run again"):
        prepared(data)


def test_a_prepared_corpus_is_no_fifo(tmp_path):
    data = Text(documents=folder(tmp_path / "d", ["abcdefg"] * 30), units=Characters(), length=3)
    file = prepared(data).folder / "heldout.ids.npy"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="is no regular file"):
        prepared(data)


def test_parts_read_back_and_resolve(tmp_path):
    for data in (
        Text(documents=SOTU, units=Bpe(size=512), length=64),
        Packed(documents=folder(tmp_path / "d", ["a"] * 3), units=Gpt2(), length=64, batch=1000),
    ):
        assert read(canonical(data)) == data
        assert UNRESOLVED not in str(canonical(derive(data, data.resolve())))
    for wrong in ({"length": 2}, {"batch": -1}):
        with pytest.raises(ValueError, match=r"smallest is 3|batch=-1: expected a number of 0 or more"):
            derive(data, wrong)


# --- a stored BPE ---------------------------------------------------------------------------------------


def merges_of(path: Path, text: str, size: int, sha256: str = UNRESOLVED) -> BpeMerges:
    path.write_text(text, "utf-8")
    return BpeMerges(path=str(path), sha256=sha256, size=size)


def test_a_file_of_merges_is_the_tokenizer_that_was_trained(tmp_path):
    documents = folder(tmp_path / "docs", ["the cat sat on the mat, the hat", "a cat, a hat", "the rat"] * 3)
    trained = learn_bpe(documents, 270)
    pairs = json.loads(trained.to_str())["model"]["merges"]
    units = merges_of(tmp_path / "merges.txt", "".join(f"{a} {b}\n" for a, b in pairs), 270)
    text = "that cat on the hat: Zürich"
    (ids,) = units.encode([text], documents)
    assert ids.max() < 270 and units.decode(ids.tolist(), documents) == text
    assert [units.decode([i], documents) for i in ids] == [
        trained.decode([i]) for i in trained.encode(text).ids
    ]


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("t h\n", 258, "gives 257 ids, not size=258; set size=257"),
        ("t h\nqq x\n", 258, "merges.txt:2: 'qq x' is no merge of two known pieces"),
        ("t h\n\n", 258, "merges.txt:2: '' is no merge"),
    ],
)
def test_a_wrong_file_of_merges_is_named(tmp_path, text, size, message):
    with pytest.raises(ValueError, match=message):
        next(iter(merges_of(tmp_path / "merges.txt", text, size).encode(["th"], SOTU)))
    other = merges_of(tmp_path / "merges.txt", "t h\n", 257, sha256="0" * 64)
    with pytest.raises(ValueError, match="expected sha256 000"):
        next(iter(other.encode(["th"], SOTU)))
    with pytest.raises(ValueError, match=r"no file .*gone\.txt"):
        next(iter(BpeMerges(path="gone.txt", sha256=UNRESOLVED, size=257).encode(["th"], SOTU)))


def test_the_committed_merges_are_those_that_training_gives():
    """About 2 seconds; held-out addresses are tokenised without loss, at 4.3 characters a token."""
    assert tokenizer.main(["--check"]) == 0
    micro = CORPORA["micro"]
    text = texts(SOTU, "heldout")[0]
    ids = micro.encode(text)
    assert micro.decode(ids) == text and 4 < len(text) / len(ids) < 4.6
