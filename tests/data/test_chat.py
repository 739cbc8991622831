"""Data of the reference scripts (docs/method.md#masked-script, docs/method.md#uniform-script), on the shipped chats and
a tiny tokenizer."""

import json
import math

import numpy as np
import pytest
from helpers.tiny_tokenizer import CHATS, CLS, MASK, PAD, SEP, chats

from repro.core.parts import canonical, derive, read
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED, Vocabulary, prepared
from repro.data.dialogues import Dialogues

LENGTH = 64


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory):
    """All output goes to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


def chat(tokenizer, **changes) -> Chat:
    made = Chat(
        source=CHATS,
        revision=UNRESOLVED,
        split="train",
        source_rows=118,
        tokenizer=str(tokenizer),
        tokenizer_revision=UNRESOLVED,
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",
        max_length=LENGTH,
        scored="answer",
        heldout_fraction=0.05,
        split_seed=42,
        size=1000,
        total=1000,
        mask=MASK,
        pad=PAD,
        cls=CLS,
        sep=SEP,
    )
    return derive(made, changes)


def dialogues(tokenizer, source: str) -> Dialogues:
    pins = {"revision": UNRESOLVED, "split": "train", "source_rows": 2, "tokenizer_revision": UNRESOLVED}
    ids = {"size": 1000, "mask": MASK, "begin": CLS, "end": SEP}
    form = {"head": "{role}:", "tail": "\n", "length": LENGTH, "heldout_fraction": 0.05, "seed": 0}
    return Dialogues(source=source, tokenizer=str(tokenizer), **pins, **ids, **form)


def by_example(data: Chat) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Index in the source -> (ids [L], candidates [L]) of every row that is used."""
    return {
        int(name): (ids, candidates)
        for rows in data.build().values()
        for name, ids, candidates in zip(rows.example, rows.ids, rows.candidates, strict=True)
    }


@pytest.fixture(scope="module")
def rows(tokenizer):
    return by_example(chat(tokenizer))


def the_script(tokenizer) -> dict[int, tuple[list[int], list[int]]]:
    """Ids and candidate positions of each row that is used, computed independently from docs/method.md#masked-script,
    row by row."""
    from transformers import PreTrainedTokenizerFast

    tok = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    found = {}
    for name, messages in enumerate(chats()):
        text = f"User: {messages[0]['content']}\n[SEP]\nAssistant:\n{messages[1]['content']}"
        ids = tok(text, truncation=True, padding="max_length", max_length=LENGTH)["input_ids"]
        start = ids.index(SEP) + 1
        if candidates := [p for p in range(start, LENGTH) if ids[p] not in (PAD, SEP)]:
            found[name] = (ids, candidates)
    return found


def test_rows_and_candidates_are_those_of_the_script(tokenizer, rows):
    expected = the_script(tokenizer)
    assert rows.keys() == expected.keys()
    for name, (ids, candidates) in expected.items():
        assert rows[name][0].tolist() == ids and np.flatnonzero(rows[name][1]).tolist() == candidates


def test_a_row_is_cls_text_sep_pads(rows):
    for ids, _ in rows.values():
        written = ids[ids != PAD]
        assert len(ids) == LENGTH and ids[0] == CLS and written[-1] == SEP
        assert (ids[: len(written)] == written).all() and MASK not in ids


def test_candidates_are_the_header_and_the_answer_but_no_separator(tokenizer, rows):
    data = chat(tokenizer)
    for name, (ids, candidates) in rows.items():
        assert not np.isin(ids[candidates], [PAD, SEP]).any()
        if "[SEP]" not in chats()[name][0]["content"]:
            assert data.decode(ids[candidates]).startswith("\nAssistant:\n")


def test_rows_whose_prompt_is_cut_are_dropped(rows):
    long = {name for name, messages in enumerate(chats()) if len(messages[0]["content"]) > 300}
    assert long and long == set(range(len(chats()))) - rows.keys()


def test_an_empty_answer_still_has_candidates(tokenizer, rows):
    (name,) = (name for name, messages in enumerate(chats()) if messages[1]["content"] == "")
    ids, candidates = rows[name]
    assert chat(tokenizer).decode(ids[candidates]) == "\nAssistant:\n"


