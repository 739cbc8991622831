"""Chats with any tokenizer: every answer of a chat, with all turns before it, is a row.

    Chats(documents=Messages(source="chats.jsonl", ...), units=Alphabet(...), length=256, template=...)

A row consists of the turns before the answer, each written in the template; the template up to the text of the answer;
the answer; and the boundary id E (end of text) in all positions that are left. Answer and E are candidates (corrupted
and scored), so the model learns where an answer ends, as in LLaDA, whose rows are filled with a scored end-of-text
token (arXiv 2502.09992, appendix B.1; docs/method.md#llada-sft). LLaDA draws one answer of a chat; here a chat with n
answers gives n rows. Chats in the form of a paper or a script are in `chat.py` and `dialogues.py`. Symbols: L ids per
row.
"""

from __future__ import annotations

import itertools
import string
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from repro.core.errors import naming
from repro.core.parts import part
from repro.data.corpus import Rows, Vocabulary
from repro.data.documents import Message, Messages, Split
from repro.data.packed import with_boundary
from repro.data.rows import CHUNK
from repro.data.text import Ids, Written


@part
class Chats(Written):
    """Rows of L = `length` ids, one per answer (message of role "assistant" after the first message).

    `documents`: the chats; `units`: the tokenizer; `template`: text of a message, with {role} and then {content}. An
    answer is left out if it is empty, or if all turns before it, the answer and one end-of-text id do not fit into a
    row. The row of the k-th answer of chat `number` has the name (`Rows.example`) `number << 32 | k`. `build` raises
    ValueError for a chat without an answer.
    """

    documents: Messages
    template: str

    def __post_init__(self) -> None:
        fields = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        if fields != ["role", "content"]:
            raise ValueError(f"template={self.template!r} is not of the form '...{{role}}...{{content}}...'")

    def vocabulary(self) -> Vocabulary:
        return with_boundary(self.units.special(), self.units.vocab_size(self.documents))

    def prompt(self, text: str) -> list[int]:
        """Token ids of the user's question `text`, written as in a training row up to the answer; ValueError where no
        position is left for an answer."""
        ids = self.encode(self.before([{"role": "user", "content": text}]))
        if len(ids) >= self.length:
            raise ValueError(
                f"the prompt takes {len(ids)} ids, so that length={self.length} leaves no answer; shorten the prompt"
            )
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Text of the token ids before the first end-of-text id (`Vocabulary.eos`), which ends an answer."""
        end = self.vocabulary().eos
        return self.decode(list(itertools.takewhile(lambda each: each != end, map(int, ids))))

    def before(self, messages: Sequence[Message]) -> str:
        """Text of `messages` in the template, followed by the beginning of the next message, an answer: the template
        with role "assistant", up to the content."""
        turns = [self.template.format(role=each["role"], content=each["content"]) for each in messages]
        head = self.template[: self.template.index("{content")]
        return "".join(turns) + head.format(role="assistant")

    def chunks(self, split: Split) -> Iterator[Rows]:
        pairs, given, kept = self._pairs(split), 0, 0
        while some := list(itertools.islice(pairs, CHUNK)):
            names, prompts, answers = map(list, zip(*some, strict=True))
            rows = self._rows(names, *[list(self._encoded(names, texts)) for texts in (prompts, answers)])
            given, kept = given + len(names), kept + len(rows)
            yield rows
        if kept < given:
            which = "training" if split == "train" else "held-out"
            print(
                f"{self.documents.origin()}: {given - kept} of {given} {which} answers are empty or do not fit into"
                f" rows of {self.length} ids, and are left out; a larger --length keeps long ones",
                file=sys.stderr,
            )

    def _encoded(self, names: Sequence[int], texts: Sequence[str]) -> Iterator[Ids]:
        """Token ids of each of `texts`. `names`: the row names (`number << 32 | k`) of the texts, from which a message
        about an unknown symbol takes the number of the chat."""
        encoded = self.encode_each(texts)
        for name in names:
            with naming(f"{self.documents.origin()}, row {name >> 32}"):
                ids = next(encoded)
            yield ids

    def _pairs(self, split: Split) -> Iterator[tuple[int, str, str]]:
        """(name of its row, text of all turns before it in the template, its own text) of each answer in a split. The
        name (`Rows.example`) of the k-th answer of chat `number` is `number << 32 | k`."""
        for number, chat in self.documents.chats(split):
            answers = [i for i, message in enumerate(chat) if i and message["role"] == "assistant"]
            if not answers:
                raise ValueError(
                    f"{self.documents.source}: row {number} has no message of role 'assistant' after the first; "
                    "remove the row"
                )
            for k, i in enumerate(answers):
                yield number << 32 | k, self.before(chat[:i]), chat[i]["content"]

    def _rows(self, names: list[int], prompts: list[Ids], answers: list[Ids]) -> Rows:
        """The rows of those answers that are not empty and fit into a row together with their prompt (all turns
        before) and an end-of-text id. `names`: name (`Rows.example`) of each answer's row; `prompts`, `answers`: ids of
        each answer's prompt, and of the answer."""
        fits = [
            i
            for i in range(len(names))
            if len(prompts[i]) + len(answers[i]) < self.length and len(answers[i])
        ]
        end = self.vocabulary().eos
        assert end is not None
        ids = np.full((len(fits), self.length), end, np.int64)
        candidates = np.ones(ids.shape, bool)
        for row, i in enumerate(fits):
            first = len(prompts[i])
            ids[row, :first] = prompts[i]
            ids[row, first : first + len(answers[i])] = answers[i]
            candidates[row, :first] = False
        return Rows(ids, candidates, np.array([names[i] for i in fits], np.int64))
