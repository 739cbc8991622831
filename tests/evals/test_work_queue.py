"""Work queue: processes share the chunks of a question; kills lose, double and change nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import lm_worlds
from helpers.toy import toy

from repro import load
from repro.core import devices, registry
from repro.core.files import ROOT
from repro.core.parts import sha256
from repro.evals import __main__ as command_line
from repro.evals import work_queue
from repro.evals.lm import adapter
from repro.evals.perplexity.perplexity import HeldoutBound
from repro.evals.request import Prepared, Request, cells, prepare
from repro.evals.runner import numerics, question
from repro.evals.suites import Suite
from repro.evals.tasks.law import Law
from repro.evals.work_queue import Busy, SerialQueue, shared_queue, spans
from repro.results.difference import difference
from repro.results.store import Store, collect
from repro.training.loop import train

KIND = {"device": "cpu", "dtype": "float32", "torch": "2", "attention": "sdpa", "threads": 1}


@pytest.fixture(autouse=True)
def small(tmp_path_factory, monkeypatch):
    """Small chunks, so that there are many."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setattr(work_queue, "ROWS", 8)
    monkeypatch.setattr(adapter, "REQUESTS", 3)
    monkeypatch.setitem(registry.PARTS, "letters", "lm_worlds:Letters")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "run"
    os.environ["REPRO_RUNS"] = str(tmp_path_factory.getbasetemp() / "runs")
    train(toy("mdlm", "data.heldout=64", "steps=5"), seed=0, out=folder, stop=None, resume=False)
    return load(folder)


def toy_grid(model, folder, batch=None):
    """A bound and two samplers' laws of a trained network: five questions in 25 chunks."""
    tasks = [
        HeldoutBound(name="bound", rows=40, skip_rows=0, passes=2),
        Law(name="law", samples=40),
    ]
    suite = Suite("toy", [4, 8], tasks, {"law": ["ancestral", "random:temperature=1.0"]}, [])
    found, skipped = cells(suite, model, Request(batch=batch), lambda task, model: task.skip(model))
    return Prepared(model, suite, found, skipped, Store(folder / "raw"), batch, [])


def lm_grid(folder, batch=None):
    """Multiple choice, rolling sums and texts through lm-eval, with a random network."""
    yaml = lm_worlds.tasks(folder.parent)
    real = load("oracle:mdlm@nano")
    model = replace(lm_worlds.diffusion(), recipe=real.recipe, digest=real.digest)
    names = [str(yaml[name]) for name in ("choice", "rolling", "writing")]
    request = Request(["random"], names, [2.0], out=folder, estimator="levels:draws=8", batch=batch)
    return prepare(model, request)


def answers(folder: Path):
    """Answers of the records in a folder by question; each question has one record."""
    records = collect(folder)
    assert len({r.id for r in records}) == len(records)
    return {r.id: r.answer.data() for r in records}


def same(one, other):
    assert one.keys() == other.keys()
    for name, answer in one.items():
        assert difference(answer, other[name]) is None, (answer, other[name])


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The toy grid's answers, computed by one process."""
    out = tmp_path_factory.mktemp("whole")
    assert [fresh for _, fresh in toy_grid(trained, out).run()] == [True] * 5
    assert not (out / "chunks").exists(), "chunks are removed once the record is written"
    return answers(out)


# --- batches --------------------------------------------------------------------------------------------------


def test_answers_do_not_depend_on_batch_or_chunks(trained, whole, tmp_path, monkeypatch):
    """A bound and generation one row at a time, and in other chunks: tokens equal, floats to 1e-5."""
    seen = []
    kind = type(trained.denoiser)
    encode = kind.encode
    monkeypatch.setattr(
        kind, "encode", lambda self, ids, *a, **k: seen.append(len(ids)) or encode(self, ids, *a, **k)
    )
    for batch, rows, most in ((1, 8, 1), (None, 512, 40)):
        monkeypatch.setattr(work_queue, "ROWS", rows)
        out = tmp_path / f"{batch}-{rows}"
        list(toy_grid(trained, out, batch).run())
        same(whole, answers(out))
        assert max(seen) == most, "a forward has at most --batch-size rows"


