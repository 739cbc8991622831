"""Where a file system has no locks, processes of one launcher split the chunks by their number."""

from __future__ import annotations

import fcntl

import pytest
from filelock import SoftFileLock, Timeout
from helpers.processes import together
from helpers.unlocked import refused, scored

from repro.core.cli import launched
from repro.core.files import locked
from repro.evals.work_queue import Busy, SharedQueue
from repro.results.record import text
from repro.results.store import collect


def process(monkeypatch, rank: int, world: int = 2) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def queue(folder) -> SharedQueue:
    return SharedQueue(folder / "chunks", "question", {}, None, lambda: False)


def map_all(work: SharedQueue) -> list[int]:
    """The sums of five chunks of two items."""
    return work.map_chunks(10, 2, lambda span: sum(span), lambda found, span: found)


def test_each_process_computes_its_share_and_the_first_combines(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused)
    process(monkeypatch, 0)
    first = queue(tmp_path)
    with pytest.raises(Busy) as waits:
        map_all(first)
    chunks = tmp_path / "chunks"
    assert sorted(path.stem for path in chunks.glob("*.json")) == ["0-0", "0-4", "0-8"]
    assert not waits.value.over(), "the second process has not begun"
    process(monkeypatch, 1)
    second = queue(tmp_path)
    assert map_all(second) == [1, 5, 9, 13, 17]
    assert waits.value.over()
    with pytest.raises(Busy) as combined:
        second.join()
    assert not combined.value.over()
    process(monkeypatch, 0)
    first = queue(tmp_path)
    assert map_all(first) == [1, 5, 9, 13, 17]
    first.join()
    first.finish()
    first.close()
    assert combined.value.over()


def test_processes_without_locks_share_parts_of_one_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused)
    process(monkeypatch, 1)
    work = queue(tmp_path)
    with pytest.raises(Busy):
        work.each(range(4), lambda part: work.map_chunks(1, 1, lambda span: part, lambda found, span: found))
    assert sorted(path.stem for path in (tmp_path / "chunks").glob("*.json")) == ["1.0-0", "3.0-0"]


def test_a_process_alone_computes_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    work = queue(tmp_path)
    assert map_all(work) == [1, 5, 9, 13, 17]
    work.join()


def test_other_errors_of_locks_are_not_hidden(tmp_path, monkeypatch):
    def broken(handle, how):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        map_all(queue(tmp_path))


def test_two_processes_without_locks_give_the_records_of_one(tmp_path, monkeypatch):
    """Byte for byte but for what was measured."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    given = [
        "--ckpt",
        "oracle:mdlm@nano",
        "--samplers",
        "ancestral",
        "--tasks",
        "law:samples=1024",
        "--tokens-per-step",
        "8",
    ]
    two = [*given, "--out", str(tmp_path / "two")]
    assert together(2, scored, two, environment={}) == [0, 0]
    assert together(1, scored, [*given, "--out", str(tmp_path / "one")], environment={}) == [0]
    one, two = (
        sorted((text(each.question), text(each.answer)) for each in collect(tmp_path / name / "raw"))
        for name in ("one", "two")
    )
    assert one == two and len(one) == 1
    assert not (tmp_path / "two" / "chunks").exists()


def test_a_file_stands_for_a_lock_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused)
    soft = tmp_path / "lock.soft"
    with locked(tmp_path / "lock"), pytest.raises(Timeout):
        SoftFileLock(soft, timeout=0, is_singleton=False).acquire()
    assert not soft.exists()
    monkeypatch.undo()
    with locked(tmp_path / "lock"):
        assert not soft.exists()


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "many")])
def test_a_launcher_with_wrong_numbers_is_named(rank, world, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=f"RANK={rank} of WORLD_SIZE={world}"):
        launched()
