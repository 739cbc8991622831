"""Corpora that were published with spaces between all tokens ("said , "), converted back to running text ("said, ").

    Detokenised(documents=Hub(source="dvruette/lm1b", ...), rule="lm1b")

Each rule (of `RULES`, by corpus) is a list of replacements, applied in order. They are those of kuleshov-group/mdlm
dataloader.py (the same in s-sahoo/duo), kept with their errors because published perplexities are of the resulting
text: one of WikiText's inserts the text of its own pattern, "/'[0-9]/". AG News and OpenWebText need no rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from repro.core.parts import part
from repro.data.documents import Documents, Split

Replacements = list[tuple[str, str]]


def _closed(marks: str) -> Replacements:
    """Replacements (regular expression, text) of " X " by "X ", for each character X of `marks`."""
    return [(re.escape(f" {mark} "), f"{mark} ") for mark in marks]


WIKITEXT: Replacements = [
    ("s '", "s'"),
    (r"/' [0-9]/", "/'[0-9]/"),
    *[(f" @{mark}@ ", mark.strip("\\")) for mark in ("-", ",", r"\.")],
    *_closed(":;.!?,"),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"\{\s*([^}]*?)\s*\}", r"{\1}"),
    *[(rf"{quote}\s*([^{quote}]*?)\s*{quote}", rf"{quote}\1{quote}") for quote in "\"'"],
    *[(" ".join("=" * n), "=" * n) for n in (4, 3, 2)],
    (" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
]

PTB: Replacements = [
    (" 's", "'s"),
    ("s ' ", "s' "),
    (" n't", "n't"),
    (r" \n ", "\n"),
    (r"\\/", "/"),
    *[(" N ", " 1 ")] * 10,  # neighbours share a space, so that one pass replaces every second one
    (r"\$ 1", "$1"),
    ("# 1", "#1"),
    ("<unk>", "?"),
]

LM1B: Replacements = [
    ("http : / / ", "http://"),
    ("https : / / ", "https://"),
    (r" '(\w+)", r"'\1"),
    (r" (\w+) \. ", r" \1. "),
    (r" (\w+) \.$", r" \1."),
    *[pair for mark in "?!" for pair in ((re.escape(f" {mark} "), f"{mark} "), (rf" \{mark}$", mark))],
    *_closed(",:;"),
    (" / ", "/"),
    *[(rf"{quote} ([^{quote}]+) {quote}", rf"{quote}\1{quote}") for quote in "\"'"],
    (r"\( ([^\(\)]+) \)", r"(\1)"),
    (r"\[ ([^\[\]]+) \]", r"[\1]"),
    (r"\$ ", "$"),
    ("£ ", "£"),
]

LAMBADA: Replacements = [("[“”]", '"'), (r"\s+\Z", ""), (r"\A\s*", "\n")]

RULES: dict[str, Replacements] = {
    "wikitext": WIKITEXT,
    "ptb": PTB,
    "lm1b": LM1B,
    "lambada": LAMBADA,
    "scientific_papers": WIKITEXT + LM1B,
}
Rule = Literal["wikitext", "ptb", "lm1b", "lambada", "scientific_papers"]


def detokenise(text: str, rule: Rule) -> str:
    """Running text from a text with spaces between all tokens, by the replacements of `rule` (a key of `RULES`)."""
    for pattern, replacement in RULES[rule]:
        text = re.sub(pattern, replacement, text)
    return text


@part
class Detokenised(Documents):
    """The documents of `documents`, each converted to running text by the replacements of `rule`, the name of a corpus
    (a key of `RULES`)."""

    documents: Documents
    rule: Rule

    def texts(self, split: Split) -> Iterator[tuple[int, str]]:
        return ((number, detokenise(text, self.rule)) for number, text in self.documents.texts(split))

    def originals(self, split: Split) -> Iterator[tuple[int, str]]:
        return self.documents.originals(split)

    def resolve(self) -> dict[str, str | int]:
        return {f"documents.{pin}": value for pin, value in self.documents.resolve().items()}
