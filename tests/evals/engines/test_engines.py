"""Servers: requests with failures, what is read of replies, and tasks of lm-eval as records."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import lm_worlds
from helpers.fake_engine import FAILURES, FakeEngine, toy

from repro.evals.__main__ import main
from repro.evals.engines import command, http
from repro.evals.engines.engine import Settings, Unsupported
from repro.evals.engines.http import KEY, Connection, Limits, checked_url
from repro.evals.engines.openai import connect
from repro.evals.lm.adapter import before_stops
from repro.results.store import collect, items_file

QUICK = Limits(timeout=5.0, wait=0.0, longest_wait=0.0, tries=3)


@pytest.fixture(scope="module")
def server():
    with FakeEngine() as found:
        yield found


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)


def reached(fake, **limits):
    return connect(fake.name, None, replace(QUICK, **limits), {})


# --- answers ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_server_answers_what_its_engine_decodes(server, api):
    prompts, how = ["the fox", "a dog."], Settings(8, top=3)
    ours, theirs = (
        toy().complete(prompts, [how, how], api),
        reached(server).complete(prompts, [how, how], api),
    )
    assert [each.text for each in ours] == [each.text for each in theirs]
    assert ours == theirs and ours[0].tokens[0].gap > 0


def test_scores_are_those_of_the_continuation_alone(server):
    pairs = [("the fox", " met"), ("a", "dog")]
    ours, theirs = toy().score(pairs), reached(server).score(pairs)
    assert [each.value for each in theirs] == pytest.approx([each.value for each in ours], abs=1e-5)
    assert [len(each.tokens) for each in theirs] == [4, 3]
    assert [each.greedy for each in theirs] == [each.greedy for each in ours]


def test_a_server_without_log_probabilities_of_prompts_says_so():
    with FakeEngine(echo=False) as fake, pytest.raises(Unsupported, match="no log-probabilities of a prompt"):
        reached(fake).score([("the", " fox")])


def test_scores_of_other_positions_are_refused(tasks, tmp_path):
    """As of llama-cpp-python 0.3.36 for models without BOS."""
    with FakeEngine(fault="shifted_scores") as fake:
        with pytest.raises(
            Unsupported, match=r"'.+' after '.+' the log-probability -.* generated token and -.* as part of"
        ):
            reached(fake).score([("the", " fox")])
        assert set(scored(fake, tasks, tmp_path / "out")) == {"writing"}


def test_a_model_must_be_named_where_there_are_several():
    with FakeEngine(models=("small", "large")) as fake:
        with pytest.raises(ValueError, match=r"serves 2 models; name one with --model \(small, large\)"):
            reached(fake)
        with pytest.raises(ValueError, match="serves no model 'smal'; nearest is 'small'"):
            connect(fake.name, "smal", QUICK, {})
        connect(fake.name, "large", QUICK, {"top_k": 0}).complete(["a"], [Settings(2)], "completions")
        assert fake.requests[-1]["model"] == "large" and fake.requests[-1]["top_k"] == 0


# --- failures -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_fails_is_made_again(server, failure):
    with FakeEngine(failures=[failure], engine=server.engine) as fake:
        found = reached(fake, timeout=0.3).complete(["the fox"], [Settings(4)], "completions")
        assert found[0].text == toy().complete(["the fox"], [Settings(4)], "completions")[0].text
        assert len(fake.requests) == 2


@pytest.mark.parametrize("failure", FAILURES)
def test_a_server_that_keeps_failing_is_an_error_of_one_line(server, failure):
    with (
        FakeEngine(failures=[failure] * 3, engine=server.engine) as fake,
        pytest.raises(ConnectionError, match=r"was asked 3 times without an answer \(.+\); (start|check)"),
    ):
        reached(fake, timeout=0.1).complete(["the fox"], [Settings(4)], "completions")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://127.0.0.1:9",
            "was asked 3 times without an answer (no connection, connection refused); start",
        ),
        ("{}/chat", "refused a request with status 404: "),
        ("{}/chat", "ending in /v1"),
    ],
)
def test_a_wrong_address_is_one_short_line(server, url, said):
    with pytest.raises((ConnectionError, ValueError)) as error:
        connect(f"openai:{url.format(server.url)}", None, Limits(wait=0.0, longest_wait=0.0), {})
    assert said in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("name, value", [("timeout", 1e20), ("concurrency", 10**9), ("timeout", 0.0)])
def test_limits_that_no_socket_has_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}=.* is too (large; give at most|small; give more)"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    "sent, said", [(b" " * 5000, "more than 0 MiB in one reply"), (b" ", "had not ended 0.2 s")]
)
def test_a_reply_without_end_is_given_up(sent, said, monkeypatch):
    """Neither its bytes nor its time may grow for ever."""

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(sent)
                self.wfile.flush()
                time.sleep(0.01)

        def log_message(self, *args):
            pass

    monkeypatch.setattr(http, "MOST_BYTES", 100_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as service:
        service.daemon_threads, service.block_on_close = True, False
        threading.Thread(target=service.serve_forever, daemon=True).start()
        limits = Limits(timeout=0.2 if sent == b" " else 20.0, wait=0.0, longest_wait=0.0, tries=2)
        with pytest.raises((ValueError, ConnectionError), match=said):
            Connection(f"http://127.0.0.1:{service.server_address[1]}/v1", limits).get("models", dict)
        service.shutdown()


def test_waits_double_and_obey_the_server(server):
    waits = []
    with FakeEngine(failures=["500", "500", "429"], engine=server.engine) as fake:
        limits = Limits(wait=1.0, longest_wait=6.5, tries=4)
        connection = Connection(fake.url, limits, waits.append)
        body = {"model": "toy", "prompt": "a", "max_tokens": 1, "temperature": 0}
        assert connection.post("completions", body, dict)["choices"]
    assert waits == [1.0, 2.0, 6.5]  # 4 and the server's 7 s, but at most 6.5


def test_a_wrong_request_is_not_repeated_and_ends_the_others():
    with FakeEngine(models=("toy",)) as fake:
        engine = reached(fake, concurrency=1)
        with pytest.raises(ValueError, match=r"refused a request with status 400: .*to score or generate"):
            engine.complete(["a"] * 50, [Settings(500)] * 50, "completions")
        assert len(fake.requests) < 50


def test_replies_of_another_form_are_named(server):
    with pytest.raises(ValueError, match=r"completions: .*missing required field 'data'.*ending in /v1"):
        Connection(server.url, QUICK).post(
            "completions", {"model": "toy", "prompt": "a", "max_tokens": 1, "temperature": 0}, _Models()
        )


def _Models():
    from repro.evals.engines import openai

    return openai._Models


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "is no address of a server"),
        ("ftp://host/v1", "is no address of a server"),
        ("http://me:secret@host/v1", f"put an API key into the environment variable {KEY}"),
        ("http://host/v1?key=1", "has a query"),
    ],
)
def test_addresses_are_checked(url, said):
    with pytest.raises(ValueError, match=said) as error:
        checked_url(url)
    assert "secret" not in str(error.value)


def test_the_key_is_sent_and_stored_nowhere(monkeypatch, tmp_path, server):
    monkeypatch.setenv(KEY, "sk-hidden")
    paths = lm_worlds.tasks(tmp_path)
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    arguments = ["--engine", server.name, "--tasks", str(paths["writing"]), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert set(server.keys[-6:]) == {"Bearer sk-hidden"}
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert stored and not any(b"sk-hidden" in path.read_bytes() for path in stored)


# --- tasks --------------------------------------------------------------------------------------------------
@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    return lm_worlds.tasks(tmp_path)


def scored(fake, tasks, out, *more):
    names = ",".join(str(tasks[name]) for name in ("choice", "writing"))
    assert main(["--engine", fake.name, "--tasks", names, "--out", str(out), *more]) == 0
    return {record.labels.task: record for record in collect(out)}


def test_tasks_are_stored_as_records_of_the_engine(server, tasks, tmp_path, capsys):
    found = scored(server, tasks, tmp_path / "out", "--json")
    data = json.loads(capsys.readouterr().out)
    assert {row["metric"] for row in data["rows"]} == {"acc", "exact_match", "refused"}
    question = found["writing"].question
    assert question.checkpoint.weights == "external" and question.sampler is None
    assert question.protocol["engine"] == {
        "part": "openai_server", "version": 1, "url": server.url, "model": "toy", "extra": "{}",
    }  # fmt: skip
    assert question.protocol["refusals"] == "count as an empty text"
    assert json.loads(question.task["asks"])["until"] == [".", "q"]
    items = items_file(tmp_path / "out" / "raw", found["writing"])
    texts = [json.loads(line)["found"][0][0] for line in items.read_text("utf-8").splitlines()]
    prompts = [" ".join(lm_worlds.words(i, 3)) for i in range(6)]
    ours = toy().complete(prompts, [Settings(8)] * 6, "completions")
    assert texts == [before_stops(each.text, (".", "q")) for each in ours]


def test_the_choices_of_an_engine_are_those_of_its_model(server, tasks, tmp_path):
    found = scored(server, tasks, tmp_path / "out")["choice"]
    right = 0
    for i in range(6):
        pairs = [(" ".join(lm_worlds.words(i, 3)), f" {word}") for word in lm_worlds.words(100 + i, 3)]
        values = [each.value for each in toy().score(pairs)]
        right += values.index(max(values)) == i % 3
    assert found.answer.metrics["acc"].value == pytest.approx(right / 6)


def test_finished_answers_and_chunks_are_not_asked_again(server, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("repro.evals.engines.adapter.CHUNK", 2)
    refusing = FakeEngine(engine=server.engine)
    with refusing as fake:
        limits = ["--out", str(tmp_path / "out"), "--timeout", "5"]
        arguments = ["--engine", fake.name, "--tasks", str(tasks["writing"]), *limits]
        answer = fake.answer

        def third(path, body):
            if len(fake.requests) > 4:
                raise ValueError("enough")
            return answer(path, body)

        fake.answer = third
        with pytest.raises(ValueError, match="enough"):
            main(arguments)
        fake.answer = answer
        asked = len(fake.requests)
        assert main(arguments) == 0
        assert len(fake.requests) - asked == 2, "four of six texts were stored"
        assert main(arguments) == 0 and len(fake.requests) - asked == 2


def test_where_a_server_dies_the_message_says_how_to_go_on(server, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_limits", lambda args: Limits(tries=1))
    arguments = ["--tasks", str(tasks["writing"]), "--out", str(tmp_path / "out")]
    said = r"was asked once without an answer .* and the same command continues with the others$"
    with (
        FakeEngine(failures=["500"], engine=server.engine) as fake,
        pytest.raises(ConnectionError, match=said),
    ):
        main(["--engine", fake.name, *arguments])


def test_engines_never_share_a_cell(server, tasks, tmp_path):
    from repro.results.store import one_protocol, to_frame

    with FakeEngine(engine=server.engine) as other:
        first, second = scored(server, tasks, tmp_path / "a"), scored(other, tasks, tmp_path / "b")
    chat = scored(server, tasks, tmp_path / "c", "--api", "chat")
    assert len({each["writing"].cell for each in (first, second, chat)}) == 3
    with pytest.raises(ValueError, match="two protocols would share a column: engine"):
        one_protocol(to_frame([first["writing"], second["writing"]]))


def test_likelihood_tasks_are_left_out_with_the_reason(tasks, tmp_path, capsys, server):
    with FakeEngine(echo=False, engine=server.engine) as fake:
        found = scored(fake, tasks, tmp_path / "out")
    assert set(found) == {"writing"}
    said = " ".join(capsys.readouterr().out.split())
    assert "task choice: http" in said and "gives no log-probabilities of a prompt" in said


def test_refusals_are_counted(tasks, tmp_path, server):
    with FakeEngine(engine=server.engine) as fake:
        answer = fake.answer

        def refusing(path, body):
            reply = answer(path, body)
            reply["choices"][0] |= {"finish_reason": "content_filter"}
            return reply

        fake.answer = refusing
        main(["--engine", fake.name, "--tasks", str(tasks["writing"]), "--out", str(tmp_path / "out")])
    (record,) = collect(tmp_path / "out")
    assert record.answer.metrics["refused"].value == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samplers", "all"], "--samplers has no effect with --engine"),
        (["--ckpt", "x"], "--ckpt has no effect with --engine"),
        (["--tasks", "rolling"], "scores whole texts"),
        (["--tasks", "writing", "--limit", "0"], "limit=0 is too small"),
        (["--tasks", "writing", "--extra", "[]"], "give a JSON object"),
        (["--tasks", "choice", "--api", "chat"], "the chat API gives no log-probabilities"),
        (["--tasks", "writing", "--engine", "vllm:http://x"], "no engine 'vllm:http://x'; give openai:URL"),
    ],
)
def test_wrong_arguments_are_one_line(server, tasks, arguments, said):
    arguments = [str(tasks.get(word, word)) for word in arguments]
    engine = [] if "--engine" in arguments else ["--engine", server.name]
    with pytest.raises(ValueError, match=said):
        main([*engine, *arguments])
