"""Comparison of generated texts: the first token that differs, and whether the difference exceeds the tolerance.

At temperature 0 two correct engines may write different tokens only where the two largest log-probabilities are closer
than twice the tolerance, since each log-probability may be off by the tolerance. Such a position, a near tie that
rounding explains, is *undecided*; a difference at any other, *decided* position is an error. Tokens after the first
different one are not compared, since they continue different texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.evals.engines.alignment import BROKEN, covering, is_broken
from repro.evals.engines.engine import Completion, Scored, Token

END = "<end of text>"
PRECISIONS = (
    (1e-7, "equal numbers"),
    (2e-4, "the size of float32 rounding"),
    (5e-2, "the size of bfloat16 or float16 rounding"),
    (0.25, "the size of another precision or of quantised weights"),
)
"""(largest mean absolute difference of log-probabilities in nats, its description). From relative rounding errors of
2^-24 and 2^-9 of logits of about 10, and from 4-bit weights (docs/engines.md)."""


@dataclass(frozen=True)
class Divergence:
    """Where two texts first differ. `position`: index there, of a token or, if an engine gives no tokens, of a
    character; `unit`: "token" or "character"; `a`, `b`: what the two texts have there; `before`: the text that both
    have before it; `gap`: difference of the two largest log-probabilities there in nats, the smaller one of both
    engines (None: unknown); `decided`: whether the difference is an error, as `gap` is unknown or above twice the
    tolerance, so that rounding does not explain it."""

    position: int
    unit: str
    a: str
    b: str
    before: str
    gap: float | None
    decided: bool

    def says(self) -> str:
        """Where the texts first differ, as part of a sentence: position, text before it, what both have there, and the
        gap."""
        gap = "unknown gap" if self.gap is None else f"gap {self.gap:.3g} nats"
        return f"{self.unit} {self.position} after {self.before[-40:]!r}: {self.a!r} and {self.b!r} ({gap})"


@dataclass(frozen=True)
class Walk:
    """Result of the comparison of two texts (`walk`). `same`: number of equal tokens at the start, 0 where an engine
    gave no tokens and the texts were compared by character; `divergence`: where they first differ (None: nowhere);
    `differences`: absolute differences of the log-probabilities of equal tokens, in nats."""

    same: int
    divergence: Divergence | None
    differences: list[float]

    @property
    def failed(self) -> bool:
        """Whether the two texts first differ at a token for which an engine was so sure that rounding does not explain
        the difference (a *decided* position): an error."""
        return self.divergence is not None and self.divergence.decided


def walk(a: Completion, b: Completion, tolerance: float) -> Walk:
    """The comparison of two texts, token by token up to the first difference. `tolerance`: error allowed for each
    log-probability, in nats; a difference where the two largest log-probabilities are at most twice this error apart
    is undecided (a near tie that rounding explains), any other is decided (an error). If an engine gave no tokens, the
    texts are compared by character, and every difference is decided."""
    if not _has_tokens(a) or not _has_tokens(b) or not (a.tokens or b.tokens):
        if a.text == b.text:
            return Walk(0, None, [])
        same = next((i for i, (x, y) in enumerate(zip(a.text, b.text, strict=False)) if x != y), None)
        at = min(len(a.text), len(b.text)) if same is None else same
        said = (a.text[at : at + 12] or END, b.text[at : at + 12] or END)
        return Walk(0, Divergence(at, "character", *said, a.text[:at], None, True), [])
    ours, theirs, differences, before = _written(a), _written(b), [], ""
    for position in range(max(len(ours), len(theirs))):
        one, other = _at(ours, position, a, theirs), _at(theirs, position, b, ours)
        if one is None or other is None:
            return Walk(position, None, differences)
        if _shown(one) != _shown(other):
            gaps = [each.gap for each in (one, other) if each.gap is not None]
            gap = min(gaps, default=None)
            decided = gap is None or gap > 2 * tolerance
            return Walk(
                position,
                Divergence(position, "token", one.text, other.text, before, gap, decided),
                differences,
            )
        differences += _differences([one], [other])
        before += one.text
    return Walk(len(ours), None, differences)


def parted(a: Completion, b: Completion, stop: str, tolerance: float) -> bool:
    """Whether two texts after one prompt differ before the stop string `stop`, by tokens at an undecided position (a
    near tie that rounding explains); such texts continue differently, so they need not stop at the same place.
    `tolerance`: error allowed for each log-probability, in nats."""
    found = walk(a, b, tolerance).divergence
    return (
        found is not None and not found.decided and END not in (found.a, found.b) and stop not in found.before
    )


def seeds_obeyed(a: Sequence[Completion], b: Sequence[Completion], tolerance: float, level: float) -> bool:
    """Whether the texts `a` and `b`, drawn with the same seeds, differ no more often than rounding explains.

    By rounding, the log-probabilities of two runs may differ by the `tolerance` e. Then one seed gives different tokens
    with a probability of at most 2 tanh(e / 2) < e per token if each is drawn by one race of exponential times (as in
    vLLM), and more often if by inverse CDF; so 2 e is allowed. The result is False if, over all compared tokens, the
    binomial probability of as many different texts or more is below `level`. Texts without tokens must be equal.
    """
    walks = [walk(x, y, tolerance) for x, y in zip(a, b, strict=True)]
    ends = sum(each.divergence is not None for each in walks)
    if not ends or not all(map(_has_tokens, (*a, *b))):
        return not ends
    from scipy.stats import binom

    compared = sum(each.same for each in walks) + ends
    return float(binom.sf(ends - 1, compared, min(1.0, 2 * tolerance))) >= level


def compared_scores(a: Sequence[Scored], b: Sequence[Scored]) -> tuple[list[float], int]:
    """For the same texts as scored by two engines (`a`, `b`): the absolute differences of the tokens' log-probabilities
    in nats, and the number of texts that are left out, as the engines cut them into different tokens."""
    found: list[float] = []
    cut = 0
    for one, other in zip(a, b, strict=True):
        if [_shown(each) for each in one.tokens] == [_shown(each) for each in other.tokens]:
            found += _differences(one.tokens, other.tokens)
        else:
            cut += 1
    return found, cut


def size_of(differences: Sequence[float]) -> str:
    """Description of the mean of absolute differences of log-probabilities (in nats), such as "the size of float32
    rounding" (`PRECISIONS`)."""
    mean = math.fsum(differences) / len(differences)
    return next(
        (says for most, says in PRECISIONS if mean <= most), "too large for rounding: another text or network"
    )


