"""kill -9 at random times while something is trained, evaluated, published, exported, converted or removed: nothing is
lost, doubled, changed or left behind. `make test-all` kills more often."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import released, tiny_tokenizer
from helpers.disk import contents
from helpers.toy import toy

from repro.core.files import WORKPLACE, write_text
from repro.evals.__main__ import main as evals
from repro.evals.export import export
from repro.hub.convert import convert
from repro.results.record import read_record
from repro.results.store import collect, publish
from repro.training import checkpoint as checkpoints
from repro.training.loop import CHECKPOINTS, train


@dataclass(frozen=True)
class Job:
    """`run(out)` does it; `whole(out)` reads what a killed run has left, and raises where that is damaged or not part
    of `wanted`, what `made(out)` gives after an undisturbed run."""

    run: Callable[[Path], Any]
    made: Callable[[Path], Any]
    whole: Callable[[Path, Any], None]


def trained(recipe):
    def run(out):
        train(recipe, seed=0, out=out, stop=None, resume=bool(checkpoints.steps_in(out)))

    def made(out):
        steps = [checkpoints.open_checkpoint(folder).files for folder in checkpoints.steps_in(out)]
        rows = (out / "metrics.jsonl").read_text("utf-8").count("\n")
        return steps, rows, sorted(path.name for path in out.iterdir())

    def whole(out, wanted):
        steps = checkpoints.steps_in(out)
        assert len(steps) <= CHECKPOINTS + 1 and steps == sorted(out.glob("step_*"))
        for folder in steps:
            opened = checkpoints.open_checkpoint(folder)
            for file in opened.files:
                opened.tensors(file)

    return Job(run, made, whole)


def evaluated():
    arguments = ["--ckpt", "oracle:mdlm@nano", "--suite", "oracle", "--samplers", "ancestral,random"]
    arguments += ["--tokens-per-step", "8", "--samples", "60", "--out"]
    return Job(lambda out: evals([*arguments, str(out)]), answers, part_of)


def answers(out):
    """The records' answers in order, and the names of all files."""
    return [(r.id, r.answer.data()) for r in collect(out)], sorted(p.name for p in out.rglob("*"))


def part_of(out, wanted):
    """The whole lines are lines that were wanted, none twice."""
    found = [answer for path in out.rglob("*.jsonl") for answer in answers_in(path)]
    assert all(each in wanted[0] for each in found) and len({id for id, _ in found}) == len(found)


def answers_in(path):
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [(record.id, record.answer.data()) for record in map(read_record, map(json.loads, lines))]


def published(source):
    return Job(lambda out: publish(source, out), answers, part_of)


def written(make):
    """A folder that is there as a whole or not at all."""

    def run(out):
        if not (out / "made").exists():
            make(out / "made")
        write_text(out / "next", "the next writer in the folder")

    def whole(out, wanted):
        parts = {k.removeprefix("made/"): v for k, v in wanted.items() if k.startswith("made/")}
        assert contents(out / "made") in ({}, parts)

    return Job(run, contents, whole)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    base = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(base / "runs"))
        recipe = toy("mdlm", "checkpoint_every=1", "steps=12")
        plain = toy("ar", "backbone.learned_positions=0")
        llama = train(plain, seed=0, out=base / "llama", stop=1, resume=False)
        evaluated().run(base / "e")
        (base / "tokenizer").mkdir()
        tokenizer = tiny_tokenizer.save(base / "tokenizer") / "tokenizer.json"
        folder, weights = released.llada(base / "llada", tokenizer)
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        yield {
            "training and removal": trained(recipe),
            "evaluation": evaluated(),
            "publishing": published(base / "e"),
            "export": written(lambda out: export(llama, out, "raw")),
            "conversion": written(lambda out: convert(folder, out, "raw")),
        }


def started(job: Job, out: Path) -> int:
    """A forked process, since imports cost more than the work; it says nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            job.run(out)
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(job: Job, out: Path) -> tuple[Any, float]:
    out.mkdir()
    began = time.monotonic()
    assert ended(started(job, out)) == 0
    return job.made(out), time.monotonic() - began


CAMPAIGN = {"training and removal": 80, "evaluation": 50, "publishing": 40, "export": 25, "conversion": 25}


@pytest.mark.parametrize("name", CAMPAIGN)
@pytest.mark.parametrize("share", [1, pytest.param(None, marks=pytest.mark.slow)], ids=["once", "all"])
def test_kills(name, share, jobs, tmp_path):
    job, kills, draw = jobs[name], share or CAMPAIGN[name], random.Random(name)
    wanted, took = undisturbed(job, tmp_path / "undisturbed")
    out, killed, finished = tmp_path / "out", 0, 0
    while killed < kills or not finished:
        out.mkdir(exist_ok=True)
        child = started(job, out)
        if killed < kills:
            time.sleep(draw.uniform(0, took))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
        if code == 0:
            assert job.made(out) == wanted
            assert not list(out.rglob(f".*{WORKPLACE}"))
            shutil.rmtree(out)
            finished += 1
        else:
            job.whole(out, wanted)
    print(f"{name}: {killed} kills, {finished} finished runs")
