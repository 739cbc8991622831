"""A signal, a kill, a NaN: finished checkpoints stay, and resuming gives the uninterrupted run bitwise."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.toy import overrides, toy

from repro.core.errors import Stopped
from repro.core.files import ROOT
from repro.recipes.command import command
from repro.recipes.scale import by_name
from repro.training import checkpoint as checkpoints
from repro.training.loop import Training, train

STEPS = 60


def arguments(out, *more, steps=STEPS):
    """Those of a run with short steps and a checkpoint every 5."""
    pins = overrides("mdlm", f"steps={steps}", "checkpoint_every=5", "log_every=1")
    return ["--scale", "nano", "--out", str(out), *more, *(flag for pin in pins for flag in ("--set", pin))]


def start(out, *more, steps=STEPS):
    """The run in a process of its own, which may be interrupted."""
    words = [sys.executable, "-m", "repro.recipes.mdlm", *arguments(out, *more, steps=steps)]
    environment = os.environ | {"REPRO_RUNS": str(out.parent / "runs"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(out, *more, steps=STEPS):
    """The run in this process, to its end, on one thread like the others; a process of its own takes seconds to
    start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(out.parent / "runs"))
        command(by_name("mdlm"), arguments(out, *more, steps=steps))
    torch.set_num_threads(threads)


def weights(out):
    (folder,) = checkpoints.steps_in(out)[-1:]
    found = checkpoints.open_checkpoint(folder)
    return found.step, {file: found.tensors(file) for file in found.files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out)
    return weights(out)


def same(one, other):
    assert one[0] == other[0]
    for file, tensors in one[1].items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[1][file][name]), (file, name)


def kill_while_it_trains(process, out, draw):
    """kill -9 at a random time after the process has logged its first row."""
    log, began = out / "metrics.jsonl", time.time()
    while process.poll() is None and not (log.exists() and log.stat().st_mtime > began):
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3))
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("kills", "steps"), [(3, STEPS), pytest.param(50, 600, marks=pytest.mark.slow)], ids=["3", "50"]
)
def test_kills_at_any_time_change_nothing(kills, steps, tmp_path):
    """Killed and resumed repeatedly: all tensors are bitwise those of one run, with one logged row a step."""
    whole, out, draw = tmp_path / "whole", tmp_path / "run", random.Random(kills)
    finish(whole, steps=steps)
    for _ in range(kills):
        again = ["--resume"] if checkpoints.steps_in(out) else []
        kill_while_it_trains(start(out, *again, steps=steps), out, draw)
        for folder in checkpoints.steps_in(out):
            checkpoints.open_checkpoint(folder).tensors(
                "model.safetensors"
            )  # complete, whenever the run was killed
    finish(out, *(["--resume"] if checkpoints.steps_in(out) else []), steps=steps)
    same(weights(whole), weights(out))
    rows = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, steps + 1))


def test_sigterm_saves_and_exits(whole, tmp_path):
    """One line, exit code 143 and a checkpoint of the current step; the resumed run equals the uninterrupted one."""
    out = tmp_path / "run"
    process = start(out)
    log = out / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143 and time.monotonic() - began < 10
    step = checkpoints.open_checkpoint(out).step
    (line,) = [line for line in said.splitlines() if "SIGTERM" in line]
    assert f"saved step {step} of {STEPS}" in line and "--resume" in line
    finish(out, "--resume")
    same(whole, weights(out))


def test_sigterm_within_a_step_stops_after_it(tmp_path, monkeypatch):
    """The previous handler is restored afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    recipe = toy("ar")

    def heldout(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr("repro.training.loop.Training.heldout", heldout)
    with pytest.raises(Stopped, match="saved step"):
        train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_nan_writes_what_is_needed_to_repeat_the_step(tmp_path):
    recipe = toy("ar", "optimizer.lr=1e30", "optimizer.clip=null")
    with pytest.raises(ValueError, match=r"(loss|grad_norm) is (nan|inf) at step \d+; .*fault.json"):
        train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    fault = json.loads((tmp_path / "run" / "fault.json").read_text())
    assert len(fault["rows"]) == len(fault["examples"]) == recipe.batch
    assert fault["step"] >= 1 and fault["recipe"]["name"] == recipe.name


def test_sigterm_never_saves_a_nan(tmp_path, monkeypatch):
    """If SIGTERM comes at a step that is not logged, its loss is checked before it is saved."""
    rare = [f"{pin}=20" for pin in ("log_every", "checkpoint_every", "heldout_every")]
    recipe = toy("ar", "optimizer.lr=1e30", "optimizer.clip=null", *rare)
    monkeypatch.setattr("repro.training.engines.Engine.any", lambda self, here: True)
    once = Training.advance

    def thrice(self):
        return [once(self) for _ in range(3)][-1]

    monkeypatch.setattr(Training, "advance", thrice)
    with pytest.raises(ValueError, match=r"(loss|grad_norm) is (nan|inf)"):
        train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    assert not checkpoints.steps_in(tmp_path / "run")
