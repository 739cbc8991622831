"""Which characters of a text each token of a server's reply writes.

    spans(" caf\\u00e9 is", [" caf", "\\ufffd", "\\ufffd", " is"])     -> [(0, 4), (4, 5), (4, 5), (5, 8)]

The field `text_offset` of OpenAI's protocol should say so, but SGLang writes -1
(`sgl-project/sglang@0101654 python/sglang/srt/entrypoints/openai/utils.py:25-31`), and vLLM adds up the lengths of the
tokens' texts (`_create_completion_logprobs` of
`vllm-project/vllm@2d5f987 vllm/entrypoints/openai/serving_completion.py`): it counts BOS, which the text does not show,
and each part of a character as one character. So the texts of the tokens are searched in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BROKEN = "\ufffd"
"""Stands for each token that is only part of a character, as engines write such tokens in different ways."""


LONGEST_SPECIAL = 40
"""Most characters of a special token, such as <|start_header_id|>."""


class Unaligned(ValueError):
    """Raised if the texts of the tokens that a server states do not make up the text that the tokens should write."""


def is_broken(token: str) -> bool:
    """Whether a token's string does not tell which characters of the text it stands for: it shows a part of a character
    (U+FFFD, or OpenAI's `bytes:\\xe2`), or is empty."""
    return not token or BROKEN in token or token.startswith("bytes:")


def spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end, in characters of `text`, of what each of `tokens` writes; together they cover the text.

    Spaces that a tokenizer's decoder leaves out before a token belong to it. First tokens that the text does not show
    (BOS) have an empty span. Tokens that are parts of characters share the span of these characters. Raises Unaligned
    if a token cannot be found, or if text is left.
    """
    found: list[tuple[int, int]] = []
    at = 0
    while len(found) < len(tokens):
        token = tokens[len(found)]
        end = _end(text, at, token)
        if end is not None:
            found.append((at, end))
        elif at == 0 and not is_broken(token):
            found.append((0, 0))
        else:
            count, end = _run(text, at, tokens[len(found) :])
            found += [(at, end)] * count
        at = found[-1][1]
    if at != len(text):
        raise Unaligned(f"the server's tokens end before {text[at : at + 20]!r}")
    return found


def covering(text: str, tokens: Sequence[str]) -> int:
    """Number of the first `tokens` that write `text`, the last of which may write more (a text is cut before its stop
    string); those after them write nothing of it, such as an end token. All if they do not make up the text."""
    at, count = 0, 0
    while count < len(tokens) and at < len(text):
        end = _end(text, at, tokens[count])
        if end is not None:
            at, count = end, count + 1
        elif tokens[count].replace("\u2581", " ").startswith(text[at:]):
            return count + 1
        elif count == 0 and not is_broken(tokens[0]):  # BOS, which the text does not show
            count = 1
        else:
            try:
                parts, at = _run(text, at, tokens[count:])
            except Unaligned:
                parts = next((i for i, each in enumerate(tokens[count:]) if not is_broken(each)), 0)
                if len(text) - at > sum(map(_most, tokens[count : count + parts])):
                    return len(tokens)
                at = len(text)
            count += parts
    return count if at == len(text) else len(tokens)


def of_continuation(text: str, tokens: Sequence[str], start: int) -> list[int]:
    """Indices of those `tokens` of `text` that end after index `start` of the text, so a token that begins before
    `start` and ends after it is included. Raises Unaligned if the tokens do not make up the text, and if it is unknown
    which tokens are parts of characters before `start` and which of characters after."""
    places = spans(text, tokens)
    run = [number for number, (begin, end) in enumerate(places) if begin < start < end]
    after = [number for number, (_, end) in enumerate(places) if end > start and number not in run]
    if len(run) < 2:
        return [*run, *after]
    begin, end = places[run[0]]
    sizes = [_bytes(tokens[number]) for number in run]
    if sum(sizes) != len(text[begin:end].encode()):
        raise Unaligned(
            f"the server's tokens do not say which bytes of {text[begin:end]!r} each of them stands for"
        )
    before = len(text[begin:start].encode())
    return [*(number for i, number in enumerate(run) if sum(sizes[: i + 1]) > before), *after]


def _end(text: str, at: int, token: str) -> int | None:
    """Index in `text` at which `token` ends, if the token stands at index `at` or after the spaces that begin there;
    None if it stands at neither place, or if it is broken (`is_broken`)."""
    if is_broken(token):
        return None
    token = token.replace("\u2581", " ")  # how SentencePiece shows a space
    later = at + len(text[at:]) - len(text[at:].lstrip(" "))
    for begin, shown in ((at, token), (later, token), (at, token.lstrip(" ")), (later, token.lstrip(" "))):
        if shown and text.startswith(shown, begin):
            return begin + len(shown)
    return None


def _run(text: str, at: int, tokens: Sequence[str]) -> tuple[int, int]:
    """Match the broken tokens (`is_broken`) at the start of `tokens` with the text from index `at` on. Returns (count,
    end): these `count` tokens together stand for `text[at:end]`, where `end` is the first index at which the next token
    is found, or the end of the text if there is none. Raises Unaligned if no token is broken, or if the next one is not
    found within the most characters that the broken ones can stand for."""
    count = next((i for i, token in enumerate(tokens) if not is_broken(token)), len(tokens))
    if count == 0:
        raise Unaligned(f"the server's token {tokens[0]!r} does not stand at {text[at : at + 20]!r}")
    if count == len(tokens):
        return count, len(text)
    least = at + any(tokens[:count])  # tokens that are shown as nothing may be nothing
    most = min(at + sum(map(_most, tokens[:count])), len(text))
    for end in range(least, most + 1):
        if _end(text, end, tokens[count]) is not None:
            return count, end
    raise Unaligned(f"the server's token {tokens[count]!r} is not in {text[at:most]!r}")


def _most(token: str) -> int:
    """Largest number of characters of the text that a broken token (`is_broken`: its string is not its text) can stand
    for: one for each character of its string, or `LONGEST_SPECIAL` for an empty string, as some servers give special
    tokens."""
    return max(1, len(token.partition("bytes:")[0])) if token else LONGEST_SPECIAL


def _bytes(token: str) -> int:
    """Number of bytes of a token that is only part of a character: the number of escapes such as `\\xe2` in its text,
    or 1 for a text without escapes (U+FFFD)."""
    return len(re.findall(r"\\x", token)) or 1