def test_lm_answers_do_not_depend_on_batch_or_chunks(tmp_path, monkeypatch):
    """Likelihoods (multiple choice, rolling) and texts through lm-eval, items too; a question that another process
    holds comes last."""
    found, items = [], []
    for batch, requests in ((1, 3), (None, 64)):
        monkeypatch.setattr(adapter, "REQUESTS", requests)
        out = tmp_path / f"{batch}"
        out.mkdir()
        grid = lm_grid(out, batch)
        first = question(grid.model, grid.cells[0]).id
        held = shared_queue(out / "chunks", first, numerics(grid.model), None, lambda: False)
        held.join()
        order = []
        for record, _ in grid.run():
            order.append(record.labels.task)
            held.close()
        assert order == ["rolling", "writing", "choice"]
        found.append(answers(out))
        files = sorted((out / "items").glob("*.jsonl"))
        items.append([json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()])
    for one, mine in zip(found, items, strict=True):
        same(found[0], one)
        assert difference(items[0], mine) is None
    assert len(items[0]) == 18 and len(found[0]) == 3


def test_flags_of_processes_are_checked(monkeypatch):
    """A batch of 0 is an error; a process takes the GPU of its local rank, modulo their number."""
    with pytest.raises(ValueError, match="give 1 or more"):
        command_line.main(["--ckpt", "oracle:mdlm@nano", "--batch-size", "0"])
    taken = []
    monkeypatch.setattr(devices, "_best", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    devices.take_device()
    for rank in "013":
        monkeypatch.setenv("LOCAL_RANK", rank)
        devices.take_device()
    assert taken == [0, 1, 1]


# --- chunks ---------------------------------------------------------------------------------------------------


def test_a_finished_chunk_is_never_computed_again(tmp_path):
    """Chunks finished before a failure are read back exactly."""
    done = []

    def find(rows):
        if rows.start == 6:
            raise RuntimeError("killed")
        done.append(rows.start)
        return [1 / 3 + i for i in rows]

    def work():
        return shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)

    with pytest.raises(RuntimeError):
        work().map_chunks(10, 3, find, found)
    assert done == [0, 3]
    again = work()
    args = 10, 3, lambda rows: [1 / 3 + i for i in rows], found
    assert again.map_chunks(*args) == SerialQueue(None).map_chunks(*args)
    assert done == [0, 3] and 0 < again.own < again.seconds
    other = shared_queue(tmp_path, "q" * 64, KIND | {"threads": 2}, None, lambda: False)
    assert other.map_chunks(1, 3, lambda rows: "own", found) == ["own"], "numerics classes share no chunks"


def test_a_process_skips_chunks_that_another_holds(tmp_path):
    """The second process computes what the first does not hold, then names the lock that it waits for."""
    one, other = (shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False) for _ in range(2))
    order = []

    def slow(rows):
        order.append(("one", rows.start))
        if rows.start == 0:
            with pytest.raises(Busy) as busy:
                other.map_chunks(9, 3, lambda rows: order.append(("other", rows.start)) or rows.start, found)
            assert busy.value.lock.name == "0-0.lock" and not busy.value.over()
        return rows.start

    assert one.map_chunks(9, 3, slow, found) == [0, 3, 6]
    assert order == [("one", 0), ("other", 3), ("other", 6)]
    one.join()
    second = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)
    with pytest.raises(Busy) as busy:
        second.join()
    one.close()
    assert busy.value.over()
    second.join()


def test_a_process_goes_on_with_the_parts_that_another_does_not_hold(tmp_path):
    """Three parts of two stages each; the first process is in the first stage of part 0, so the second can compute all
    of the others, whose stages it must not count as those of part 0."""
    one, other = (shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False) for _ in range(2))
    order = []

    def stages(work, name, meanwhile):
        def find(rows):
            order.append(name)
            meanwhile()
            return name

        return [work.map_chunks(1, 1, find, found)[0] for _ in range(2)]

    def second():
        if len(order) == 1:
            with pytest.raises(Busy) as busy:
                other.each("abc", lambda name: stages(other, name, lambda: None))
            assert busy.value.lock.name == "0.0-0.lock"

    assert one.each("abc", lambda name: stages(one, name, second)) == [[name, name] for name in "abc"]
    assert order == ["a", "b", "b", "c", "c", "a"]


