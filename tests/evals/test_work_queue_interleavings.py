"""Work queue under random schedules of claiming, computing and killing: no chunk is lost or computed twice."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.evals import work_queue
from repro.evals.work_queue import Busy, shared_queue

COUNT, SIZE = 7, 2
EXPECTED = [sum(span) for span in work_queue.spans(COUNT, SIZE)]
KIND = {"device": "cpu"}


class Killed(BaseException):
    """Ends a worker; its locks are released as the operating system releases those of a killed process."""


def stored(found: int, span: range) -> int:
    return found


class Worker(threading.Thread):
    """A simulated process that computes chunks and stops before every claim and every computation until `step`."""

    def __init__(self, folder: Path, computed: Counter) -> None:
        super().__init__(daemon=True)
        self.queue = shared_queue(folder, "q" * 64, KIND, None, lambda: False)
        self.computed, self.kill, self.ended, self.found = computed, False, False, EXPECTED
        self.resume, self.paused = threading.Semaphore(0), threading.Semaphore(0)
        self.start()
        self.paused.acquire()

    def run(self) -> None:
        try:
            self.pause()
            self.found = self.queue.map_chunks(COUNT, SIZE, self.find, stored)
        except (Busy, Killed):
            pass
        finally:
            self.ended = True
            self.paused.release()

    def find(self, span: range) -> int:
        self.pause()
        self.computed[span.start] += 1
        return sum(span)

    def pause(self) -> None:
        self.paused.release()
        self.resume.acquire()
        if self.kill:
            raise Killed

    def step(self, kill: bool) -> None:
        """Run to the next stop or the end, or kill the worker."""
        self.kill = kill
        self.resume.release()
        self.paused.acquire()


@pytest.fixture(scope="module", autouse=True)
def stop_before_claims():
    """Workers stop before a claim, so that a chunk may be stored between the look for it and the claim."""
    claim = work_queue._claim

    def stopping(path):
        worker = threading.current_thread()
        if isinstance(worker, Worker):
            worker.pause()
        return claim(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_queue, "_claim", stopping)
        yield


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([False, False, False, True])), max_size=50))
def test_no_schedule_loses_or_doubles_a_chunk(schedule):
    computed: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        workers = [Worker(Path(name), computed) for _ in range(3)]
        for number, kill in schedule:
            if workers[number].ended:
                workers[number] = Worker(Path(name), computed)
            workers[number].step(kill)
        for worker in workers:
            if not worker.ended:
                worker.step(kill=True)
            assert worker.found == EXPECTED
        left = set(range(0, COUNT, SIZE)) - set(computed)
        assert set(computed.values()) <= {1}, "a stored chunk was computed again"
        last = shared_queue(Path(name), "q" * 64, KIND, None, lambda: False)
        found = last.map_chunks(COUNT, SIZE, lambda span: (left.remove(span.start), sum(span))[1], stored)
        assert found == EXPECTED
        assert not left, "a chunk was lost"
