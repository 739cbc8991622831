"""Data of the user's own: what is read, what is held out, and how it becomes rows of a recipe."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_tokenizer

from repro.core import parts, registry
from repro.core.files import ROOT
from repro.data import sources
from repro.data.byte_level import Bpe
from repro.data.chat import Chat
from repro.data.chats import Chats
from repro.data.corpus import UNRESOLVED, prepared
from repro.data.documents import Column, Files, HubSplit, Messages
from repro.data.own import FEWEST, TEMPLATE, own_data, own_documents
from repro.data.packed import Joined, Padded, Stream
from repro.data.pretrained import Pretrained
from repro.data.text import Alphabet
from repro.recipes.scale import CORPORA, by_name

NANO = CORPORA["nano.text"]
CHATS = str(ROOT / "evals" / "data" / "chats.jsonl")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder of its own, in which runs, caches and the files of a test lie."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def lines(name: str, *rows: object) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def book(count: int, name: str = "book.txt") -> str:
    Path(name).write_text("\n\n".join(f"Paragraph {i} of the book." for i in range(count)), "utf-8")
    return name


def said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# --- what is held out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "heldout"),
    [(4, [1, 3]), (5, [1, 3]), (10, [4, 9]), (39, [18, 37]), (40, [19, 39]), (61, [19, 39, 59])],
)
def test_every_twentieth_document_is_held_out_and_never_fewer_than_two(count, heldout):
    for name in (book(count), lines("notes.jsonl", *({"text": f"Note {i}."} for i in range(count)))):
        documents = own_documents(name)
        train = [number for number, _ in documents.texts("train")]
        assert [number for number, _ in documents.texts("heldout")] == heldout
        assert sorted(train + heldout) == list(range(count))


def test_too_few_documents_are_an_error_that_says_what_a_document_is():
    for name in (book(FEWEST - 1), lines("n.jsonl", *[{"text": "a"}] * 3)):
        with pytest.raises(ValueError, match=r"has 3 documents, .* separate documents by blank lines"):
            own_documents(name)


# --- what is read -----------------------------------------------------------------------------------------


def test_kinds_of_sources_are_told_apart_and_their_digests_are_pinned():
    Path("notes").mkdir()
    for i in range(4):
        Path("notes", f"{i}.txt").write_text(f"Note {i}.", "utf-8")
    chats = lines("chats.jsonl", *({"messages": said("Why?", "So.")} for _ in range(4)))
    text = lines("text.jsonl", *({"text": "One.", "n": i} for i in range(4)))
    Path("rows.csv").write_text('text,n\n"One, ""two"".\nThree.",1\nFour.,2\nFive.,3\nSix.,4\n', "utf-8")
    for name, kind, files in [
        (book(4, "book.md"), Files, [Path("book.md")]),
        ("rows.csv", Column, [Path("rows.csv")]),
        ("./notes/", Files, sorted(Path("notes").iterdir())),
        (text, Column, [Path(text)]),
        (chats, Messages, [Path(chats)]),
    ]:
        found = own_documents(name)
        assert type(found) is kind
        pins = parts.leaves(found)
        assert pins.get("sha256", pins.get("revision")) == sources.fingerprint(files)
        assert parts.read(parts.canonical(found)) == found
    read = [text for split in ("train", "heldout") for _, text in own_documents("rows.csv").texts(split)]
    assert sorted(read) == ["Five.", "Four.", 'One, "two".\nThree.', "Six."]
    assert own_documents("./notes/") == own_documents("notes"), "the spelling of a path is no setting"


def test_a_cell_of_a_csv_file_is_the_text_that_stands_there():
    """An empty one is a row without text, and NA, null and nan are words; in a folder too."""
    Path("tables").mkdir()
    for place in ("rows.csv", "tables/a.csv"):
        Path(place).write_text('n,text\n1,One.\n2,\n3,NA\n4,""\n5,null\n6,nan\n7,Two.\n', "utf-8")
    for place in ("rows.csv", "tables"):
        read = sorted(text for split in ("train", "heldout") for _, text in own_documents(place).texts(split))
        assert read == ["NA", "One.", "Two.", "nan", "null"]
        scored = HubSplit(source=place, config=None, revision=UNRESOLVED, split="train", column="text")
        assert [text for _, text in scored.texts("heldout")] == ["One.", "", "NA", "", "null", "nan", "Two."]


def test_a_row_to_be_scored_that_is_no_text_is_named():
    file = lines("rows.jsonl", {"text": "a"}, {"text": None})
    scored = HubSplit(source=str(file), config=None, revision=UNRESOLVED, split="train", column="text")
    with pytest.raises(ValueError, match=r"rows\.jsonl: column 'text' of row 1 is no text \(None\)"):
        list(scored.texts("heldout"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"words": "a", "n": 1}] * 4, r"has the columns words, n; rename one to 'text', or to 'messages'"),
        ([{"text": "a"}] * 3 + [{"text": None}], r"column 'text' of row 3 is no text \(None\)"),
        ([{"messages": said("a", "b")}] * 3 + [{"messages": [{"role": "user"}]}], r"row 3: .*content"),
        ([{"messages": said("a", "b")[:1]}] * 4, r"row 0 has no message of role 'assistant'"),
    ],
)
def test_rows_that_are_no_text_or_chat_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        prepared(own_data(NANO, lines("rows.jsonl", *rows), None, 16))


def test_what_names_no_data_is_one_line():
    Path("both").mkdir()
    book(4, "both/a.txt")
    lines("both/b.jsonl", {"text": "a"})
    Path("rows").mkdir()
    lines("rows/a.jsonl", *[{"text": "a"}] * 4)
    Path("rows/b.csv").write_text("text\nb\n", "utf-8")
    os.mkfifo("pipe")
    for name, message in [
        ("both", r"both has both a\.txt and b\.jsonl; give one kind"),
        ("rows", r"rows has both a\.jsonl and b\.csv; give one kind"),
        ("bok.txt", r"no file or folder 'bok\.txt'"),
        ("", "the name of the data is empty"),
        ("pipe", "pipe is no regular file"),
    ]:
        with pytest.raises(ValueError, match=message):
            own_documents(name)


def test_changed_text_is_refused_even_by_a_run_that_resolves_anew():
    documents = own_documents(book(4))
    book(5)
    for read in (documents.resolve, lambda: list(documents.texts("train"))):
        with pytest.raises(ValueError, match=r"book\.txt: expected sha256 .*, found .*; restore the file"):
            read()


def test_every_file_of_a_folder_that_is_read_is_hashed():
    """`datasets` reads .ndjson and .jsonl.gz beside .jsonl."""
    Path("notes").mkdir()
    for name in ("a.jsonl", "b.ndjson"):
        lines(f"notes/{name}", *({"text": f"{name} {i}"} for i in range(4)))
    documents = own_documents("notes")
    assert documents.resolve()["revision"] == sources.fingerprint(sorted(Path("notes").iterdir()))
    assert len([*documents.texts("train")]) == 6
    assert [text for _, text in own_documents("notes/b.ndjson").texts("heldout")] == [
        "b.ndjson 1",
        "b.ndjson 3",
    ]
    Path("notes/c.jsonl.gz").write_bytes(gzip.compress(Path("notes/a.jsonl").read_bytes()))
    with pytest.raises(
        ValueError, match=r"notes: the format of c\.jsonl\.gz is not supported, only \.jsonl, "
    ):
        own_documents("notes")


def test_suffixes_in_upper_case_are_read():
    """Windows' programs write them; `datasets` leaves out those of a folder."""
    rows = lines("ROWS.JSONL", *({"text": f"Note {i}."} for i in range(6)))
    assert isinstance(own_documents(rows), Column) and len([*own_documents(rows).texts("train")]) == 4
    Path("notes").mkdir()
    for i, suffix in enumerate(["txt", "TXT"] * 3):
        Path(f"notes/{i}.{suffix}").write_text(f"Note {i}.", "utf-8")
    assert [text for _, text in own_documents("notes").texts("heldout")] == ["Note 2.", "Note 5."]
    Path("rows").mkdir()
    lines("rows/a.jsonl", *({"text": f"Note {i}."} for i in range(6)))
    Path(rows).rename("rows/b.JSONL")
    with pytest.raises(ValueError, match=r"rows/b\.JSONL would not be read; write \.JSONL in lower case"):
        own_documents("rows")


