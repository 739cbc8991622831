"""Many processes and one: a question's pieces are shared, none is lost, done twice or changed, whoever is killed."""

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
from repro import model as models
from repro.core import registry
from repro.core.files import ROOT
from repro.evals import __main__ as command_line
from repro.evals import work_queue as pieces
from repro.evals.lm import adapter
from repro.evals.perplexity.perplexity import HeldoutBound
from repro.evals.request import Prepared, Request, cells, prepare
from repro.evals.runner import numerics, question
from repro.evals.suites import Suite
from repro.evals.tasks.law import Law
from repro.evals.work_queue import Alone, Elsewhere, shared, spans
from repro.results.record import difference
from repro.results.store import Store, collect
from repro.training.loop import train

KIND = {"device": "cpu", "dtype": "float32", "torch": "2", "attention": "sdpa", "threads": 1}


@pytest.fixture(autouse=True)
def small(tmp_path_factory, monkeypatch):
    """Many pieces of little work."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setattr(pieces, "ROWS", 8)
    monkeypatch.setattr(adapter, "REQUESTS", 3)
    monkeypatch.setitem(registry.PARTS, "letters", "lm_worlds:Letters")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "run"
    os.environ["REPRO_RUNS"] = str(tmp_path_factory.getbasetemp() / "runs")
    train(toy("mdlm", "data.heldout=64", "steps=5"), seed=0, out=folder, stop=None, resume=False)
    return load(folder)


def toy_grid(model, folder, batch=None):
    """A bound and two samplers' laws of a trained net: five questions in 25 pieces."""
    tasks = [
        HeldoutBound(name="bound", rows=40, skip_rows=0, passes=2),
        Law(name="law", samples=40),
    ]
    suite = Suite("toy", [4, 8], tasks, {"law": ["ancestral", "random:temperature=1.0"]}, [])
    found, skipped = cells(suite, model, Request(batch=batch), lambda task, model: task.skip(model))
    return Prepared(model, suite, found, skipped, Store(folder / "raw"), batch)


def lm_grid(folder, batch=None):
    """Multiple choice, rolling sums and texts through lm-eval, of a random net."""
    yaml = lm_worlds.tasks(folder.parent)
    real = load("oracle:mdlm@nano")
    model = replace(lm_worlds.diffusion(), recipe=real.recipe, digest=real.digest)
    names = [str(yaml[name]) for name in ("choice", "rolling", "writing")]
    request = Request(["random"], names, [2.0], out=folder, estimator="levels:draws=8", batch=batch)
    return prepare(model, request)


def answers(folder: Path):
    """Question -> answer of a folder of records, each there once."""
    records = collect(folder)
    assert len({r["id"] for r in records}) == len(records)
    return {r["id"]: r["answer"] for r in records}


def same(one, other):
    assert one.keys() == other.keys()
    for name, answer in one.items():
        assert difference(answer, other[name]) is None, (answer, other[name])


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The toy grid's answers, asked by one process at its own batch and pieces."""
    out = tmp_path_factory.mktemp("whole")
    assert [fresh for _, fresh in toy_grid(trained, out).run()] == [True] * 5
    assert not (out / "pieces").exists(), "pieces go when the record is there"
    return answers(out)


# --- batches --------------------------------------------------------------------------------------------------


def test_answers_do_not_depend_on_batch_or_pieces(trained, whole, tmp_path, monkeypatch):
    """A bound and generation one row at a time, and in other pieces; tokens equal, floats to 1e-5."""
    seen = []
    kind = type(trained.denoiser)
    encode = kind.encode
    monkeypatch.setattr(
        kind, "encode", lambda self, ids, *a, **k: seen.append(len(ids)) or encode(self, ids, *a, **k)
    )
    for batch, rows, most in ((1, 8, 1), (None, 512, 40)):
        monkeypatch.setattr(pieces, "ROWS", rows)
        out = tmp_path / f"{batch}-{rows}"
        list(toy_grid(trained, out, batch).run())
        same(whole, answers(out))
        assert max(seen) == most, "--batch-size is no more than was asked"


