"""A small OpenAI-compatible server in a thread, which answers by our own decoding of a toy model and can be at fault.

    with FakeEngine() as server: ...            server.name is "openai:http://127.0.0.1:PORT/v1"
    with FakeEngine(fault="wrong_template"): ...
    with FakeEngine(failures=["429", "cut"]): ...     the first two requests fail so

Faults (`FAULTS`) are wrong answers, which `engine-check` must find; failures (`FAILURES`) are requests that fail.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from helpers import lm_worlds
from repro.core.parts import part
from repro.evals.engines.engine import Completion, Settings
from repro.evals.engines.local import Local
from repro.processes.left_to_right import LeftToRight

FAULTS = (
    "wrong_template",
    "other_precision",
    "batch_dependent",
    "order_dependent",
    "wrong_stop",
    "ignored_seed",
    "shifted_scores",
)
FAILURES = ("429", "500", "cut", "slow", "wrong_json")


@part
class Chatting(lm_worlds.Letters):
    """Letters with a chat template; special ids have names, as a server's tokens do, and any other symbol is a dot."""

    template: str

    def prompt(self, text):
        return [lm_worlds.BOS, *self.encode(self.template.format(text))]

    def encode(self, text):
        found = re.findall(r"</s>|<s>|[\s\S]", text)
        special = {"</s>": lm_worlds.EOS, "<s>": lm_worlds.BOS}
        known = {each: i for i, each in enumerate(lm_worlds.ALPHABET)} | special
        return [known.get(each, known["."]) for each in found]

    def decode(self, ids):
        return "".join((*lm_worlds.ALPHABET, "</s>", "<s>")[i] for i in ids)


@dataclass(frozen=True)
class Remembering(Local):
    """Our own decoding that answers equal questions once, so that many servers of a test share the work."""

    known: dict[Any, Any] = field(default_factory=dict, compare=False)

    def complete(self, prompts, settings, api, together=True):
        asked = list(zip(prompts, settings, [api] * len(prompts), strict=True))
        for each in asked:
            if each not in self.known:
                self.known[each] = super().complete([each[0]], [each[1]], api)[0]
        return [self.known[each] for each in asked]

    def score(self, pairs):
        for pair in pairs:
            if pair not in self.known:
                self.known[pair] = super().score([pair])[0]
        return [self.known[pair] for pair in pairs]


@cache
def toy(template="q: {}\na: ", deviation=0.4, precision=torch.float32):
    """A random left-to-right Llama over letters, as an engine."""
    data = Chatting(length=96, masked=0, template=template)
    made = lm_worlds.model(LeftToRight(), data, deviation)
    made.denoiser.to(precision)
    return Remembering(made)


