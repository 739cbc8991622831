"""Sources of chats are prepared in bounded memory: ids wait on disk, and rows are written in chunks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from repro.core import rng
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED, prepared
from repro.data.dialogues import Dialogues
from repro.data.spool import Spool

LENGTH, ROWS = 8192, 400
SHARED = {
    "source": "chats",
    "revision": UNRESOLVED,
    "split": "train",
    "source_rows": ROWS,
    "tokenizer": "bytes",
    "tokenizer_revision": UNRESOLVED,
    "heldout_fraction": 0.1,
    "size": 300,
    "mask": 299,
}
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]


def letters(self, text):
    """Ids that are bytes, so that no library's memory is counted."""
    return list(text.encode())


def blocks(self, source):
    """Ids [100, LENGTH] of all rows, without a tokenizer."""
    for start in range(0, ROWS, 100):
        yield np.full((100, LENGTH), start // 100, np.uint16)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    monkeypatch.setattr("repro.data.sources.dataset", lambda *_: {"messages": [MESSAGES] * ROWS})
    monkeypatch.setattr(Dialogues, "encode", letters)
    monkeypatch.setattr(Chat, "_ids", blocks)
    return tmp_path


def dialogues() -> Dialogues:
    return Dialogues(**SHARED, head="{role}: ", tail="\n", length=LENGTH, seed=0, begin=297, end=298)


def chats() -> Chat:
    fields = {"template": "{user}{sep}{assistant}", "max_length": LENGTH, "scored": "all", "split_seed": 0}
    return Chat(**SHARED, **fields, total=300, pad=295, cls=296, sep=297)


@pytest.mark.parametrize("make", [dialogues, chats])
def test_rows_of_a_large_source_do_not_stand_in_memory(make, place, monkeypatch):
    """10 MB of rows (ids of two bytes and candidates of one) within 7 MB; a chunk of 64 rows takes 1.6."""
    data = make()
    rng.uniform(rng.keys(0, rng.LENGTH, -1, 0)).item()  # imports of torch are not counted
    rng.permutation(0, rng.ORDER, -1, 2)
    monkeypatch.setattr("repro.data.corpus.BLOCK", 1 << 16)
    monkeypatch.setattr(f"{type(data).__module__}.CHUNK", 64)
    tracemalloc.start()
    corpus = prepared(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for rows in (corpus.train, corpus.heldout):
        assert isinstance(rows.ids, np.memmap) and isinstance(rows.candidates, np.memmap)
    total = corpus.train.ids.nbytes + corpus.train.candidates.nbytes
    assert total > 8e6 and peak < 7e6
    built = data.build()
    assert np.array_equal(built["train"].ids, corpus.train.ids)
    assert sorted([*corpus.train.example, *corpus.heldout.example]) == list(range(ROWS))


def test_a_spool_gives_back_what_was_written(place):
    given = [np.arange(5), np.empty(0, np.int64), np.array([255])]
    with Spool(np.dtype(np.uint8)) as spool:
        for ids in given:
            spool.append(ids)
        again = spool.read()
        assert [again[i].tolist() for i in range(len(again))] == [ids.tolist() for ids in given]
        assert isinstance(again.flat, np.memmap) and not list((place / "data").iterdir())
        with pytest.raises(ValueError, match="ids from 256 to 256 do not fit uint8"):
            spool.append(np.array([256]))
    with Spool(np.dtype(np.uint8)) as spool:
        assert len(spool.read()) == 0