@pytest.mark.parametrize("folder", [False, True])
def test_cells_of_a_csv_file_are_their_text(folder):
    """A cell NA is no missing one, and an empty one is left out, as an empty text is in JSON Lines."""
    Path("notes").mkdir()
    Path("notes/rows.csv").write_text("text,n\nNA,1\nnull,2\n,3\nNone,4\nA text.,5\nA text.,6\n", "utf-8")
    documents = own_documents("notes" if folder else "notes/rows.csv")
    read = sorted(pair for split in ("train", "heldout") for pair in documents.texts(split))
    assert read == [(0, "NA"), (1, "null"), (3, "None"), (4, "A text."), (5, "A text.")]


@pytest.mark.parametrize("folder", [False, True])
def test_rows_that_were_changed_are_read_anew_even_if_their_time_was_not(folder):
    """Copying may keep the time of a file, and on some file systems all files have the same."""
    Path("notes").mkdir()
    for word in ("old", "new"):
        file = lines("notes/rows.jsonl", *({"text": f"{word} note {i}"} for i in range(4)))
        os.utime(file, (0, 0))
        documents = own_documents("notes" if folder else file)
        assert [text for _, text in documents.texts("train")] == [f"{word} note 0", f"{word} note 2"]


# --- rows -----------------------------------------------------------------------------------------