def test_a_literal_separator_moves_the_answer_into_the_question(tokenizer, rows):
    (name,) = (name for name, messages in enumerate(chats()) if "[SEP]" in messages[0]["content"])
    ids, candidates = rows[name]
    assert (ids == SEP).sum() == 3
    assert chat(tokenizer).decode(ids[candidates]).startswith(" mean in a row of tokens?\n\nAssistant:\n")


def test_a_system_message_makes_the_question_the_answer(tokenizer, rows):
    data, found = chat(tokenizer), 0
    for name, messages in enumerate(chats()):
        if messages[0]["role"] == "system":
            ids, candidates = rows[name]
            assert data.decode(ids[candidates]) == "\nAssistant:\n" + messages[1]["content"]
            found += 1
    assert found == 2


def test_the_chats_have_short_answers(tokenizer):
    """For them int(n u) and max(int(n u), 1) masks differ (docs/method.md#masked-script, consequence 1)."""
    lengths = {len(chat(tokenizer).encode(messages[1]["content"])) for messages in chats()}
    assert {0, 1, 2} <= lengths


def test_scoring_everything_uses_every_row_and_every_id_but_pads(tokenizer):
    rows = by_example(chat(tokenizer, scored="all"))
    assert rows.keys() == set(range(len(chats())))
    for ids, candidates in rows.values():
        assert (candidates == (ids != PAD)).all()


def test_the_split_is_the_librarys(tokenizer, rows):
    """Rows are dropped first, then split as by `Dataset.train_test_split(0.05, seed=42)`."""
    from datasets import Dataset

    expected = Dataset.from_dict({"row": sorted(rows)}).train_test_split(0.05, seed=42)
    splits = chat(tokenizer).build()
    assert splits["heldout"].example.tolist() == expected["test"]["row"]
    assert splits["train"].example.tolist() == expected["train"]["row"]
    assert len(splits["heldout"]) == math.ceil(0.05 * len(rows))


def test_the_full_recipes_step_count(tokenizer):
    """866,138 rows, 5 % held out, 32 a device, 8 devices: 3,215 steps an epoch (docs/method.md#masked-script)."""
    assert math.ceil(math.ceil(chat(tokenizer, source_rows=866_138).expected_rows() / 32) / 8) == 3215


def test_a_whole_block_of_rows_may_be_dropped(tokenizer, tmp_path):
    """A block of 1000 rows without an answer, where the script raises, then three rows with one."""
    endless = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "yes"}]
    short = [{"role": "user", "content": "word?"}, {"role": "assistant", "content": "yes"}]
    file = tmp_path / "chats.jsonl"
    lines = [json.dumps({"messages": chat}) for chat in [endless] * 1000 + [short] * 3]
    file.write_text("\n".join(lines), "utf-8")
    assert by_example(chat(tokenizer, source=str(file))).keys() == {1000, 1001, 1002}
    file.write_text("\n".join(lines[:5]), "utf-8")
    with pytest.raises(ValueError, match="no answer begins within max_length=64"):
        chat(tokenizer, source=str(file)).build()


def test_a_prompt_is_what_precedes_the_answer(tokenizer, rows):
    data = chat(tokenizer)
    for name, messages in enumerate(chats()):
        if name in rows:
            prompt = data.prompt(messages[0]["content"])
            assert rows[name][0][: len(prompt)].tolist() == prompt
    with pytest.raises(ValueError, match="leaves no answer"):
        data.prompt("word " * 100)


def test_masks_appended_as_text_remove_the_newline(tokenizer):
    """Prompts as in the README lack the last id, which the model then has to generate
    (docs/method.md#masked-script)."""
    data = chat(tokenizer)
    ours = data.prompt("Why?")
    readme = data.encode("User: Why?\n[SEP]\nAssistant:\n[MASK][MASK]")
    assert ours[-1] == data.encode("\n")[0]
    assert [CLS, *readme] == [*ours[:-1], MASK, MASK]


