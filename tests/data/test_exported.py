"""The tokenizer of an exported folder gives every text the ids of the data, and every special id a token."""

import pytest

from repro.core import parts
from repro.data.corpus import Data
from repro.data.exported import SPECIAL, special_tokens, tokenizer_of
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