def test_a_question_answered_meanwhile_is_not_computed_again(tmp_path):
    work = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: True)
    with pytest.raises(Busy):
        work.map_chunks(3, 3, lambda rows: pytest.fail("computed again"), found)
    with pytest.raises(Busy):
        work.join()


def test_chunks_that_are_removed_before_they_are_read_are_busy(tmp_path, monkeypatch):
    """Another process writes the record and removes the chunks between the check and the reading."""
    one, other = (shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False) for _ in range(2))
    one.map_chunks(2, 1, lambda rows: rows.start, found)
    read = other._read

    def late(*args):
        one.finish()
        return read(*args)

    monkeypatch.setattr(other, "_read", late)
    with pytest.raises(Busy) as busy:
        other.map_chunks(2, 1, lambda rows: rows.start, found)
    assert busy.value.over(), "no process holds them: the record is looked for next"


def found(stored, span):
    """What a chunk holds, unchecked."""
    return stored


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.replace("0.5", "0.6"), "was changed after it was written"),
        (lambda t: t[:-9], "not sound JSON"),
        (lambda t: "[1]", "expected 'object'"),
    ],
)
def test_a_changed_chunk_is_refused(tmp_path, spoil, says):
    work = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)
    work.map_chunks(2, 1, lambda rows: 0.5, found)
    path = work.folder / "0-1.json"
    path.write_text(spoil(path.read_text()))
    again = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)
    with pytest.raises(ValueError, match=rf"0-1\.json.*{says}.*remove it and run again"):
        again.map_chunks(2, 1, lambda rows: 0.5, found)


def sealed(path, **changed):
    """Another content under a hash that is right, as another version may write it."""
    body = json.dumps(json.loads(json.loads(path.read_text())["chunk"]) | changed)
    path.write_text(json.dumps({"sha256": sha256(body), "chunk": body}))


def refusing(stored, span):
    if stored != 0.5:
        raise ValueError("it is not one half")
    return stored


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"found": 0.6}, "it is not one half"),
        ({"question": "other"}, "rows are those of another evaluation"),
        ({"rows": [1, 3]}, "rows are those of another evaluation"),
        ({"rows": None}, "expected 'array', got 'null' - at 'rows'"),
        ({"seconds": "x"}, "expected 'float', got 'str' - at 'seconds'"),
    ],
)
def test_a_chunk_of_other_contents_is_refused(tmp_path, changed, says):
    work = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)
    work.map_chunks(2, 1, lambda rows: 0.5, refusing)
    sealed(work.folder / "0-1.json", **changed)
    again = shared_queue(tmp_path, "q" * 64, KIND, None, lambda: False)
    with pytest.raises(ValueError, match=r"0-1\.json does not fit this evaluation .* remove it") as error:
        again.map_chunks(2, 1, lambda rows: 0.5, refusing)
    assert says in str(error.value)


def test_chunks_cover_every_item_once():
    assert [list(s) for s in spans(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]] and spans(0, 3) == []


# --- several processes, kills --------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A file with a line (event, name, process) for each chunk begun or stored and each record written."""
    path = tmp_path / "log"
    path.touch()

    def note(*words):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
        os.close(file)

    compute, append = work_queue.SharedQueue._compute, Store.append

    def noted_compute(self, place, span, find):
        note("begin", f"{place.parent.name}/{place.name}", os.getpid())
        compute(self, place, span, find)
        note("end", f"{place.parent.name}/{place.name}", os.getpid())

    def noted_append(self, record):
        added = append(self, record)
        note("record" if added else "again", record.id[:16], os.getpid())
        return added

    monkeypatch.setattr(work_queue.SharedQueue, "_compute", noted_compute)
    monkeypatch.setattr(Store, "append", noted_append)
    return path


def nothing_twice(log: Path) -> Counter:
    """Check that no chunk was begun after it was stored and no record written twice; count chunks by process."""
    ended, by = set(), Counter()
    for line in log.read_text().splitlines():
        what, which, process = line.split()
        assert what != "again" and which not in ended, line
        if what in ("end", "record"):
            ended.add(which)
        if what == "end":
            by[process] += 1
    return by


