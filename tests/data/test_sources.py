"""Local sources: files that a library would hang or crash on are refused before it reads them."""

from __future__ import annotations

import os

import pytest

from repro.core.reading import DEPTH
from repro.data import sources
from repro.data.corpus import UNRESOLVED
from repro.data.documents import AllFiles


def test_a_fifo_and_an_endless_device_are_refused(tmp_path):
    fifo, endless = tmp_path / "fifo.txt", tmp_path / "endless.txt"
    os.mkfifo(fifo)
    endless.symlink_to("/dev/zero")
    for path in (fifo, endless):
        with pytest.raises(ValueError, match=r"is no regular file"):
            AllFiles(path=str(path), sha256=UNRESOLVED).resolve()


@pytest.mark.parametrize("lines", [1, DEPTH + 2])
def test_deeply_nested_rows_are_refused(tmp_path, lines):
    """pyarrow's parser recurses once per level and overflows its stack; the levels may lie on one line or on many."""
    path = tmp_path / "rows.jsonl"
    opening, closing = ['{"a":'] * (DEPTH + 1), ["}"] * (DEPTH + 1)
    path.write_text(("\n" if lines > 1 else "").join([*opening, "1", *closing]), "utf-8")
    with pytest.raises(ValueError, match=rf"rows\.jsonl: {DEPTH + 1} levels of nesting"):
        sources.check_rows(path)


def test_rows_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "café"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows\.jsonl is not UTF-8 text"):
        sources.check_rows(path)


def test_brackets_within_strings_are_no_levels(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "' + "[" * 1000 + '\\" {"}\n' * 1 + '{"text": ' + "[" * DEPTH + "]" * (DEPTH - 1) + "]}"
    )
    with pytest.raises(ValueError, match=f"{DEPTH + 1} levels"):
        sources.check_rows(path)
    path.write_text('{"text": "' + "[" * 1000 + '\\" {"}\n', "utf-8")
    sources.check_rows(path)
    assert sources.dataset(str(path), None, UNRESOLVED, "train")["text"][0].startswith("[[")
