"""What is timed on a machine runs alone; other work waits for it, and it for other work."""

from __future__ import annotations

import fcntl
import threading
import time

import pytest
from helpers.unlocked import refused

from repro.evals.machine import Machine
from repro.evals.work_queue import SERIAL, SharedQueue

KIND = {"device": "cpu"}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


def is_free(path, how):
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_work_runs_beside_work_and_not_beside_what_is_timed(tmp_path):
    machine = Machine(tmp_path / "out")
    with machine.beside(), Machine(tmp_path / "out").beside():
        assert is_free(machine.path("gate"), fcntl.LOCK_EX), "others may begin"
        assert not is_free(machine.path("work"), fcntl.LOCK_EX), "what is timed waits"
    with machine.alone():
        assert not is_free(machine.path("gate"), fcntl.LOCK_EX)
        assert not is_free(machine.path("work"), fcntl.LOCK_SH)
        with Machine(tmp_path / "other").alone():
            pass
    assert is_free(machine.path("gate"), fcntl.LOCK_EX) and is_free(machine.path("work"), fcntl.LOCK_EX)


def test_a_process_that_waits_to_be_alone_is_not_overtaken(tmp_path):
    """It shuts the gate, so that a stream of short work cannot keep it waiting."""
    machine, order, waits = Machine(tmp_path), [], threading.Event()

    def timed():
        waits.set()
        with machine.alone():
            order.append("alone")

    def later():
        with machine.beside():
            order.append("later")

    threads = [threading.Thread(target=timed), threading.Thread(target=later)]
    with machine.beside():
        threads[0].start()
        waits.wait()
        for _ in range(2000):  # until it waits
            if not is_free(machine.path("gate"), fcntl.LOCK_EX):
                break
            time.sleep(0.005)
        threads[1].start()
        order.append("first")
    for each in threads:
        each.join()
    assert order == ["first", "alone", "later"]


def test_no_file_stays_and_a_removed_one_is_no_lock(tmp_path):
    """Many threads that make, lock and remove the files never overlap with one that is alone."""
    running, overlaps = [], []

    def work(number):
        for turn in range(20):
            alone = (number + turn) % 3 == 0
            with Machine(tmp_path).alone() if alone else Machine(tmp_path).beside():
                running.append(alone)
                time.sleep(0.0005)
                overlaps.append(len(running) > 1 and any(running))
                running.pop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(overlaps) == 120 and not any(overlaps)
    assert not list(tmp_path.glob("repro-*"))


def queue(folder, kind=KIND):
    return SharedQueue(folder / "chunks" / "one", "question", kind, None, lambda: False)


def test_chunks_and_results_are_work_of_the_machine(tmp_path):
    work, gate = queue(tmp_path), Machine(tmp_path).path("work")

    def find(span):
        assert not is_free(gate, fcntl.LOCK_EX) and is_free(gate, fcntl.LOCK_SH)
        return len(span)

    assert work.map_chunks(4, 2, find, lambda found, span: found) == [2, 2]
    assert is_free(gate, fcntl.LOCK_EX)
    work.join()
    assert not is_free(gate, fcntl.LOCK_EX), "a result is being made"
    with work.alone():
        assert not is_free(gate, fcntl.LOCK_SH)
    assert not is_free(gate, fcntl.LOCK_EX) and is_free(gate, fcntl.LOCK_SH)
    work.close()
    assert is_free(gate, fcntl.LOCK_EX)


def test_accelerators_and_processes_alone_wait_for_nothing(tmp_path, monkeypatch):
    work = queue(tmp_path, {"device": "cuda"})
    with Machine(tmp_path).alone():
        assert work.map_chunks(1, 1, len, lambda found, span: found) == [1]
        work.join()
        with work.alone():
            work.close()
    with SERIAL.alone():
        pass
    monkeypatch.setattr(fcntl, "flock", refused)
    with Machine(tmp_path).beside(), Machine(tmp_path).alone():
        pass
