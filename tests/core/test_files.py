"""Atomic writing: whole or not at all, on a full disk too; the next writer removes what a killed one has left."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading

import pytest
import torch
from helpers.disk import contents, fill, free, small_disk
from safetensors.torch import save_file

from repro.core.files import WORKPLACE, atomically, remove, write_text


def killed(work) -> None:
    """Run `work` in a forked process that it ends by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path):
    def write():
        with atomically(tmp_path / "checkpoint") as temporary:
            temporary.mkdir()
            (temporary / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    killed(write)
    (left,) = tmp_path.glob(f".checkpoint*{WORKPLACE}")
    assert (left / "checkpoint" / "half").is_file()
    (tmp_path / f".unlocked{WORKPLACE}").mkdir()  # killed before it was locked
    write_text(tmp_path / "other", "whole")
    assert contents(tmp_path).keys() == {"other"}


def test_a_living_writer_is_left_alone(tmp_path):
    with atomically(tmp_path / "a") as one, atomically(tmp_path / "a") as two:
        write_text(tmp_path / "b", "b")
        one.write_text("one")
        two.write_text("two")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "one", "b": "b"}


def test_a_workplace_taken_for_that_of_a_dead_writer_is_made_again(tmp_path, monkeypatch):
    """Another process removes the first one before it is locked."""
    flock, taken = fcntl.flock, []

    def late(handle, how):
        if not taken:
            (place,) = tmp_path.glob(f".a*{WORKPLACE}")
            taken.append(place)
            place.rmdir()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "a", "whole")
    assert taken and (tmp_path / "a").read_text() == "whole" and contents(tmp_path).keys() == {"a"}


def test_many_writers_of_one_folder_lose_nothing(tmp_path):
    def write(name):
        for turn in range(20):
            write_text(tmp_path / name, f"{name} {turn}")

    threads = [threading.Thread(target=write, args=(f"{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {f"{i}": f"{i} 19" for i in range(8)}


def test_a_removed_folder_is_whole_or_gone(tmp_path, monkeypatch):
    folder = tmp_path / "step"
    (folder / "within").mkdir(parents=True)
    (folder / "within" / "file").touch()

    def stop(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", stop)
        killed(lambda: remove(folder))
    assert not folder.exists()
    write_text(tmp_path / "other", "")
    assert contents(tmp_path).keys() == {"other"}


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_every_file_has_the_mode_that_the_umask_gives(umask, mode, tmp_path):
    """Whatever library writes it: safetensors makes files for their owner alone, and a copy keeps its source's mode."""
    (tmp_path / "source").write_text("text")
    (tmp_path / "source").chmod(0o400)
    before = os.umask(umask)
    try:
        with atomically(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir(parents=True)
            save_file({"a": torch.zeros(1)}, temporary / "inner" / "a.safetensors")
            shutil.copy(tmp_path / "source", temporary / "copy")
        with atomically(tmp_path / "mode") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
        write_text(tmp_path / "text", "text")
    finally:
        os.umask(before)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "source"]
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in written} == {
        name: oct(mode) for name in ("a.safetensors", "copy", "mode", "text")
    }


def save(path):
    save_file({"a": torch.zeros(1 << 20)}, path)


def write_bytes(path):
    path.write_bytes(bytes(1 << 22))


@pytest.mark.parametrize("write", [save, write_bytes])
def test_a_full_disk_is_one_error_whatever_library_writes(write, tmp_path):
    with small_disk(tmp_path, mib=8) as disk:
        write_text(disk / "old", "old")
        for room in (0, 4096, 65536):
            fill(disk, room)
            with (
                pytest.raises(OSError, match="No space left on device") as caught,
                atomically(disk / "old") as at,
            ):
                write(at)
            assert caught.value.filename == str(disk / "old")
            assert contents(disk).keys() == {"old"} and (disk / "old").read_text() == "old"
        free(disk)
        with atomically(disk / "old") as at:
            write(at)
        assert (disk / "old").stat().st_size >= 1 << 22


def test_a_pipe_gets_a_text_and_stays_a_pipe(tmp_path):
    """Renaming a file over /dev/null would replace it for the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 100) == b"text" and pipe.is_fifo()
    os.close(reader)
    with (
        pytest.raises(FileExistsError, match="pipe is a device or a pipe; choose another path"),
        atomically(pipe),
    ):
        pass
    assert pipe.is_fifo() and [each.name for each in tmp_path.iterdir()] == ["pipe"]
