"""Servers with OpenAI's protocol: completions and chat, with log-probabilities where the server gives them.

    server = connect("openai:http://localhost:8000/v1", None, Limits(), {})
    server.complete(["The sky is"], [Settings(length=8)], "completions")

Fields are those of OpenAI's reference (https://platform.openai.com/docs/api-reference/completions and /chat). Prompts
are scored by `echo` with `logprobs` and one further token, which vLLM, SGLang and llama-cpp-python take; OpenAI's own
chat models and llama.cpp's `llama-server` give no log-probabilities of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from repro.core.errors import nearest
from repro.core.parts import Part, canonical, part, sha256, to_json
from repro.evals.engines.alignment import Unaligned, of_continuation
from repro.evals.engines.engine import Api, Completion, Scored, Settings, Token, Unsupported, total
from repro.evals.engines.http import Connection, Limits, Reply
from repro.evals.engines.replies import Chat, Completions, chat, completion, only, tokens_of

if TYPE_CHECKING:
    from repro.evals.engines.rolling import Windows

PREFIX = "openai:"
MOST_STOPS = 4
"""Largest number of stop strings in a request (OpenAI's reference); further ones are applied to the reply."""
ECHO = {"max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
"""Fields of a request for the log-probabilities of a prompt, as lm-eval's (0.4.13 models/openai_completions.py:86)."""
PROBES = ("the sky", "one two three", "my name is")
"""Prompts on which a server's log-probabilities of prompt tokens are compared with those of generated tokens."""
FAR = 0.5
"""Largest difference, in nats, that rounding explains between the log-probabilities of a token as part of a prompt and
as generated."""


@part
class OpenAIServer(Part):
    """Description of a model behind an OpenAI-compatible server, for records: `url`, `model` (the name that requests
    give) and `extra`, canonical JSON of further fields of every request."""

    url: str
    model: str
    extra: str

    def digest(self) -> str:
        """SHA-256 of the server's description as canonical JSON; records hold it in place of a checkpoint's digest."""
        return sha256(to_json(canonical(self)))


class _Model(Struct):
    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[_Model]


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server, reached by `connection`; `identity`: how records name it; `extra`: further fields of
    every request."""

    connection: Connection
    identity: OpenAIServer
    extra: dict[str, Any]
    context: int | None = None
    """Most tokens of a prompt and the text generated after it together, as vLLM and SGLang state it (None: not
    stated)."""
    windows: Windows | None = None
    """How whole texts are cut into windows for this server (None: no task scores whole texts)."""
    checked: list[bool] = field(default_factory=list, repr=False, compare=False)
    """Not empty once log-probabilities of prompts were compared with those of generation."""

    @property
    def name(self) -> str:
        return f"{self.identity.model} at {self.identity.url}"

    def complete(
        self, prompts: Sequence[str], settings: Sequence[Settings], api: Api, together: bool = True
    ) -> list[Completion]:
        """One completion for each prompt, each with its settings.

        `api` "chat": the server applies its chat template; `together`: whether requests run at the same time. Raises
        Refused if the server refuses a request, ConnectionError if it does not answer, ValueError for a reply of
        another form.
        """
        if api == "chat":
            bodies = [self._chat_body(prompt, how) for prompt, how in zip(prompts, settings, strict=True)]
            return [chat(reply) for reply in self._replies("chat/completions", bodies, Chat, together)]
        bodies = [self._completion_body(prompt, how) for prompt, how in zip(prompts, settings, strict=True)]
        return [completion(reply) for reply in self._replies("completions", bodies, Completions, together)]

    def _replies(
        self, path: str, bodies: list[dict[str, Any]], kind: type[Reply], together: bool
    ) -> list[Reply]:
        if together:
            return self.connection.post_all(path, bodies, kind)
        return [self.connection.post(path, body, kind) for body in bodies]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """The log-likelihood of each continuation, given (context, continuation) pairs. A token that begins in the
        context and ends in the continuation counts as part of the continuation.

        Raises Unsupported if the server gives no log-probabilities of prompts, gives a token another log-probability in
        a prompt than when it generates the token, or gives tokens that do not make up the prompt.
        """
        self._check_once()
        return self._scores(pairs)

    def score_ids(self, windows: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        """The log-likelihood of each continuation, given (context, continuation) pairs of lists of ids of the server's
        tokenizer; a context has at least one id. Raises Unsupported as `score` does, and Refused for a server that
        takes no prompts of ids, such as llama-cpp-python."""
        self._check_once()
        bodies = [self._body({"prompt": [*before, *after], **ECHO}) for before, after in windows]
        replies = self.connection.post_all("completions", bodies, Completions)
        return [
            total(self._echoed(reply, len(before) + len(after))[len(before) :], self.name)
            for (before, after), reply in zip(windows, replies, strict=True)
        ]

    def _echoed(self, reply: Completions, count: int) -> list[Token]:
        """The `count` tokens of the prompt that a reply repeats, without the token that the server generated after
        them; Unsupported if the reply has no tokens, or another number of tokens."""
        found = only(reply.choices).logprobs
        if found is None or not found.tokens:
            raise Unsupported(self._no_echo())
        tokens = tokens_of(found)
        if len(tokens) not in (count, count + 1):
            raise Unsupported(
                f"{self.identity.url} answers log-probabilities of {len(tokens)} tokens to a prompt of {count} ids; use"
                " another server"
            )
        return tokens[:count]

    def _check_once(self) -> None:
        if not self.checked:
            self._check_scores()
            self.checked.append(True)

    def _check_scores(self) -> None:
        """Raise Unsupported if a token that the server generates gets another log-probability as part of a prompt. For
        example, llama-cpp-python scores a token by the logits after it where the tokenizer adds no BOS
        (abetlen/llama-cpp-python v0.3.36 llama_cpp/llama.py:1731)."""
        made = self.complete(PROBES, [Settings(1, top=2)] * len(PROBES), "completions", together=False)
        for context, written in zip(PROBES, made, strict=True):
            if len(written.tokens) != 1 or written.tokens[0].logprob is None or not written.text.strip():
                continue
            (scored,) = self._scores([(context, written.text)])
            said, stated = scored.value, written.tokens[0].logprob
            if len(scored.tokens) == 1 and abs(said - stated) > FAR:
                raise Unsupported(
                    f"{self.identity.url} gives {written.text!r} after {context!r} the log-probability {stated:.2f}"
                    f" as a generated token and {said:.2f} as part of a prompt: those of prompts belong to other"
                    " positions, as llama-cpp-python's for models without BOS; use another server for likelihoods"
                )

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        bodies = [self._body({"prompt": context + continuation, **ECHO}) for context, continuation in pairs]
        replies = self.connection.post_all("completions", bodies, Completions)
        return [self._scored(*pair, reply) for pair, reply in zip(pairs, replies, strict=True)]

    def _scored(self, context: str, continuation: str, reply: Completions) -> Scored:
        choice, whole = only(reply.choices), context + continuation
        if choice.logprobs is None or not choice.logprobs.tokens or not (choice.text or "").startswith(whole):
            raise Unsupported(self._no_echo())
        tokens = tokens_of(choice.logprobs)
        written = len(choice.text) > len(whole) or choice.finish_reason == "length"
        # the token behind the prompt is listed, except, by some servers, if it is the end of the text
        for some in (tokens[:-1], tokens) if written else (tokens, tokens[:-1]):
            try:
                kept = of_continuation(whole, [token.text for token in some], len(context))
            except Unaligned as error:
                reason = error
                continue
            return total([some[number] for number in kept], self.name)
        raise Unsupported(
            f"{self.identity.url} gives tokens that do not make up the text {whole[:40]!r}: {reason}; use another"
            " server for likelihoods"
        )

    def _no_echo(self) -> str:
        return (
            f"{self.identity.url} gives no log-probabilities of a prompt (echo with logprobs), which likelihood tasks"
            " need; vLLM, SGLang and llama-cpp-python (--logits_all true) do"
        )

    def _body(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.identity.model, **fields, **self.extra}

    def _completion_body(self, prompt: str, how: Settings) -> dict[str, Any]:
        logprobs = {"logprobs": how.top} if how.top else {}
        return self._body({"prompt": prompt, **_sampling(how), **logprobs})

    def _chat_body(self, prompt: str, how: Settings) -> dict[str, Any]:
        logprobs = {"logprobs": True, "top_logprobs": how.top} if how.top else {}
        message = {"role": "user", "content": prompt}
        return self._body({"messages": [message], **_sampling(how), **logprobs})


def _sampling(how: Settings) -> dict[str, Any]:
    stop = {"stop": list(how.stop[:MOST_STOPS])} if how.stop else {}
    drawn = {"temperature": how.temperature, "top_p": how.top_p, "seed": how.seed}
    return {"max_tokens": how.length, **drawn, **stop}


# --- connecting ---------------------------------------------------------------------------------------------
def is_server(name: str) -> bool:
    """Whether a name is that of a server, "openai:URL"."""
    return name.startswith(PREFIX)


def connect(
    name: str, model: str | None, limits: Limits, extra: dict[str, Any], flag: str = "--model"
) -> Server:
    """Connect to the server `name` ("openai:URL") and ask it for its models.

    `model`: name of the model in requests (None: the only one of the server); `limits`: time-out, retries and number of
    requests at once; `extra`: further fields of every request; `flag`: option of the command line by which the user
    names the model. Raises ValueError if `name` has another form, if the
    server does not list `model`, or if `model` is None and it does not list exactly one; ConnectionError if the server
    does not answer.
    """
    kind, colon, url = name.partition(":")
    if not colon or f"{kind}:" != PREFIX:
        raise ValueError(f"no engine {name!r}; give openai:URL, for example openai:http://localhost:8000/v1")
    connection = Connection(url, limits)
    served = {each.id: each.max_model_len for each in connection.get("models", _Models).data}
    names = list(served)
    if model is None:
        if len(names) != 1:
            known = f" ({', '.join(names[:20])}{', ...' if len(names) > 20 else ''})" if names else ""
            raise ValueError(f"{url} serves {len(names)} models; name one with {flag}{known}")
        model = names[0]
    elif model not in names:
        raise ValueError(f"{url} serves no model {model!r}; {nearest(model, names)}")
    identity = OpenAIServer(url=connection.url, model=model, extra=to_json(extra))
    return Server(connection, identity, extra, served[model])
