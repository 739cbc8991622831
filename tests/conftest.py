"""Fixtures that several files share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """Folder of the toy tokenizer (tests/helpers/tiny_tokenizer.py)."""
    from helpers import tiny_tokenizer

    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    """Commands print lines of any width, as into a file; where tests run in parallel, $COLUMNS is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
