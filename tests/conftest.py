"""Fixtures that several files share."""

from __future__ import annotations

import gc

import pytest

LONG = ("tests/test_fuzz.py", "tests/training/", "tests/certify/test_foreign.py", "tests/benchmarks/")
"""Places of the tests that take longest."""


def pytest_configure():
    """Search for garbage seldom: the imports make half a million objects, which took a third of the time of the
    collection of tests."""
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items):
    """Begin with the tests that take longest, so that of several processes none ends long before another."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish():
    """Leave what imports made out of all further searches for garbage, which also spares forked processes its pages."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """Folder of the toy tokenizer (tests/helpers/tiny_tokenizer.py)."""
    from helpers import tiny_tokenizer

    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    """Commands print lines of any width, as into a file; where tests run in parallel, $COLUMNS is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