def writer(grid) -> int:
    """A process that runs a grid; forked, since imports cost more than the work."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in grid.run():
                pass
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_writers_lose_and_double_nothing(trained, whole, tmp_path, log):
    grid = toy_grid(trained, tmp_path / "out")
    children = [writer(grid) for _ in range(2)]
    assert [ended(child) for child in children] == [0, 0]
    same(whole, answers(tmp_path / "out"))
    assert sum(nothing_twice(log).values()) == 5 * 5
    assert not (tmp_path / "out" / "chunks").exists()


def test_a_kill_before_the_record_is_written_costs_no_chunk(trained, whole, tmp_path, log, monkeypatch):
    """A kill just after it leaves chunks that the next run removes."""
    grid = replace(toy_grid(trained, tmp_path / "out"), cells=toy_grid(trained, tmp_path).cells[:1])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "append", lambda *rest: os.kill(os.getpid(), signal.SIGKILL))
        child = writer(grid)
        assert ended(child) == -signal.SIGKILL
    with monkeypatch.context() as patched:
        patched.setattr(work_queue.SharedQueue, "finish", lambda *rest: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(writer(grid)) == -signal.SIGKILL
    assert list((tmp_path / "out" / "chunks").glob("*/*.json"))
    assert [fresh for _, fresh in grid.run()] == [False]
    assert answers(tmp_path / "out").items() <= whole.items()
    assert sum(nothing_twice(log).values()) == 5 and not (tmp_path / "out" / "chunks").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_any_moment_lose_double_and_change_nothing(kills, trained, whole, tmp_path, log):
    """kill -9 at random times, of one process or two, until the grid is done: the answers of an undisturbed run."""
    draw, killed, finished = random.Random(kills), 0, 0
    out = tmp_path / "out"
    grid = toy_grid(trained, out)
    began = time.monotonic()
    assert ended(writer(toy_grid(trained, tmp_path / "timed"))) == 0
    took = time.monotonic() - began
    log.write_text("")
    while killed < kills or finished == 0:
        children = [writer(grid) for _ in range(draw.choice([1, 1, 2]))]
        time.sleep(draw.uniform(0, took / 3) if killed < kills else took)
        for child in children[: draw.choice([1, len(children)])]:
            os.kill(child, signal.SIGKILL if killed < kills else 0)
        codes = [ended(child) for child in children]
        killed += codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, -signal.SIGKILL}, codes
        if 0 in codes:  # a process that exits with 0 has seen every answer
            same(whole, answers(out))
            nothing_twice(log)
            finished += 1
            shutil.rmtree(out)
            log.write_text("")
    assert killed >= kills and finished


def test_only_the_first_process_of_a_launch_prints(tmp_path, monkeypatch, capsys):
    """The others print nothing and find every record."""
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--samplers", "ancestral"]
    arguments += ["--tokens-per-step", "8", "--samples", "40", "--out", str(tmp_path), "--batch-size", "7"]
    for rank, spoken in (("1", ("", "")), ("0", ("law", "records:"))):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert command_line.main(arguments) == 0
        said = capsys.readouterr()
        assert all(word in text and bool(word) == bool(text) for word, text in zip(spoken, said, strict=True))
    assert len(answers(tmp_path)) == 1


@pytest.mark.slow
def test_two_launched_processes_answer_as_one(tmp_path, monkeypatch):
    """accelerate launch: the records of one process; the first process alone prints."""
    monkeypatch.setattr(work_queue, "ROWS", 512)
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--samplers", "ancestral,random"]
    arguments += ["--tokens-per-step", "8", "--samples", "600"]
    assert command_line.main([*arguments, "--out", str(tmp_path / "one")]) == 0
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch"]
    launch += ["--config_file", str(ROOT / "recipes" / "launch" / "cpu_2.yaml"), "-m", "repro.evals"]
    done = subprocess.run(
        [sys.executable, *launch, *arguments, "--out", str(tmp_path / "two"), "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)["records"]
    same(answers(tmp_path / "one"), answers(tmp_path / "two"))
    assert [r["id"] for r in printed] == [r.id for r in collect(tmp_path / "one")], "in order"