def test_text_loses_nothing_but_the_last_piece():
    """The training rows, read one after the other, are the training documents with the boundary after each."""
    data = own_data(NANO, book(300), None, 16)
    assert isinstance(data, Stream) and isinstance(data.units, Alphabet)
    corpus, vocabulary = prepared(data), data.vocabulary()
    whole: list[int] = []
    for _, text in data.documents.texts("train"):
        assert data.decode(data.encode(text)) == text
        whole += [*data.encode(text), vocabulary.eos]
    assert corpus.train.ids.reshape(-1).tolist() == whole[: len(whole) // 16 * 16]
    assert corpus.train.candidates.all() and vocabulary.bos == vocabulary.eos == vocabulary.size - 1
    assert vocabulary.mask == vocabulary.total - 1 == vocabulary.size


def test_every_answer_is_a_row_that_begins_with_all_turns_before_it():
    talk = [{"role": "system", "content": "Be brief."}, *said("One?", "Yes."), *said("Two?", "No.")]
    data = own_data(NANO, lines("c.jsonl", *[{"messages": talk}] * 4), None, 96)
    assert isinstance(data, Chats)
    rows, end = prepared(data).heldout, data.vocabulary().eos
    before = "system:\nBe brief.\nuser:\nOne?\nassistant:\n"
    for row, (prompt, answer) in enumerate(
        [(before, "Yes."), (f"{before}Yes.\nuser:\nTwo?\nassistant:\n", "No.")]
    ):
        ids = rows.ids[row].tolist()
        first = len(prompt)
        assert data.decode(ids[:first]) == prompt
        assert ids[first:] == [*data.encode(answer), *[end] * (96 - first - len(answer))]
        assert rows.candidates[row].tolist() == [False] * first + [True] * (96 - first)
        assert data.text(ids[first:]) == answer
    assert rows.example.tolist() == [(n << 32) + k for n in (1, 3) for k in (0, 1)]
    assert np.unique(data.clusters(rows.example)).tolist() == [1, 3], "answers of a chat are dependent"
    assert data.decode(data.prompt("One?")) == "user:\nOne?\nassistant:\n"
    with pytest.raises(ValueError, match="length=96 leaves no answer"):
        data.prompt("One?" * 30)


def test_an_answer_that_leaves_no_place_for_its_end_is_left_out(capsys):
    prompt = len("user:\nq\nassistant:\n")
    chats = [{"messages": said("q", "a" * n)} for n in (3, 4, 3, 4, 3, 3)]
    data = own_data(NANO, lines("c.jsonl", *chats), None, prompt + 4)
    assert sorted(prepared(data).train.example >> 32) == [0, 4]
    assert (
        "c.jsonl: 2 of 4 training answers are empty or do not fit" in capsys.readouterr().err.splitlines()[-1]
    )


@pytest.mark.parametrize("template", ["{content}", "{content} {role}", "{role}"])
def test_a_template_has_role_and_content(template):
    made = own_data(NANO, lines("c.jsonl", *[{"messages": said("a", "b")}] * 4), None, None)
    with pytest.raises(ValueError, match="is not of the form"):
        parts.derive(made, {"template": template})


@pytest.mark.parametrize("characters", ["", "ba", "aab"])
def test_an_alphabet_is_sorted_and_distinct(characters):
    with pytest.raises(ValueError, match="are not distinct, sorted characters"):
        Alphabet(characters=characters)


# --- tokenizers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["text", "chats"])
def test_the_tokenizer_of_scale_micro_reads_any_text_and_is_kept(rows):
    micro, chats = CORPORA["micro"], [{"messages": said("Wer?", "Früher ich.")}] * 4
    data = own_data(micro, book(5) if rows == "text" else lines("c.jsonl", *chats), None, None)
    assert data.units == micro.units and data.decode(data.encode("Früher 😀")) == "Früher 😀"
    assert isinstance(own_data(NANO, book(5), None, None).units, Alphabet)


def test_a_tokenizer_of_a_folder_brings_its_special_ids(tokenizer):
    data = own_data(NANO, CHATS, str(tokenizer), 64)
    assert isinstance(data, Chats) and isinstance(data.units, Pretrained)
    assert data.units.revision == sources.fingerprint(sorted(tokenizer.glob("*.json")))
    vocabulary = data.vocabulary()
    assert (vocabulary.bos, vocabulary.eos, vocabulary.mask) == (
        tiny_tokenizer.CLS,
        tiny_tokenizer.SEP,
        tiny_tokenizer.MASK,
    )
    assert vocabulary.total == vocabulary.size == tiny_tokenizer.SIZE
    ids = prepared(data).train.ids
    assert (ids[:, -1] == tiny_tokenizer.SEP).all() and data.decode(ids[0]).startswith("user:\n")


def test_named_tokenizers(tmp_path):
    units = own_data(NANO, book(200), "bpe:260", 16).units
    assert units == Bpe(size=260)
    with pytest.raises(ValueError, match="'many' is no number of ids"):
        own_data(NANO, "book.txt", "bpe:many", 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no \.json file"):
        own_data(NANO, "book.txt", "./empty", 16)


def test_a_tokenizer_without_an_end_says_what_to_add(tokenizer, tmp_path):
    for file in tokenizer.iterdir():
        content = json.loads(file.read_text("utf-8"))
        for kind in ("sep_token", "eos_token"):
            content.pop(kind, None)
        (tmp_path / file.name).write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=r"neither an EOS nor a SEP token .* add eos_token"):
        own_data(NANO, book(4), str(tmp_path), 16)


# --- forms of recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.RECIPES)
def test_own_data_takes_the_form_of_each_recipe(name):
    """Text is packed or padded as in the recipe and chats fill its template; nothing is fetched."""
    base = by_name(name).data
    text = own_data(base, book(4), None, None)
    assert text.row_length() == base.row_length() and text.vocabulary().total >= base.vocabulary().total - 1
    kind = type(getattr(base, "data", base))
    assert type(text) is (kind if issubclass(kind, Joined | Padded) else Stream)
    chats = own_data(base, CHATS, None, 200)
    assert chats.row_length() == 200
    assert type(chats) is (Chats if issubclass(kind, Joined | Padded) else kind)
    if isinstance(chats, Chat):
        assert chats.source_rows == 118 and chats.template == base.template
    else:
        assert TEMPLATE in (getattr(chats, "template", TEMPLATE),)
    assert UNRESOLVED not in (
        parts.leaves(chats).get("revision"),
        parts.leaves(chats).get("documents.revision"),
    )


# --- files as they are found ----------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_character():
    """Windows' editors write it."""
    Path("book.txt").write_bytes(b"\xef\xbb\xbf" + Path(book(6, "plain.txt")).read_bytes())
    assert [*own_documents("book.txt").texts("train")] == [*own_documents("plain.txt").texts("train")]
    rows = lines("plain.jsonl", *({"text": f"Note {i}."} for i in range(6)))
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + Path(rows).read_bytes())
    assert [*own_documents("rows.jsonl").texts("train")] == [*own_documents(rows).texts("train")]