def test_lm_answers_do_not_depend_on_batch_or_pieces(tmp_path, monkeypatch):
    """Likelihoods (multiple choice, rolling) and texts through lm-eval, items too; what another process is at comes
    last."""
    found, items = [], []
    for batch, requests in ((1, 3), (None, 64)):
        monkeypatch.setattr(adapter, "REQUESTS", requests)
        out = tmp_path / f"{batch}"
        out.mkdir()
        grid = lm_grid(out, batch)
        first = question(grid.model, grid.cells[0]).id
        held = shared(out / "pieces", first, numerics(grid.model), None, lambda: False)
        held.join()
        order = []
        for record, _ in grid.run():
            order.append(record["labels"]["task"])
            held.close()
        assert order == ["rolling", "writing", "choice"]
        found.append(answers(out))
        kept = sorted((out / "items").glob("*.jsonl"))
        items.append([json.loads(line) for path in kept for line in path.read_text("utf-8").splitlines()])
    for one, mine in zip(found, items, strict=True):
        same(found[0], one)
        assert difference(items[0], mine) is None
    assert len(items[0]) == 18 and len(found[0]) == 3


def test_flags_of_processes_are_checked(monkeypatch):
    """A batch of none, or one that nothing reads, is an error; ranks go round the GPUs of their machine."""
    for more, said in (
        (["--batch-size", "0"], "give 1 or more"),
        (["--batch-size", "4", "--plan"], "no effect"),
    ):
        with pytest.raises(ValueError, match=said):
            command_line.main(["--ckpt", "oracle:mdlm@nano", *more])
    taken = []
    monkeypatch.setattr(models, "_device", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    models.take_device()
    for rank in "013":
        monkeypatch.setenv("LOCAL_RANK", rank)
        models.take_device()
    assert taken == [0, 1, 1]


# --- pieces ---------------------------------------------------------------------------------------------------


def test_a_finished_piece_is_never_done_again(tmp_path):
    """What was done before a failure is read back, exactly."""
    done = []

    def find(rows):
        if rows.start == 6:
            raise RuntimeError("killed")
        done.append(rows.start)
        return [1 / 3 + i for i in rows]

    def work():
        return shared(tmp_path, "q" * 64, KIND, None, lambda: False)

    with pytest.raises(RuntimeError):
        work().pieces(10, 3, find)
    assert done == [0, 3]
    again = work()
    assert again.pieces(10, 3, lambda rows: [1 / 3 + i for i in rows]) == Alone(None).pieces(
        10, 3, lambda rows: [1 / 3 + i for i in rows]
    )
    assert done == [0, 3] and 0 < again.own < again.seconds
    other = shared(tmp_path, "q" * 64, KIND | {"threads": 2}, None, lambda: False)
    assert other.pieces(1, 3, lambda rows: "own") == ["own"], "another numerics class has pieces of its own"


def test_others_do_what_is_held_elsewhere(tmp_path):
    """Two writers in turn: the second does what the first does not hold, then says which lock it waits for."""
    one, other = (shared(tmp_path, "q" * 64, KIND, None, lambda: False) for _ in range(2))
    order = []

    def slow(rows):
        order.append(("one", rows.start))
        if rows.start == 0:
            with pytest.raises(Elsewhere) as busy:
                other.pieces(9, 3, lambda rows: order.append(("other", rows.start)) or rows.start)
            assert busy.value.lock.name == "0-0.lock" and not busy.value.over()
        return rows.start

    assert one.pieces(9, 3, slow) == [0, 3, 6]
    assert order == [("one", 0), ("other", 3), ("other", 6)]
    one.join()
    second = shared(tmp_path, "q" * 64, KIND, None, lambda: False)
    with pytest.raises(Elsewhere) as busy:
        second.join()
    one.close()
    assert busy.value.over()
    second.join()


def test_a_question_answered_meanwhile_is_not_done_again(tmp_path):
    work = shared(tmp_path, "q" * 64, KIND, None, lambda: True)
    with pytest.raises(Elsewhere):
        work.pieces(3, 3, lambda rows: pytest.fail("done again"))
    with pytest.raises(Elsewhere):
        work.join()


def test_pieces_that_vanish_before_they_are_read_are_elsewhere(tmp_path, monkeypatch):
    """Another process answers, and removes them, between the look for them and the reading."""
    one, other = (shared(tmp_path, "q" * 64, KIND, None, lambda: False) for _ in range(2))
    one.pieces(2, 1, lambda rows: rows.start)
    read = other._read

    def late(path, span):
        one.finish()
        return read(path, span)

    monkeypatch.setattr(other, "_read", late)
    with pytest.raises(Elsewhere) as busy:
        other.pieces(2, 1, lambda rows: rows.start)
    assert busy.value.over(), "nobody holds them: the record is looked for next"


@pytest.mark.parametrize("spoil", [lambda t: t.replace("0.5", "0.6"), lambda t: t[:-9], lambda t: "[1]"])
def test_a_changed_piece_is_refused(tmp_path, spoil):
    work = shared(tmp_path, "q" * 64, KIND, None, lambda: False)
    work.pieces(2, 1, lambda rows: 0.5)
    path = work.folder / "0-1.json"
    path.write_text(spoil(path.read_text()))
    again = shared(tmp_path, "q" * 64, KIND, None, lambda: False)
    with pytest.raises(ValueError, match=r"0-1\.json was changed .* remove it and run again"):
        again.pieces(2, 1, lambda rows: 0.5)


def test_pieces_cover_every_item_once():
    assert [list(s) for s in spans(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]] and spans(0, 3) == []


# --- many writers, kills --------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Every piece and answer as it begins and after it is kept, by any process: (what, which) a line."""
    path = tmp_path / "log"
    path.touch()

    def note(*words):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
        os.close(file)

    do, append = pieces.Shared._do, Store.append

    def noted_do(self, place, span, find):
        note("begin", f"{place.parent.name}/{place.name}", os.getpid())
        do(self, place, span, find)
        note("end", f"{place.parent.name}/{place.name}", os.getpid())

    def noted_append(self, record):
        added = append(self, record)
        note("record" if added else "again", record["id"][:16], os.getpid())
        return added

    monkeypatch.setattr(pieces.Shared, "_do", noted_do)
    monkeypatch.setattr(Store, "append", noted_append)
    return path


def nothing_twice(log: Path) -> Counter:
    """No piece was begun after it was kept, no record written twice; returns pieces by process."""
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
    """A process that asks a grid; forked, since imports cost more than the work."""
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
    assert not (tmp_path / "out" / "pieces").exists()


def test_a_kill_before_the_record_is_written_costs_no_piece(trained, whole, tmp_path, log, monkeypatch):
    """And one just after it leaves pieces that the next run removes."""
    grid = replace(toy_grid(trained, tmp_path / "out"), cells=toy_grid(trained, tmp_path).cells[:1])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "append", lambda *rest: os.kill(os.getpid(), signal.SIGKILL))
        child = writer(grid)
        assert ended(child) == -signal.SIGKILL
    with monkeypatch.context() as patched:
        patched.setattr(pieces.Shared, "finish", lambda *rest: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(writer(grid)) == -signal.SIGKILL
    assert list((tmp_path / "out" / "pieces").glob("*/*.json"))
    assert [fresh for _, fresh in grid.run()] == [False]
    assert answers(tmp_path / "out").items() <= whole.items()
    assert sum(nothing_twice(log).values()) == 5 and not (tmp_path / "out" / "pieces").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_any_moment_lose_double_and_change_nothing(kills, trained, whole, tmp_path, log):
    """kill -9 at random moments, of one writer and of two, until the grid is done: the undisturbed answers."""
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
        if 0 in codes:  # the first that ends in peace has seen every answer
            same(whole, answers(out))
            nothing_twice(log)
            finished += 1
            shutil.rmtree(out)
            log.write_text("")
    assert killed >= kills and finished


def test_only_the_first_process_of_a_launch_speaks(tmp_path, monkeypatch, capsys):
    """The others work in silence, and find every record there."""
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--samplers", "ancestral"]
    arguments += ["--tokens-per-step", "8", "--samples", "40", "--out", str(tmp_path), "--batch-size", "7"]
    for rank, spoken in (("1", ("", "")), ("0", ("law", "records:"))):
        monkeypatch.setenv("RANK", rank)
        assert command_line.main(arguments) == 0
        said = capsys.readouterr()
        assert all(word in text and bool(word) == bool(text) for word, text in zip(spoken, said, strict=True))
    assert len(answers(tmp_path)) == 1


@pytest.mark.slow
def test_two_launched_processes_answer_as_one(tmp_path, monkeypatch):
    """accelerate launch: the records of one process, one table, by the first process alone."""
    monkeypatch.setattr(pieces, "ROWS", 512)
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
    assert [r["id"] for r in printed] == [r["id"] for r in collect(tmp_path / "one")], "in order"
