"""Cases of servers: replies that are wrong in one value, in their bytes or in how they are sent, and everything that is
given to a command about a server.

A world holds `reply.json`, which says how a small server answers (`Server`): by a rule, with one change where a case
asks for one.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fuzz import mutations
from fuzz.machine import Case
from fuzz.mutations import Spoil

URL = "URL"
"""What stands in arguments for the address of the server, whose port is known only when it runs."""
SERVER = f"openai:{URL}"
QUICK = ("--timeout", "2", "--concurrency", "1")
CHECK = ("repro.evals", "engine-check", SERVER, SERVER, "--length", "3", "--draws", "0", *QUICK)
SCORE = ("repro.evals", "--engine", SERVER, "--tasks", "task.yaml", "--limit", "1", "--out", "out", *QUICK)
WRITE = (*SCORE[:4], "writing.yaml", *SCORE[5:])
COMMANDS: dict[str, tuple[str, ...]] = {
    "engine-check": (*CHECK, "--prompts", "prompts.jsonl"),
    "likelihood": SCORE,
    "generation": WRITE,
    "chat": (*WRITE, "--api", "chat"),
}
"""Name -> a command that asks the server; each starts with the program."""
FORMS = {"engine-check": "completion", "likelihood": "echo", "generation": "completion", "chat": "chat"}
"""Command -> the form of reply that it reads."""
BY_RULE = {"form": "", "place": [], "value": None, "missing": False, "sent": "whole"}
SENT = (
    "endless",
    "drip",
    "cut",
    "401",
    "403",
    "404",
    "418",
    "301",
    "redirect loop",
    "204",
    "500",
    "gzip",
    "long header",
)
"""Ways of sending a reply that are wrong."""


OWN = {"finish_reason", "index", "id", "text", "content", "token", "prompt_tokens"}
"""Fields that a server writes as it likes."""
OPTIONAL = {"usage", "logprobs", "top_logprobs", "token_logprobs", "tokens"}
"""Fields that it may leave out."""


def cases(out: Path) -> Iterator[Case]:
    """Every case of a server."""
    more: dict[str, Any] = {"writes": ("out*",), "keeps": ("out/raw/*",)}
    for name, argv in COMMANDS.items():
        form, called = FORMS[name], ("python:engine", *argv)
        reply = reply_of(form, "ab", 1)
        for what, place, changed in mutations.values(reply):
            field = next((step for step in reversed(place) if isinstance(step, str)), "choices")
            spoil = _changed(form, place, what, changed)
            named = (field, field.replace("_", " "), "/v1", "server", "prompts.jsonl")
            yield Case(
                "replies", f"{name}: {what}", "engine", called, named, spoil, valid=_right(what), **more
            )
        for sent in SENT:
            spoil = mutations.write_json("reply.json", {**BY_RULE, "form": form, "sent": sent})
            yield Case("replies", f"{name}: {sent}", "engine", called, ("/v1",), spoil, **more)
        for what, change in mutations.texts("reply.bytes"):
            sound = what in ("BOM", "UTF-16")  # JSON in any encoding of Unicode
            yield Case(
                "reply bytes", f"{name}: {what}", "engine", called, ("/v1",), _bytes(form, change),
                valid=sound, **more
            )  # fmt: skip
    models = reply_of("models", "", 0)
    for what, place, changed in mutations.values(models):
        spoil = _changed("models", place, what, changed)
        called = ("python:engine", *COMMANDS["engine-check"])
        yield Case(
            "replies", f"models: {what}", "engine", called, ("/v1", "model"), spoil, valid=True, **more
        )
    yield from _canvas()


def _canvas() -> Iterator[Case]:
    """Replies to a remote denoiser."""
    for what, place, changed in mutations.values(reply_of("canvas", "", 2)):
        field = next((step for step in reversed(place) if isinstance(step, str)), "choices")
        spoil = _changed("canvas", place, what, changed)
        # the tail of what is left out is said, and an error from most_tail on
        yield Case(
            "replies", f"canvas: {what}", "engine", ("python:canvas",), (field, "/v1", "tail"), spoil,
            valid=_right(what) or what.endswith(("=0", "=-1")),
        )  # fmt: skip


def _right(what: str) -> bool:
    """Whether a changed reply is right too: fields that a server may leave out, and texts that are what it wrote."""
    place, _, value = what.rpartition("=")
    name = (place or what.removesuffix(" missing")).rpartition(".")[2]
    absent = what.endswith(" missing") or value == "null"
    return name in OWN or (absent and name in OPTIONAL)


def _changed(form: str, place: tuple[Any, ...], what: str, changed: Any) -> Spoil:
    missing = what.endswith(" missing")
    value = None if missing else _at(changed, place)
    found = {**BY_RULE, "form": form, "place": list(place), "value": value, "missing": missing}
    return mutations.write_json("reply.json", found)


def _at(data: Any, place: Sequence[Any]) -> Any:
    for step in place:
        data = data[step]
    return data


def _bytes(form: str, change: Spoil) -> Spoil:
    """Bytes that are sent as they are, in place of a reply of this form."""

    def spoil(folder: Path) -> None:
        (folder / "reply.bytes").write_text(json.dumps(reply_of(form, "ab", 1)), "utf-8")
        change(folder)
        (folder / "reply.json").write_text(json.dumps({**BY_RULE, "form": form, "sent": "bytes"}), "utf-8")

    return spoil


# --- the server ------------------------------------------------------------------------------------------------------
def reply_of(form: str, prompt: str, length: int) -> Any:
    """A right reply: each token is one character of log-probability -1, and a text is a row of `a`."""
    if form == "models":
        return {"data": [{"id": "toy"}]}
    if form == "canvas":
        top = {f"token_id:{i}": -1.6094379124341003 for i in range(5)}
        return {"choices": [{"logprobs": {"tokens": ["a"] * length, "top_logprobs": [top] * length}}]}
    text = "a" * length
    tokens = [*prompt, *text] if form == "echo" else list(text)
    values: list[float | None] = [-1.0] * len(tokens)
    top = [{each: -1.0} for each in tokens]
    if form == "echo":
        values[0] = None
    if form == "chat":
        content = [
            {"token": t, "logprob": -1.0, "top_logprobs": [{"token": t, "logprob": -1.0}]} for t in tokens
        ]
        made = {"message": {"role": "assistant", "content": text}, "logprobs": {"content": content}}
    else:
        shown = prompt + text if form == "echo" else text
        made = {"text": shown, "logprobs": {"tokens": tokens, "token_logprobs": values, "top_logprobs": top}}
    return {
        "choices": [{**made, "index": 0, "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(prompt)},
    }


class Server:
    """A server in a thread that answers as the folder's `reply.json` says."""

    def __init__(self, folder: Path) -> None:
        self.how = json.loads((folder / "reply.json").read_text("utf-8"))
        self.bytes = (folder / "reply.bytes").read_bytes() if self.how["sent"] == "bytes" else b""

    def __enter__(self) -> str:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self.http = _Quiet(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()

    def reply(self, form: str, body: dict[str, Any]) -> bytes:
        """The bytes of the reply to a request."""
        how = self.how
        if form == how["form"] and how["sent"] == "bytes":
            return self.bytes
        prompt = body.get("prompt", "") if form != "chat" else body["messages"][0]["content"]
        data = reply_of(form, prompt, int(body.get("max_tokens", 1)))
        if form == how["form"] and how["place"]:
            with contextlib.suppress(LookupError):  # a shorter reply does not have the place
                *way, last = how["place"]
                holder = _at(data, way)
                if how["missing"]:
                    del holder[last]
                else:
                    holder[last] = how["value"]
        return json.dumps(data).encode()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def do_GET(self) -> None:
        self._answer("models", {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("chat/completions")
        canvas = any(key.startswith("diffusion_") for key in body)
        self._answer(
            "canvas" if canvas else "chat" if chat else "echo" if body.get("echo") else "completion", body
        )

    def _answer(self, form: str, body: dict[str, Any]) -> None:
        data, how = self.server_of.reply(form, body), self.server_of.how
        sent = how["sent"] if form == how["form"] else "whole"
        with contextlib.suppress(OSError):  # the client has left
            if sent in ("endless", "drip"):
                self._without_end(
                    b" " * (1 << 20) if sent == "endless" else b" ", 0.0 if sent == "endless" else 0.05
                )
            elif sent in ("whole", "bytes", "gzip", "long header", "cut"):
                more = {"gzip": ("Content-Encoding", "gzip"), "long header": ("X", "x" * 200_000)}.get(sent)
                self._send(200, data, len(data) + (sent == "cut"), more)
            else:
                place = ("Location", self.path) if sent in ("301", "redirect loop") else None
                self._send(int(sent) if sent.isdigit() else 302, b"" if sent == "204" else data, None, place)

    def _send(
        self, status: int, data: bytes, size: int | None = None, more: tuple[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if size is None else size))
        if more is not None:
            self.send_header(*more)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = size is not None and size > len(data)

    def _without_end(self, block: bytes, wait: float) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pause = threading.Event()
        while True:
            self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            pause.wait(wait)

    def log_message(self, format: str, *args: Any) -> None:
        pass