def test_hidden_files_of_a_folder_are_left_out():
    Path("notes/.git").mkdir(parents=True)
    for i in range(6):
        Path(f"notes/{i}.txt").write_text(f"Note {i}.", "utf-8")
    plain = own_documents("notes")
    Path("notes/._1.txt").write_bytes(b"\x00\x05\x16\xff")  # macOS, beside a file on another system's disk
    Path("notes/.git/x.json").write_text("{}", "utf-8")
    assert own_documents("notes") == plain and len([*plain.texts("train")]) == 4


@pytest.mark.parametrize("text", ["", " \n\n", "no blank line\n" * 50])
def test_too_few_documents_are_said_in_the_users_terms(text):
    Path("book.txt").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"has [01] documents, but 4 or more are needed; separate documents"):
        own_documents("book.txt")


@pytest.mark.parametrize(
    ("name", "begin", "what"),
    [
        ("book.txt.gz", b"\x1f\x8b\x08", "compressed"),
        ("rows.jsonl.gz", b"\x1f\x8b\x08", "compressed"),
        ("book.docx", b"PK\x03\x04", "an archive"),
        ("book.pdf", b"%PDF-1.4", "a PDF"),
    ],
)
def test_what_is_no_text_is_named(name, begin, what):
    Path(name).write_bytes(begin + b"a\n\nb\n\nc\n\nd")
    with pytest.raises(ValueError, match=f"{name} is {what} .*and not text; unpack or convert it"):
        own_documents(name)


def test_a_broken_row_is_named():
    rows = [f'{{"text": "Note {i}."}}\n' for i in range(6)]
    Path("rows.jsonl").write_text("".join(rows)[:-6], "utf-8")
    with pytest.raises(ValueError, match=r"JSON parse error: .* in row 5"):
        own_documents("rows.jsonl")


@pytest.mark.parametrize("name", ["char", "chars", "Characters", "characters:3", "bpe", "bpe:"])
def test_a_misspelt_tokenizer_is_not_looked_up_on_the_hub(name):
    with pytest.raises(ValueError, match=r"give (--tokenizer characters|bpe:2048)"):
        own_data(NANO, book(6), name, 16)