class FakeEngine:
    """The server; `requests` are the bodies that it has read, `keys` the Authorization headers."""

    def __init__(
        self,
        fault=None,
        failures=(),
        logprobs=True,
        echo=True,
        ids=True,
        context=None,
        models=("toy",),
        engine=None,
    ):
        assert fault is None or fault in FAULTS
        self.fault, self.failures = fault, list(failures)
        self.logprobs, self.echo, self.models = logprobs, echo, models
        self.ids, self.context = ids, context  # whether prompts may be ids; tokens that are said to fit
        wrong = {"template": "q: {}\n"} if fault == "wrong_template" else {}
        wrong |= {"precision": torch.bfloat16} if fault == "other_precision" else {}
        self.engine = toy(**wrong) if engine is None else engine
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock, self.running, self.served = threading.Lock(), 0, itertools.count()
        self.before = ""

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"fake": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def name(self):
        return f"openai:{self.url}"

    # --- answers --------------------------------------------------------------------------------------------
    def answer(self, path, body):
        with self.lock:
            self.running += 1
        try:
            if self.fault == "batch_dependent":
                time.sleep(0.03)  # so that requests that are sent at once overlap
            chat = path.endswith("chat/completions")
            prompt = body["messages"][0]["content"] if chat else body["prompt"]
            if isinstance(prompt[0], list):  # lm-eval's batch of one
                (prompt,) = prompt
            with self.lock:
                beside, number = self.running > 1, next(self.served)
                if body.get("echo"):
                    return self._echoed(prompt, body)
                made = self._made(prompt, body, chat, beside, number)
            return self._chat(made, body) if chat else self._completion(made, body)
        finally:
            with self.lock:
                self.running -= 1

    def _made(self, prompt, body, chat, beside, number) -> Completion:
        stop = tuple(body.get("stop", ()))
        seed = body.get("seed", 0) if self.fault != "ignored_seed" else number
        how = Settings(
            length=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body.get("top_p", 1.0),
            stop=() if self.fault == "wrong_stop" else stop,
            seed=seed,
            top=max(2, int(body.get("top_logprobs", body.get("logprobs", 0)))),
        )
        before, self.before = self.before, prompt
        late = self.fault == "order_dependent" and prompt < before  # as a cache of another prompt's prefix
        if late or (self.fault == "batch_dependent" and beside):
            prompt = prompt[1:]
        made = self.engine.complete([prompt], [how], "chat" if chat else "completions")[0]
        if self.fault == "wrong_stop" and stop:  # the stop string stays in the text
            ends = [made.text.find(each) + len(each) for each in stop if each in made.text]
            if ends:
                made = replace(made, text=made.text[: min(ends)], finish="stop")
        return made

    def _echoed(self, prompt, body):
        if not self.echo:
            return {"choices": [{"text": "a", "finish_reason": "length", "logprobs": None}]}
        if isinstance(prompt, str):
            first, tokens = prompt[:1], self.engine.score([(prompt[:1], prompt[1:])])[0].tokens
        else:
            first, tokens = (
                self.engine.model.data.decode(prompt[:1]),
                self.engine._tokens(prompt[1:], self.engine._logp(prompt, 1), 1),
            )
        found = _lists(tokens)
        found["tokens"].insert(0, first), found["token_logprobs"].insert(0, None)
        found["top_logprobs"].insert(0, None)
        if self.fault == "shifted_scores":  # each token has the value of the one after it
            found["token_logprobs"] = [None, *found["token_logprobs"][2:], -1.0]
        (
            found["tokens"].append("z"),
            found["token_logprobs"].append(-1.0),
            found["top_logprobs"].append({"z": -1.0}),
        )
        text = "".join(found["tokens"])
        return {"choices": [{"text": text, "finish_reason": "length", "index": 0, "logprobs": found}]}

    def _completion(self, made, body):
        logprobs = _lists(made.tokens) if self.logprobs and body.get("logprobs") else None
        choice = {"text": made.text, "finish_reason": made.finish, "logprobs": logprobs, "index": 0}
        return {"choices": [choice], "usage": {"prompt_tokens": made.prompt_tokens}}

    def _chat(self, made, body):
        content = [
            {
                "token": each.text,
                "logprob": each.logprob,
                "top_logprobs": [{"token": text, "logprob": value} for text, value in each.top.items()],
            }
            for each in made.tokens
        ]
        logprobs = {"content": content} if self.logprobs and body.get("logprobs") else None
        message = {"role": "assistant", "content": made.text}
        choice = {"message": message, "finish_reason": made.finish, "logprobs": logprobs, "index": 0}
        return {"choices": [choice], "usage": {"prompt_tokens": made.prompt_tokens}}


@cache
def running():
    """A right server that lives as long as the process."""
    return FakeEngine().__enter__()


def _lists(tokens):
    return {
        "tokens": [each.text for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [each.top for each in tokens],
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeEngine

    def do_GET(self):
        if self.path != "/v1/models":
            return self._send(404, {"detail": "Not Found"})
        said = {} if self.fake.context is None else {"max_model_len": self.fake.context}
        return self._send(200, {"data": [{"id": name, **said} for name in self.fake.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.lock:
            self.fake.requests.append(body)
            self.fake.keys.append(self.headers.get("Authorization"))
            failure = self.fake.failures.pop(0) if self.fake.failures else None
        if failure == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif failure == "slow":
            time.sleep(0.6)
            self.close_connection = True
        elif failure == "wrong_json":
            self._send(200, '{"choices": [{"text"')
        elif failure is not None:
            self._send(int(failure), {"error": {"message": "try later"}})
        elif isinstance(body.get("prompt"), list) and not self.fake.ids:
            self._send(422, {"detail": "prompt: Input should be a valid string"})
        elif body["model"] not in self.fake.models:
            self._send(404, {"error": {"message": f"no model {body['model']}"}})
        else:
            try:
                self._send(200, self.fake.answer(self.path, body))
            except ValueError as error:
                self._send(400, {"error": {"message": str(error)}})

    def _send(self, status, reply):
        data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass
