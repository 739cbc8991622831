"""What servers write in their own ways: null fields, log-probabilities, errors in replies, redirects, waits, keys."""

from __future__ import annotations

import datetime
import json
import math
import threading
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import msgspec
import pytest

from repro.evals.engines import replies
from repro.evals.engines.adapter import EngineAdapter
from repro.evals.engines.engine import NO_GREEDY, Settings, Unsupported
from repro.evals.engines.http import KEY, Connection, Limits, Refused
from repro.evals.engines.openai import OpenAIServer, Server
from repro.evals.work_queue import SERIAL

QUICK = Limits(timeout=5.0, wait=0.0, longest_wait=0.0, tries=2)


def server(connection):
    return Server(connection, OpenAIServer(url="http://x", model="m", extra="{}"), {})


# --- texts --------------------------------------------------------------------------------------------------
def chat(message, finish="stop", **more):
    data = {"choices": [{"message": message, "finish_reason": finish, **more}]}
    return replies.chat(msgspec.convert(data, replies.Chat))


@pytest.mark.parametrize(
    "message, finish",
    [
        ({"content": None, "reasoning_content": "hm"}, "length"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"content": "no", "refusal": "I cannot"}, "stop"),
    ],
)
def test_a_reply_without_an_answer_counts_as_refused(message, finish):
    made = chat(message, finish)
    assert made.refused and made.text == "" and made.finish == finish


def test_an_empty_answer_is_no_refusal():
    assert not chat({"content": ""}).refused
    assert chat({"content": [{"type": "thinking"}, {"type": "text", "text": "yes"}]}).text == "yes"


@pytest.mark.parametrize("top", [{}, {"top_logprobs": None}, {"top_logprobs": []}])
def test_missing_lists_of_likely_tokens_are_empty(top):
    made = chat({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0, **top}]})
    assert made.tokens[0].logprob == -1.0 and made.tokens[0].top == {} and made.tokens[0].gap is None


def completions(logprobs):
    data = {"choices": [{"text": "a", "finish_reason": "stop", "logprobs": logprobs}]}
    return replies.completion(msgspec.convert(data, replies.Completions))


def test_null_among_likely_tokens_is_left_out():
    """JSON libraries write minus infinity as null."""
    made = completions({"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0, "b": None}]})
    assert made.tokens[0].top == {"a": -1.0}
    top = [{"token": "b", "logprob": None}, {"token": "a", "logprob": -1.0}]
    made = chat(
        {"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0, "top_logprobs": top}]}
    )
    assert made.tokens[0].top == {"a": -1.0}


@pytest.mark.parametrize("value", [0.9, 800.0, math.inf])
def test_what_is_no_log_probability_is_refused(value):
    with pytest.raises(ValueError, match=r"as a log-probability, which must be at most 0; make it give"):
        completions({"tokens": ["a"], "token_logprobs": [value]})
    assert completions({"tokens": ["a"], "token_logprobs": [0.06]}).tokens[0].logprob == 0.06, "bfloat16"


def test_log_probabilities_of_completions_may_have_the_form_of_the_chat_api():
    """llama.cpp's llama-server."""
    top = [{"token": " a", "logprob": -0.1}, {"token": " b", "logprob": -9999.0}]
    logprobs = {
        "content": [{"id": 3, "token": " a", "bytes": [32, 97], "logprob": -0.1, "top_logprobs": top}]
    }
    data = {"choices": [{"text": " a", "finish_reason": "length", "logprobs": logprobs}]}
    made = replies.completion(msgspec.convert(data, replies.Completions))
    assert [each.text for each in made.tokens] == [" a"]
    assert made.tokens[0].top == {" a": -0.1, " b": -math.inf}


# --- scores -------------------------------------------------------------------------------------------------
class Echo:
    """A connection to a server that repeats prompts as `tokens` (text, log-probability), and writes " z" after them."""

    def __init__(self, tokens, offsets, top=True):
        self.tokens, self.offsets, self.top = [*tokens, (" z", -0.5)], offsets, top

    def post(self, path, body, kind):
        if not body.get("echo"):
            return msgspec.convert({"choices": [{"text": "", "finish_reason": "stop"}]}, kind)
        texts, values = [text for text, _ in self.tokens], [value for _, value in self.tokens]
        tops = [None if value is None else {text: value} for text, value in self.tokens]
        found = {"tokens": texts, "token_logprobs": values, "top_logprobs": tops if self.top else None}
        found["text_offset"] = [self.offsets(texts, i) for i in range(len(texts))]
        choice = {"text": body["prompt"] + " z", "finish_reason": "length", "logprobs": found}
        return msgspec.convert({"choices": [choice]}, kind)

    def post_all(self, path, bodies, kind):
        return [self.post(path, body, kind) for body in bodies]


def added(texts, i):
    """vLLM adds the lengths of all tokens' texts."""
    return sum(map(len, texts[:i]))


EMOJI = [
    ("the", None),
    (" ca", -1.0),
    *[("\ufffd", -2.0)] * 4,
    (" dog", -3.0),
    (" ran", -4.0),
    (" off", -5.0),
]


@pytest.mark.parametrize("offsets", [added, lambda texts, i: -1], ids=["vllm", "sglang"])
@pytest.mark.parametrize("bos", [[], ["<s>"], ["<|begin_of_text|>"]])
def test_a_continuation_is_scored_by_its_own_tokens(offsets, bos):
    """vLLM counts BOS and each part of a character; SGLang writes -1 for every place."""
    tokens = [*[(each, None) for each in bos], *EMOJI]
    if bos:
        tokens[1] = ("the", -0.5)
    (found,) = server(Echo(tokens, offsets)).score([("the ca\U0001f642 dog", " ran off")])
    assert found.value == -9.0 and [each.text for each in found.tokens] == [" ran", " off"] and found.greedy


def test_the_token_behind_a_prompt_that_ends_in_parts_of_characters_is_left_out():
    (found,) = server(Echo(EMOJI[:6], added)).score([("the ca", "\U0001f642")])
    assert found.value == -8.0


def test_tokens_of_another_text_are_refused():
    with pytest.raises(
        Unsupported, match="http://x gives tokens that do not make up the text 'one two': the"
    ):
        server(Echo(EMOJI, added)).score([("one", " two")])


def test_greedy_is_unknown_without_likely_tokens():
    """Else every answer would count as what greedy decoding writes: accuracy 1 in tasks such as lambada."""
    engine = server(Echo(EMOJI, added, top=False))
    pair = ("the ca\U0001f642 dog", " ran off")
    assert engine.score([pair])[0].greedy is None
    adapter = EngineAdapter(engine, "completions", 0, SERIAL)
    with pytest.raises(Unsupported, match=NO_GREEDY[:40]):
        adapter.loglikelihood([SimpleNamespace(args=pair)])


@pytest.mark.parametrize(
    ("asked", "temperature", "top_p"),
    [
        ({}, 0.0, 1.0),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, 0.0, 1.0),
        ({"temperature": 0.7, "top_p": 0.9}, 0.7, 0.9),
        ({"do_sample": True, "top_p": 0.9}, 1.0, 0.9),
        ({"do_sample": True, "temperature": 0.7}, 0.7, 1.0),
        ({"do_sample": True, "temperature": 0}, 0.0, 1.0),
        ({"temperature": 0.0}, 0.0, 1.0),
    ],
)
def test_what_a_task_asks_of_sampling(asked, temperature, top_p):
    """Draws at temperature 1 only where a task gives no temperature."""
    sent = []

    class Recorder:
        def complete(self, prompts, settings, api, together):
            sent.extend(settings)
            return [SimpleNamespace(text="", finish="stop", refused=False) for _ in prompts]

    adapter = EngineAdapter(Recorder(), "completions", 0, SERIAL)
    adapter.generate_until([SimpleNamespace(args=("a", {"until": [], "max_gen_toks": 4, **asked}))])
    assert [(each.temperature, each.top_p) for each in sent] == [(temperature, top_p)]


# --- requests -----------------------------------------------------------------------------------------------
class Scripted(BaseHTTPRequestHandler):
    """Answers each request with the next of `script`: (status, headers, body)."""

    script: ClassVar[list] = []
    asked: ClassVar[list] = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers.get("Authorization"))
        status, headers, body = self.script.pop(0)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *args):
        pass