def test_the_vocabulary_needs_no_tokenizer_and_a_wrong_one_is_an_error(tokenizer):
    data = chat("nobody/nothing")
    assert data.vocabulary() == Vocabulary(size=1000, total=1000, mask=MASK, bos=CLS, eos=SEP, pad=PAD)
    with pytest.raises(ValueError, match=r"mask=7, but .* has 4"):
        chat(tokenizer, mask=7).encode("hello")
    with pytest.raises(ValueError, match=r"total=900, but .* has 1000 ids"):
        chat(tokenizer, total=900).encode("hello")


def test_text_survives_encoding(tokenizer):
    data = chat(tokenizer)
    assert data.decode(data.encode("naïve café, 42!")) == "naïve café, 42!"
    assert data.decode([CLS, MASK, *data.encode("yes")]) == "[CLS][MASK]yes"


def test_no_network_is_one_line(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    data = chat(tokenizer, source="allenai/tulu-3-sft-mixture-0225")
    for ask in (data.build, data.resolve):
        with pytest.raises(ConnectionError) as error:
            ask()
        assert (
            str(error.value)
            == "cannot fetch allenai/tulu-3-sft-mixture-0225 (no network); connect, or give a local copy"
        )
    with pytest.raises(
        ConnectionError,
        match=r"^cannot fetch answerdotai/ModernBERT-large \(no network\); connect",
    ):
        chat("answerdotai/ModernBERT-large").prompt("Why?")


def test_a_misspelt_path_names_the_nearest(tokenizer):
    with pytest.raises(ValueError, match=r"no file or folder 'evals/data/chat\.jsonl'"):
        chat(tokenizer, source="evals/data/chat.jsonl").build()


def test_resolving_pins_everything(tokenizer):
    data = chat(tokenizer)
    pinned = derive(data, data.resolve())
    assert pinned.source_rows == 118 and UNRESOLVED not in (pinned.revision, pinned.tokenizer_revision)
    assert (pinned.build()["train"].ids == data.build()["train"].ids).all()
    with pytest.raises(ValueError, match=f"expected sha256 {'0' * 64}, found {pinned.revision}"):
        derive(pinned, {"revision": "0" * 64}).build()
    with pytest.raises(ValueError, match="expected 119 rows, found 118"):
        derive(pinned, {"source_rows": 119}).build()


WHY = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


@pytest.mark.parametrize("kind", [Chat, Dialogues])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [WHY, [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": None}]],
            "row 1: .*'null'",
        ),
        ([WHY, [{"role": "user"}, {"role": "assistant", "content": "So."}]], "row 1: .*content"),
        ([WHY, None], "row 1: expected 'array'"),
        ([WHY, [{"role": "user", "content": "Why? " * 99}, WHY[1]]], "1 of its chats can be used, and held"),
    ],
)
def test_chats_that_cannot_be_trained_on_are_one_line(kind, rows, message, tokenizer, tmp_path):
    """A message without text is no text "None" (programs store calls of tools as such messages)."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in rows), "utf-8")
    data = chat(tokenizer, source=str(path)) if kind is Chat else dialogues(tokenizer, str(path))
    with pytest.raises(ValueError, match=rf"rows\.jsonl: {message}"):
        data.build()


def test_preparing_gives_the_same_rows_twice(tokenizer):
    data = chat(tokenizer)
    first, second = prepared(data), prepared(data)
    assert first.digest == second.digest and (first.train.ids == second.train.ids).all()
    assert (first.train.ids == data.build()["train"].ids).all() and first.train.ids.dtype == np.uint16
    assert (first.heldout.candidates == second.heldout.candidates).all()


def test_bad_pins_are_refused(tokenizer):
    for template in ("User: {user} {assistant}", "{user} {sep} {assistant} bye", "{user} {sep} {answer}"):
        with pytest.raises(ValueError, match="is not of the form"):
            chat(tokenizer, template=template)
    with pytest.raises(ValueError, match=r"heldout_fraction=1\.5"):
        chat(tokenizer, heldout_fraction=1.5)
    with pytest.raises(ValueError, match="scored"):
        chat(tokenizer, scored="answers")
    assert read(canonical(chat(tokenizer))) == chat(tokenizer)