def _written(made: Completion) -> list[Token]:
    """The tokens that make up the text of `made`, without the end token that some engines list after them."""
    if made.finish == "length":
        return list(made.tokens)
    return list(made.tokens[: covering(made.text, [each.text for each in made.tokens])])


def _has_tokens(made: Completion) -> bool:
    """Whether the engine gave the tokens of the text `made`; an empty text has none."""
    return bool(made.tokens) or not made.text


def _at(tokens: Sequence[Token], position: int, made: Completion, others: Sequence[Token]) -> Token | None:
    """The token at index `position` of the text `made`, which consists of `tokens`. After the last token: one that
    stands for the end of the text (`END`), or None if the text was cut by its length limit and those that follow in
    the other text (`others`) are parts of a character, which some engines leave out at the limit."""
    if position < len(tokens):
        return tokens[position]
    cut = made.finish == "length" and all(is_broken(each.text) for each in others[position:])
    return None if cut else Token(END, None, {})


def _shown(token: Token) -> str:
    return BROKEN if is_broken(token.text) else token.text


def _differences(a: Sequence[Token], b: Sequence[Token]) -> Iterator[float]:
    for one, other in zip(a, b, strict=True):
        if one.logprob is not None and other.logprob is not None:
            yield 0.0 if one.logprob == other.logprob else abs(one.logprob - other.logprob)