GOOD = (200, {}, {"choices": [{"text": "a", "finish_reason": "stop"}]})


@pytest.fixture
def asked(monkeypatch):
    """A function that completes a prompt on a server with a script; returns its text and the waits."""
    monkeypatch.delenv(KEY, raising=False)
    handler = type("Handler", (Scripted,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        service.daemon_threads, service.block_on_close = True, False
        thread = threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True)
        thread.start()

        def ask(*script, limits=QUICK):
            handler.script, waits = list(script), []
            address = f"http://127.0.0.1:{service.server_address[1]}/v1"
            engine = server(Connection(address, limits, waits.append))
            return engine.complete(["p"], [Settings(2)], "completions")[0].text, waits

        yield ask
        service.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Provider returned error", "code": 502}},
        {"error": "overloaded"},
        {"choices": [{"text": "half a te", "finish_reason": "abort"}]},
        {"choices": [{"text": "half a te", "finish_reason": "error"}]},
        '{"choices": [{"text": "caf\u00e9"'.encode()[:-2],
        b"<html>login</html>",
    ],
)
def test_a_failure_within_a_reply_is_asked_again(asked, body):
    assert asked((200, {}, body), GOOD)[0] == "a"
    with pytest.raises(ConnectionError, match="was asked 2 times without an answer"):
        asked((200, {}, body), (200, {}, body))


def test_a_reply_that_is_cut_is_said_to_be(asked):
    cut = (200, {"Content-Length": "999"}, b"{")
    with pytest.raises(ConnectionError, match="cut in the middle of a reply"):
        asked(cut, cut)


def test_what_is_no_json_is_shown(asked):
    with pytest.raises(
        ConnectionError, match=r"\(its reply '<html>login</html>' is not sound JSON \(.*\)\); check that"
    ):
        asked(*[(200, {}, b"<html>login</html>")] * 2)


def test_an_error_of_the_request_within_a_reply_is_not_asked_again(asked):
    with pytest.raises(Refused, match=r"status 400: .*too long"):
        asked((200, {}, {"error": {"message": "too long", "code": 400}}))


def test_a_redirect_is_named_and_not_followed(asked, monkeypatch):
    monkeypatch.setenv(KEY, "sk-hidden")
    with pytest.raises(Refused, match=r"it redirects to https://other\.example/v1/completions, which is not"):
        asked((307, {"Location": "https://other.example/v1/completions"}, b""))


@pytest.mark.parametrize("key", ["sk-\u20ac", "sk-\u00fc", "sk a\nb"])
def test_a_key_that_no_header_holds_is_refused_without_showing_it(monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ValueError, match=r"the API key in .* has characters that no key has") as error:
        Connection("http://127.0.0.1:9/v1", QUICK)
    assert "sk" not in str(error.value)


def test_half_a_surrogate_pair_and_minus_infinity_are_read(asked):
    text = rb'{"choices": [{"text": "\\ud83d\ud83d\ude42\ud83d", "finish_reason": "stop", "x": -Infinity}]}'
    assert asked((200, {}, text))[0] == "\\ud83d\U0001f642\ufffd"


def test_the_server_says_how_long_to_wait(asked):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    limits = Limits(wait=0.5, longest_wait=60.0)
    _, waits = asked(
        *[(503, {"Retry-After": value}, b"busy") for value in ("1.5", format_datetime(later, True), "soon")], GOOD,
        limits=limits,
    )  # fmt: skip
    assert waits[0] == 1.5 and 27 < waits[1] <= 30 and waits[2] == 2.0
