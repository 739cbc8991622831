"""A real server, llama-cpp-python's, with the real model of `make models`; `make test-engines` builds and runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

import repro
from repro.core.files import ROOT
from repro.evals.engines.check import Plan, compare, read_prompts
from repro.evals.engines.http import Limits
from repro.evals.engines.local import Local
from repro.evals.engines.openai import connect
from repro.hub import packaged

PYTHON = Path(os.environ.get("ENGINE_PYTHON", ROOT / "build" / "engines" / "bin" / "python"))
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}; `make test-engines` builds it"),
]
PLAIN = {"repeat_penalty": 1.0, "top_k": 0, "min_p": 0}
"""Request fields without which llama.cpp penalises repeated tokens and cuts off what is unlikely."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with the model's file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(PYTHON), "-m", "llama_cpp.server", "--model", str(packaged.file("smollm2"))]
    words += ["--model_alias", "smollm2", "--port", str(port), "--logits_all", "true", "--n_ctx", "1024"]
    words += ["--n_threads", "1", "--n_threads_batch", "1"]
    with open(tmp_path_factory.mktemp("server") / "log", "wb") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            for _ in range(600):
                time.sleep(0.1)
                with socket.socket() as probe:
                    if running.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
            assert running.poll() is None, "the server has ended"
            yield f"openai:http://127.0.0.1:{port}/v1"
        finally:
            running.terminate()
            running.wait()


def prompts(folder):
    rows = [{"prompt": each.prompt} for each in read_prompts(None)[:6]]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_prompts(path)


def test_llama_cpp_agrees_with_itself(server, tmp_path):
    engine = connect(server, None, Limits(), PLAIN)
    report = compare(engine, engine, Plan(prompts(tmp_path), length=8, margin=0.45, draws=40))
    assert report.agrees, list(report.lines())


def test_a_penalty_that_acts_by_default_is_found(server, tmp_path):
    report = compare(
        connect(server, None, Limits(), {}),
        connect(server, None, Limits(), PLAIN),
        Plan(prompts(tmp_path), length=8, draws=0),
    )
    assert "greedy rule of A" in report.failed and "greedy rule of B" not in report.failed, list(
        report.lines()
    )


def test_our_own_decoding_of_the_same_file_agrees_up_to_the_precision_of_its_weights(server, tmp_path):
    """llama.cpp multiplies 4-bit weights by activations in 8 bits; we read the weights as float32."""
    ours = Local(repro.load("smollm2", template="own"))
    plan = Plan(prompts(tmp_path), length=8, tolerance=0.5, margin=0.8, draws=40)
    report = compare(connect(server, None, Limits(), PLAIN), ours, plan)
    assert report.agrees, list(report.lines())
    found = {each.name: each for each in report.findings}
    assert 1e-3 < found["template"].data["mean"] < 0.2
    assert found["log-probabilities"].outcome == "not checked", (
        "SmolLM2 has no BOS (openai.Server._check_scores)"
    )
