"""Trace and live view of a decode: all writes are recorded, and the terminal gets its cursor back."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import torch

from repro.model import load
from repro.models.attention import Mask
from repro.sample import follow, main
from repro.samplers.plan import Plan
from repro.samplers.presets import preset
from repro.samplers.trace import Trace
from repro.samplers.watch import Watch

PLAN = Plan(gen_length=8, block_length=4, steps=8)


def replayed(model, trace: Trace, length: int) -> list[int]:
    """The ids after all writes of a trace; checks that each write names the id that it replaces."""
    row: dict[int, int] = {}
    for step in trace.steps:
        for write in step.writes:
            assert row.get(write.position) == write.revises
            row[write.position] = write.id
            if write.id == model.data.vocabulary().mask:
                del row[write.position]
    return [row.get(position, -1) for position in range(length)]


@pytest.mark.parametrize("name", ["oracle:mdlm@nano", "oracle:duo@nano"])
def test_a_trace_has_every_write(name):
    """The writes reproduce the text; some revise under uniform noise, none under absorbing noise."""
    model = load(name)
    trace = follow(model, None, preset("ancestral"), PLAN, 3, None)
    found = replayed(model, trace, 8)
    assert all(written in (-1, shown) for written, shown in zip(found, trace.row, strict=True))
    assert "duo" in name or -1 not in found
    revising = sum(write.revises is not None for step in trace.steps for write in step.writes)
    assert (revising > 0) == ("duo" in name)
    assert [step.forwards for step in trace.steps] == sorted(step.forwards for step in trace.steps)


def test_confidence_is_the_network_probability():
    """In blocks of one, each confidence is the exact conditional given the tokens before."""
    model = load("oracle:mdlm@nano")
    mask = model.data.vocabulary().mask
    trace = follow(
        model, None, preset("low_confidence"), Plan(gen_length=32, block_length=1, steps=32), 0, None
    )
    ids = torch.full((1, 32), mask)
    for step in trace.steps:
        (write,) = step.writes
        features = model.denoiser.encode(ids, t=torch.ones(1), attention=Mask())
        law = model.denoiser.logits(features)[0, write.position].double().softmax(-1)
        assert write.confidence == pytest.approx(law[write.id].item(), abs=1e-12) and write.revises is None
        ids[0, write.position] = write.id


def test_colours_and_styles():
    model = load("oracle:duo@nano")
    watch, trace = Watch(model.data, PLAN, 0.0), Trace(model.data)
    trace.row, trace.decided = [0, 1, 2, 3, 4, 5, 6, 7], {0, 1, 2}
    watch.confidence, watch.revised = {0: 0.2, 1: 0.8, 2: 0.95}, {2}
    styles = [watch._style(position, position == 1, trace) for position in range(4)]
    assert styles == ["red", "bold yellow", "underline green", "dim"]


def test_a_trace_is_written_as_json(tmp_path, capsys):
    path = tmp_path / "trace.json"
    assert main(["--ckpt", "oracle:mdlm@nano", "--steps", "4", "--trace", str(path)]) == 0
    found = json.loads(path.read_text())
    assert capsys.readouterr().out == found["text"] + "\n"
    assert len(found["steps"]) == 4 and found["sampler"]["part"] == "ancestral"
    assert sum(len(step["writes"]) for step in found["steps"]) == 32


def test_off_a_terminal_a_line_a_step(capsys):
    assert main(["--ckpt", "oracle:mdlm@nano", "--steps", "4", "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "·" in lines[0] and "·" not in lines[3] and "\x1b" not in "".join(lines)


def test_an_interrupt_gives_the_cursor_back():
    """In a real terminal Ctrl-C ends with code 130, without traceback, and with a visible cursor."""
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "repro.sample",
        "--ckpt",
        "oracle:mdlm@nano",
        "--watch",
        "--delay",
        "0.3",
    ]
    run = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    os.close(follower)
    seen, interrupted, until = b"", False, time.monotonic() + 60
    while time.monotonic() < until:
        try:
            seen += os.read(leader, 65536)
        except OSError as error:
            assert error.errno == errno.EIO  # the other end is closed
            break
        if b"forwards" in seen and not interrupted:
            run.send_signal(signal.SIGINT)
            interrupted = True
    os.close(leader)
    assert run.wait(30) == 130 and b"Traceback" not in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") >= 0
