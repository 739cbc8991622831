"""The tokenizer of an exported folder gives every text the ids of the data, and every special id a token."""

import pytest

from repro.core import parts
from repro.data.byte_level import trained_tokenizer
from repro.data.corpus import Data
from repro.data.exported import SPECIAL, keep_tokenizer_of, special_tokens, tokenizer_of
from repro.data.own import own_data
from repro.recipes.scale import CORPORA

WRITTEN = {
    "nano": "ABC7",
    "nano.lexicon": "abcd",
    "nano.sudoku": ".3122....23.34..=",
    "nano.text": "We the people.",
}


@pytest.mark.parametrize("name", CORPORA)
def test_ids_are_those_of_the_corpus(name):
    same_ids(CORPORA[name], WRITTEN.get(name, "We the people: 1,234 “états” 😀"))


@pytest.mark.parametrize("tokenizer", ["characters", "bpe:300", "gpt2"])
def test_ids_are_those_of_the_users_tokenizer(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    (tmp_path / "book.txt").write_text("\n\n".join(f"We, the people of {i}." for i in range(40)), "utf-8")
    data = own_data(CORPORA["nano.text"], str(tmp_path / "book.txt"), tokenizer, 16)
    same_ids(parts.derive(data, data.resolve()), "We, the people of 7.")


def test_an_exported_bpe_is_read_where_its_documents_are_not(tmp_path, monkeypatch):
    """It is no replacement for one that is trained: where the documents are at hand, they decide."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "here"))
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(f"We, the people of {i}." for i in range(40)), "utf-8")
    data = own_data(CORPORA["nano.text"], str(book), "bpe:300", 16)
    data = parts.derive(data, data.resolve())
    ids = list(data.encode("We, the people of 7."))
    tokenizer_of(data).save(str(tmp_path / "tokenizer.json"))
    book.rename(tmp_path / "gone.txt")
    trained_tokenizer.cache_clear()
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "there"))
    with pytest.raises(ValueError, match="no file or folder"):
        data.decode(ids)
    keep_tokenizer_of(data, tmp_path)
    assert data.decode(ids) == "We, the people of 7." and list(data.encode("We, the people of 7.")) == ids
    (stored,) = (tmp_path / "there" / "data").glob("exported-bpe-*.json")
    stored.write_text(stored.read_text("utf-8").replace("people", "person"), "utf-8")
    (tmp_path / "gone.txt").rename(book)
    trained_tokenizer.cache_clear()
    assert data.decode(ids) == "We, the people of 7."


def test_an_exported_bpe_of_another_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    (tmp_path / "book.txt").write_text("\n\n".join(f"We, the people of {i}." for i in range(40)), "utf-8")
    data = own_data(CORPORA["nano.text"], str(tmp_path / "book.txt"), "bpe:300", 16)
    data = parts.derive(data, data.resolve())
    tokenizer_of(data).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer.json has 300 ids, not 301; export the checkpoint again"):
        keep_tokenizer_of(parts.derive(data, {"units.size": 301}), tmp_path)


def same_ids(data: Data, text: str) -> None:
    ids = list(data.encode(text))
    made = tokenizer_of(data)
    assert made.encode(text, add_special_tokens=False).ids == ids
    assert made.decode(ids, skip_special_tokens=False) == text == data.decode(ids)
    vocabulary, special = data.vocabulary(), special_tokens(made, data.vocabulary())
    found = {name: made.token_to_id(token) for name, token in special.items()}
    given = {name: getattr(vocabulary, name) for name, _ in SPECIAL}
    assert found == {name: number for name, number in given.items() if number is not None}
    assert (
        made.decode([vocabulary.mask], skip_special_tokens=False)
        == "[MASK]"
        == data.decode([vocabulary.mask])
    )
