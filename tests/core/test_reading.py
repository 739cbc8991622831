"""Files of others: what is wrong with one is a ValueError of one line that names it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from repro.core import files
from repro.core.cli import Parser, run
from repro.core.errors import LONGEST, MOST, nearest, one_line
from repro.core.reading import DEPTH, foreign, parse_json, read_json, read_text, read_toml, regular


class Pair(msgspec.Struct):
    a: int
    b: list[float]


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "has more than 40 digits"),
        ("[" * 5000, f"more than {DEPTH} levels of nesting"),
        ("[" * 70 + "]" * 70, f"more than {DEPTH} levels of nesting"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("\ufeff{}", "BOM"),
        ('{"a": 1}', "missing required field 'b'"),
        ('{"a": "x", "b": []}', "expected 'int', got 'str' - at 'a'"),
        ("", "not sound JSON"),
    ],
)
def test_json_is_read_strictly(text, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        parse_json(text, Pair, "FILE:3", "correct it")
    assert str(error.value).startswith("FILE:3: ") and str(error.value).endswith("; correct it")


def test_what_is_no_file(tmp_path):
    """A FIFO and a device would be read for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path in (
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "loop",
        Path("/dev/zero"),
        tmp_path / "absent",
        Path("a\0b"),
    ):
        with pytest.raises(ValueError, match=r"give a(n existing)? file") as error:
            regular(path)
        assert str(path) in str(error.value)


def test_a_pointer_of_git_lfs_is_not_its_file(tmp_path):
    pointer = tmp_path / "corpus.txt"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(ValueError, match=r"corpus\.txt is a pointer of Git LFS .*`git lfs pull`"):
        read_text(pointer)


def test_toml_and_bytes(tmp_path):
    path = tmp_path / "x.toml"
    for text, said in (
        (b"a = nan", "the value of .a. is nan; it must be a finite number; correct it"),
        (b"a = 1\na = 2", "overwrite"),
        (b"\xff", "not UTF-8 text"),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=f"x.toml.*{said}"):
            read_toml(path, dict)
    path.write_text('{"a": 1, "b": [2]}', "utf-8")
    assert read_json(path, Pair) == Pair(1, [2.0])


def test_whatever_a_library_raises_is_one_line(tmp_path, capfd):
    """tokenizers raises bare exceptions, and panics, which are BaseExceptions and print on their own."""
    from tokenizers import Tokenizer

    class PanicException(BaseException):
        pass

    with (
        pytest.raises(ValueError, match="x is truncated or not a tokenizer"),
        foreign(tmp_path / "x", "tokenizer"),
    ):
        Tokenizer.from_str("{}")
    with (
        pytest.raises(ValueError, match=r"x is truncated or not a tokenizer \(no entry\)"),
        foreign(tmp_path / "x", "tokenizer"),
    ):
        os.write(2, b"thread panicked\n")
        raise PanicException("no entry")
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt), foreign(tmp_path / "x", "tokenizer"):
        raise KeyboardInterrupt


def test_memory_and_long_messages(capsys):
    def main(argv):
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    with pytest.raises(SystemExit) as end:
        run(main, "prog")
    assert end.value.code == 2 and capsys.readouterr().err.startswith("prog: out of memory (")
    assert one_line(MemoryError()).startswith("out of memory (no more can be allocated)")
    assert len(one_line(ValueError("x" * 10**6))) < LONGEST + 10
    assert nearest("zzz", map(str, range(100))).endswith(f"and {100 - MOST} more")


@pytest.mark.parametrize("words", [["--path", ""], ["--path= "], ["--path=--"]])
def test_an_empty_value(words):
    parser = Parser("prog", "", ["prog --n 1"])
    parser.add_argument("--path")
    with pytest.raises(ValueError, match=r"--path is .*; give a value"):
        parser.parse_args(words)


def test_a_lock_that_another_process_holds_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "WAIT", 0.05)
    path = tmp_path / "x.lock"
    script = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print(flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        acquire = FileLock.acquire

        def release_first(lock, timeout=None, **more):
            if timeout is None and holder.poll() is None:  # the second, silent wait
                holder.communicate("\n")
            return acquire(lock, timeout, **more)

        monkeypatch.setattr(FileLock, "acquire", release_first)
        with files.locked(path):
            pass
    assert capsys.readouterr().err == f"waiting for {path}, which another process holds\n"
