"""What an engine (a program that decodes) is asked and what it answers: the interface of servers and our own decoding.

An engine completes texts, answers one chat message, and may say how likely each token was. Texts and tokens are
strings: engines need not share ids. Log-probabilities are in nats, of the network's own distribution (temperature 1,
nothing cut off), as vLLM and llama.cpp return them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Api = Literal["completions", "chat"]
NO_GREEDY = (
    "the engine gives log-probabilities of a prompt without the likely tokens beside them (top_logprobs), so whether"
    " greedy decoding gives an answer, which tasks of likelihoods ask, is not known"
)


class Unsupported(ValueError):
    """Raised if an engine cannot give what was asked, for a reason that holds for every request of the same kind."""


@dataclass(frozen=True)
class Settings:
    """How a text is generated. `length`: most tokens; `temperature`: 0 is greedy; `top_p`: nucleus (1: nothing is cut
    off); `stop`: strings before which the text ends; `seed`: of the random draws; `top`: number of most likely tokens
    whose log-probabilities are returned at each position (0: none)."""

    length: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    top: int = 0


@dataclass(frozen=True)
class Token:
    """A token as text, its log-probability in nats (None: not given), and `top`, the most likely tokens at its position
    with their log-probabilities."""

    text: str
    logprob: float | None
    top: dict[str, float]

    @property
    def gap(self) -> float | None:
        """Difference of the two largest log-probabilities at this position, in nats; None unless two are given."""
        best = sorted(self.top.values(), reverse=True)[:2]
        return best[0] - best[1] if len(best) == 2 else None


@dataclass(frozen=True)
class Completion:
    """A generated text. `finish`: why it ended, "stop" (the model's end or a stop string), "length", "content_filter",
    ..., or None (not stated); `tokens`: its tokens, if asked for and given; `prompt_tokens`: number of tokens of the
    prompt as the engine counts them (None: not stated); `refused`: whether the engine declined to answer (then the text
    is empty)."""

    text: str
    finish: str | None
    tokens: tuple[Token, ...] = ()
    prompt_tokens: int | None = None
    refused: bool = False


@dataclass(frozen=True)
class Scored:
    """Log-likelihood of a continuation in nats, summed over its `tokens`. `greedy`: whether each token was the most
    likely one (None: the engine does not say which tokens are likely)."""

    value: float
    tokens: tuple[Token, ...]
    greedy: bool | None


class Engine(Protocol):
    """A program that completes and scores texts; `name` is its name in reports."""

    @property
    def name(self) -> str: ...

    def complete(
        self, prompts: Sequence[str], settings: Sequence[Settings], api: Api, together: bool = True
    ) -> list[Completion]:
        """One completion for each prompt, each with its settings.

        `api` "chat": a prompt is the message of a user, to which the engine applies its template. `together`: whether
        prompts may be sent at the same time. Raises Unsupported for "chat" if the engine has no template.
        """
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """The log-likelihood of each continuation, given (context, continuation) pairs. Raises Unsupported if the
        engine gives no log-probabilities of prompts."""
        ...


def total(tokens: Sequence[Token], where: str) -> Scored:
    """The log-likelihood of the continuation that consists of `tokens`; ValueError if it has none, or one without a
    log-probability. `where`: name of the engine, for the error's message."""
    known = [token.logprob for token in tokens if token.logprob is not None]
    if not tokens or len(known) < len(tokens):
        raise ValueError(
            f"{where}: the engine gives log-probabilities for {len(known)} of the {len(tokens)} tokens of the"
            " continuation (the first token of a text has none); give each document a context"
        )
    stated = all(token.top for token in tokens)
    greedy = (
        all(value >= max(token.top.values()) for value, token in zip(known, tokens, strict=True))
        if stated
        else None
    )
    return Scored(math.fsum(known), tuple(tokens), greedy)
