"""What servers with OpenAI's protocol reply, read into completions.

Servers differ in what they leave out or write as null, and in the form of log-probabilities: llama.cpp's `llama-server`
writes those of the completions API in the form of the chat API (ggml-org/llama.cpp@00efb3e
tools/server/server-task.cpp: to_json_oaicompat).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from repro.evals.engines.engine import Completion, Token

MOST = 0.25
"""Largest log-probability that rounding explains: half the spacing of logits of 64 in bfloat16."""
LEAST = -9999.0
"""What vLLM writes for minus infinity, which JSON lacks (`_create_completion_logprobs` of
vllm-project/vllm@2d5f987 vllm/entrypoints/openai/serving_completion.py)."""


class _Top(Struct):
    token: str
    logprob: float | None = None


class _ChatToken(Struct):
    token: str
    logprob: float | None = None
    top_logprobs: list[_Top] | None = None


class _ChatLogprobs(Struct):
    content: list[_ChatToken] | None = None


class Logprobs(_ChatLogprobs):
    """Log-probabilities in a reply of the completions API: lists with an element for each token, or `content`, where
    llama.cpp's server writes them in the form of the chat API."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    text_offset: list[int] | None = None


class _Choice(Struct):
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None


class Completions(Struct):
    """JSON of a reply of the completions API: generated texts (`choices`) and numbers of tokens (`usage`)."""

    choices: list[_Choice]
    usage: _Usage | None = None


class _Part(Struct):
    type: str
    text: str | None = None


class _Message(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _ChatChoice(Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class Chat(Struct):
    """JSON of a reply of the chat API: generated messages (`choices`) and numbers of tokens (`usage`)."""

    choices: list[_ChatChoice]
    usage: _Usage | None = None


def only(choices: list[Any]) -> Any:
    """The only element of `choices`; ValueError if there are more or none."""
    if len(choices) != 1:
        raise ValueError(
            f"the server answered {len(choices)} choices to one request instead of 1; use another server"
        )
    return choices[0]


def value_of(logprob: float) -> float:
    """The log-probability that a server means by `logprob`: minus infinity for -9999 (`LEAST`) or less, else itself.
    ValueError for a number above 0 (by more than rounding explains, `MOST`)."""
    if logprob > MOST:
        raise ValueError(
            f"the server answered {logprob:g} as a log-probability, which must be at most 0; make it give natural"
            " logarithms of probabilities, or use another server"
        )
    return logprob if logprob > LEAST else -float("inf")


def tokens_of(found: Logprobs) -> list[Token]:
    """The tokens of a reply of the completions API; ValueError if its lists differ in length."""
    if found.content is not None:
        return _chat_tokens(found)
    tokens, values = found.tokens or [], found.token_logprobs or []
    tops = found.top_logprobs or [None] * len(tokens)
    if not len(tokens) == len(values) == len(tops) or len(found.text_offset or tokens) != len(tokens):
        raise ValueError(
            f"the server answered {len(tokens)} tokens with {len(values)} log-probabilities and {len(tops)} lists of"
            " likely tokens, but their numbers must agree; use another server"
        )
    return [
        Token(
            text,
            None if value is None else value_of(value),
            {t: value_of(v) for t, v in (top or {}).items() if v is not None},
        )
        for text, value, top in zip(tokens, values, tops, strict=True)
    ]


def completion(reply: Completions) -> Completion:
    """The generated text, with its tokens and the reason of its end, from a reply of the completions API."""
    choice = only(reply.choices)
    tokens = [] if choice.logprobs is None else tokens_of(choice.logprobs)
    return _made(choice.text, choice.finish_reason, tokens, reply.usage, refused=False)


def chat(reply: Chat) -> Completion:
    """The generated text, with its tokens and the reason of its end, from a reply of the chat API."""
    choice = only(reply.choices)
    tokens = [] if choice.logprobs is None else _chat_tokens(choice.logprobs)
    text = choice.message.content
    if isinstance(text, list):
        text = "".join(part.text or "" for part in text if part.type == "text")
    return _made(text, choice.finish_reason, tokens, reply.usage, bool(choice.message.refusal))


def _chat_tokens(found: _ChatLogprobs) -> list[Token]:
    return [
        Token(
            each.token,
            None if each.logprob is None else value_of(each.logprob),
            {top.token: value_of(top.logprob) for top in each.top_logprobs or () if top.logprob is not None},
        )
        for each in found.content or ()
    ]


def _made(
    text: str | None, finish: str | None, tokens: list[Token], usage: _Usage | None, refused: bool
) -> Completion:
    """A completion from the fields of a reply. It counts as refused, with the text "", if `refused`, if `text` is None
    (as beside a tool call, or before a model has finished its reasoning), or if it was filtered ("content_filter")."""
    refused = refused or text is None or finish == "content_filter"
    counted = None if usage is None else usage.prompt_tokens
    return Completion("" if refused else text or "", finish, tuple(tokens), counted, refused)
