"""`make reproduce` shares its networks among processes (scripts/reproduce.py)."""

from __future__ import annotations

import os
import signal
import time

import pytest
from helpers.shared_work import note

from scripts.reproduce import CELLS, ORACLES, main, shared


@pytest.fixture(autouse=True)
def sigterm():
    """The handler of the tests themselves, after `shared` has set its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_two_processes_do_each_entry_once(tmp_path):
    shared(note, [(tmp_path, str(k)) for k in range(5)], 2)
    found = {path.name: path.read_text() for path in tmp_path.glob("[0-9]")}
    assert sorted(found) == [*"01234"] and len(set(found.values())) == 2
    assert str(os.getpid()) not in found.values()


@pytest.mark.parametrize(("action", "error"), [("fail", SystemExit), ("killed", ValueError)])
def test_one_that_fails_ends_the_others(tmp_path, capfd, action, error):
    began = time.monotonic()
    with pytest.raises(error) as caught:
        shared(note, [(tmp_path, "0", action), (tmp_path, "1", "long"), (tmp_path, "2")], 2)
    assert time.monotonic() - began < 50 and not (tmp_path / "2").exists()
    if action == "fail":
        assert caught.value.code == 2
        assert capfd.readouterr().err == "scripts.reproduce: 0 is wrong; mend it\n"
    else:
        assert "killed by signal 9" in str(caught.value)
    assert not (tmp_path / "late").exists() and not os.path.exists(f"/proc/{(tmp_path / '1').read_text()}")


def test_a_single_entry_is_done_here(monkeypatch, tmp_path):
    """Without processes of its own, so that progress is shown; an oracle has one train seed."""
    done = []
    monkeypatch.setattr("scripts.reproduce._cell", lambda *each: done.append(each))
    monkeypatch.setattr("scripts.reproduce._finish", lambda out, only: 0)
    assert main(["--only", ORACLES[0], "--seeds", "1 0", "--out", str(tmp_path)]) == 0
    assert done == [(ORACLES[0], 0, tmp_path)]
    assert main(["--only", CELLS[0], "--seeds", "1 0", "--out", str(tmp_path), "--processes", "1"]) == 0
    assert done[1:] == [(CELLS[0], 1, tmp_path), (CELLS[0], 0, tmp_path)]
