"""Likelihoods of whole texts over HTTP: windows and values of lm-eval's `local-completions`, records, refusals."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from helpers import lm_worlds
from helpers.fake_engine import FakeEngine, toy
from lm_eval.api.instance import Instance
from lm_eval.models import api_models
from lm_eval.models.openai_completions import LocalCompletionsAPI
from tqdm import tqdm

from repro.evals.__main__ import main
from repro.evals.engines.adapter import EngineAdapter
from repro.evals.engines.http import Limits
from repro.evals.engines.openai import connect
from repro.evals.engines.rolling import Windows
from repro.evals.work_queue import SERIAL
from repro.results.store import collect, items_file

TEXTS = ("the fox met a dog.", "a", " ".join(lm_worlds.words(5, 30)))
"""Texts of one window, of one token, and of many windows."""


@pytest.fixture(scope="module")
def server():
    with FakeEngine() as found:
        yield found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Folder of the fake server's tokenizer."""
    return lm_worlds.save(toy().model, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    return str(lm_worlds.tasks(tmp_path)["rolling"])


def requests(texts):
    return [Instance("loglikelihood_rolling", {}, (text,), i, ("t", i, 1)) for i, text in enumerate(texts)]


@pytest.mark.parametrize("length", [4, 20, 90])
def test_windows_and_values_are_those_of_lm_eval(server, tokenizer, length, monkeypatch):
    for name in ("retry", "stop_after_attempt", "wait_exponential"):
        monkeypatch.setattr(api_models, name, lambda *a, **k: lambda call: call, raising=False)
    monkeypatch.setattr(api_models, "tqdm", tqdm, raising=False)
    monkeypatch.setattr(api_models, "find_spec", bool)  # tenacity is not installed here
    url = f"{server.url}/completions"
    theirs = LocalCompletionsAPI(
        base_url=url,
        model="toy",
        tokenizer=str(tokenizer),
        tokenizer_backend="huggingface",
        max_length=length,
    )
    windows = Windows.read(str(tokenizer), length)
    reached = connect(server.name, None, Limits(concurrency=1), {})
    ours = EngineAdapter(reached, "completions", 0, SERIAL, windows)
    reached.score([("a", "b")])  # so that the check of the server's positions is done
    server.requests.clear()
    found = ours.loglikelihood_rolling(requests(TEXTS))
    sent = [body["prompt"] for body in server.requests]
    server.requests.clear()
    assert found == pytest.approx(theirs.loglikelihood_rolling(requests(TEXTS), disable_tqdm=True), rel=1e-6)
    asked = [prompt for body in server.requests for prompt in body["prompt"]]
    assert sorted(sent) == sorted(asked)
    assert len(TEXTS) < len(sent) and max(map(len, sent)) <= length - 1


def test_each_token_of_a_text_counts_once(server, tokenizer):
    """One window: the log-likelihood of the whole text after BOS, by our own forward."""
    windows, text = Windows.read(str(tokenizer), 90), TEXTS[0]
    ids = toy().model.data.encode(text)
    assert windows.of(text) == [([lm_worlds.BOS], ids)] and windows.of("") == []
    logp = toy()._logp([lm_worlds.BOS, *ids], 1)
    whole = math.fsum(logp[at, token].item() for at, token in enumerate(ids))
    reached = connect(server.name, None, Limits(), {})
    (found,) = EngineAdapter(reached, "completions", 0, SERIAL, windows).loglikelihood_rolling(
        requests([text])
    )
    assert found == pytest.approx(whole, abs=1e-5)
    cut = Windows.read(str(tokenizer), 8).of(text)
    assert [token for _, after in cut for token in after] == ids
    assert all(before[0] == after[-1] for (_, after), (before, _) in pairwise(cut))


def test_records_of_whole_texts_name_the_tokenizer_and_the_length(server, tokenizer, task, tmp_path, capsys):
    arguments = [
        "--engine",
        server.name,
        "--tasks",
        task,
        "--tokenizer",
        str(tokenizer),
        "--max-length",
        "20",
    ]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "word_perplexity" in capsys.readouterr().out
    (record,) = collect(tmp_path / "out")
    asked = record.question.task
    assert (asked["part"], asked["max_length"], asked["prefix"]) == ("engine_rolling", 20, lm_worlds.BOS)
    assert len(asked["tokenizer"]) == 64
    assert record.question.protocol["output"] == "loglikelihood_rolling"
    items = items_file(tmp_path / "out" / "raw", record)
    values = [json.loads(line)["found"][0]["value"] for line in items.read_text("utf-8").splitlines()]
    texts = [". ".join(lm_worlds.words(200 + i, 12)) for i in range(6)]
    ppl = math.exp(-math.fsum(values) / sum(len(text.split()) for text in texts))
    assert record.answer.metrics["word_perplexity"].value == pytest.approx(ppl, rel=1e-6)
    asked_before = len(server.requests)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert len(server.requests) - asked_before < 8, "the checks of the server alone"


def test_the_length_is_what_the_server_says(server, tokenizer, task, tmp_path):
    arguments = [
        "--tasks",
        task,
        "--tokenizer",
        str(tokenizer),
        "--limit",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    with FakeEngine(context=30, engine=server.engine) as fake:
        assert main(["--engine", fake.name, *arguments]) == 0
        (record,) = collect(tmp_path / "out")
        assert record.question.task["max_length"] == 30
        with pytest.raises(ValueError, match=r"max_length=31 is more than .* give at most 30"):
            main(["--engine", fake.name, *arguments, "--max-length", "31"])
    with pytest.raises(ValueError, match=r"does not say how many tokens its context holds; .* --max-length"):
        main(["--engine", server.name, *arguments])


@pytest.mark.parametrize(
    ("server_is", "said"),
    [
        ({"ids": False}, "refused a request with status 422: .*valid string"),
        ({"echo": False}, "gives no log-probabilities of a prompt"),
        ({"fault": "shifted_scores"}, "those of prompts belong to other positions"),
    ],
)
def test_servers_that_cannot_score_texts_are_named(server_is, said, tokenizer, task):
    with FakeEngine(engine=toy(), **server_is) as fake:
        arguments = ["--tasks", task, "--tokenizer", str(tokenizer), "--max-length", "20"]
        with pytest.raises(ValueError, match=f"task rolling cannot be run: .*{said}"):
            main(["--engine", fake.name, *arguments])


def test_the_tokenizer_of_another_model_is_found(server, tokenizer, task, tmp_path):
    for path in tokenizer.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    made = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    known = made["model"]["vocab"]
    known["a"], known["b"] = known["b"], known["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), "utf-8")
    arguments = ["--engine", server.name, "--tasks", task, "--max-length", "20"]
    with pytest.raises(ValueError, match=r"reads the ids of 'the quick brown fox .*as 'the quick arown fox"):
        main([*arguments, "--tokenizer", str(tmp_path)])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "'rolling' scores whole texts, .* name its tokenizer with --tokenizer"),
        (["--max-length", "20"], "max_length=20 is for tasks that score whole texts, .*; add --tokenizer"),
        (["--tokenizer", "/nowhere", "--max-length", "20"], "/nowhere"),
        (["--tokenizer", "{}", "--max-length", "3"], "max-length=3 is too small"),
        (["--tokenizer", "{}", "--max-length", "20", "--api", "chat"], "the chat API gives no log-prob"),
    ],
)
def test_wrong_arguments_are_one_line(server, tokenizer, task, more, said):
    with pytest.raises(ValueError, match=said):
        main(["--engine", server.name, "--tasks", task, *(word.format(tokenizer) for word in more)])


def test_a_tokenizer_without_use_is_refused(server, tokenizer, task):
    writing = task.replace("rolling", "writing")
    with pytest.raises(ValueError, match="given, but no task scores whole texts"):
        main(
            ["--engine", server.name, "--tasks", writing, "--tokenizer", str(tokenizer), "--max-length", "20"]
        )
