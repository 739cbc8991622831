"""The commit of a checkout, and what does not have one."""

from __future__ import annotations

from helpers.checkouts import checkout

from repro.core.checkouts import commit, head


def test_a_checkout_is_named_by_its_commit_and_changes_are_marked(tmp_path):
    made = checkout(tmp_path, {"a.py": "one = 1\n", "inner/b.py": "two = 2\n", "note.txt": "x"})
    assert head(tmp_path / "inner") == made
    assert commit(tmp_path, ["a.py", "inner/b.py"]) == made
    assert commit(tmp_path / "inner", ["b.py"]) == made
    (tmp_path / "note.txt").write_text("y")
    (tmp_path / "a.py").unlink()
    assert commit(tmp_path, ["inner/b.py"]) == made, (
        "a text does not count, nor does a file that is not there"
    )
    (tmp_path / "inner" / "b.py").write_text("two = 3\n")
    assert commit(tmp_path, ["inner/b.py"]) == f"{made}+"


def test_a_copy_within_another_checkout_has_no_commit(tmp_path):
    checkout(tmp_path, {"a.py": ""})
    (tmp_path / "copied").mkdir()
    (tmp_path / "copied" / "peer.py").write_text("")
    assert commit(tmp_path / "copied", ["peer.py"]) is None


def test_no_checkout_and_no_git_is_no_commit(tmp_path, monkeypatch):
    assert commit(tmp_path, ["a.py"]) is None and head(tmp_path) is None
    made = checkout(tmp_path, {"a.py": ""})
    assert head(tmp_path) == made
    before = (tmp_path / ".git" / "index").stat().st_mtime_ns
    assert commit(tmp_path, ["a.py"]) == made
    assert (tmp_path / ".git" / "index").stat().st_mtime_ns == before
    monkeypatch.setenv("PATH", "/nonexistent")
    assert head(tmp_path) is None and commit(tmp_path, ["a.py"]) is None
