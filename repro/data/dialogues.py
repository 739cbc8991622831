"""Dialogues for fine-tuning, as pairs of prompt and answer, in LLaDA's form (docs/method.md#llada-sft; arXiv
2502.09992, appendix B.1).

    [BOS] ROLE(user) QUESTION [eot] ROLE(assistant) ANSWER [EOS] [EOS]*

A dialogue with n answers has n pairs of an answer and all turns before it; one of these pairs is drawn, once for all
epochs. The candidates (positions that are corrupted and scored) are the answer and the first EOS after it. The other
EOS fill the row; the objective `to_longest` makes some of them candidates. A pair that does not fit into a row is
dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repro.core import rng
from repro.core.parts import part
from repro.data import sources
from repro.data.chat import SourceOfChats
from repro.data.corpus import Rows, Vocabulary, check_heldout
from repro.data.documents import Message
from repro.data.rows import CHUNK
from repro.data.spool import Spool, Spooled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@part
class Dialogues(SourceOfChats):
    """Rows of `length` ids from a dataset's column `messages` (role and content of each message).

    Vocabulary `size` and the ids `mask`, `begin` (BOS) and `end` (EOS) are settings, so that cost plans need no
    tokenizer. `head`: text before each message, with its {role}; `tail`: text after each message except the answer;
    both are tokenised together with the message, special tokens included. `seed` determines which pair of a dialogue is
    drawn, and the split: of n rows the first ceil(f n) of a random permutation are held out, f = `heldout_fraction`.
    `build` raises ConnectionError where the source cannot be reached.
    """

    head: str
    tail: str
    length: int
    heldout_fraction: float
    seed: int
    size: int
    mask: int
    begin: int
    end: int

    def __post_init__(self) -> None:
        check_heldout(self.heldout_fraction)
        if "{role}" not in self.head:
            raise ValueError(f"head={self.head!r} has no {{role}}; put it where the role belongs")
        for name in ("mask", "begin", "end"):
            if not 0 <= getattr(self, name) < self.size:
                raise ValueError(f"{name}={getattr(self, name)} is not an id; give 0 to {self.size - 1}")

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            size=self.size, total=self.size, mask=self.mask, bos=self.begin, eos=self.end, pad=None
        )

    def row_length(self) -> int:
        return self.length

    def expected_rows(self) -> int:
        """Number of training rows if every dialogue of the source gives one."""
        return self.source_rows - math.ceil(self.heldout_fraction * self.source_rows)

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return {split: Rows.joined(chunks, self.length) for split, chunks in self.splits()}

    def splits(self) -> Iterator[tuple[Literal["train", "heldout"], Iterable[Rows]]]:
        source = self._source()
        numbers: list[int] = []
        with Spool(np.min_scalar_type(self.size)) as spool:
            for number, *pair in self._pairs(source):
                numbers.append(number)
                for ids in pair:
                    spool.append(np.array(ids, np.int64))
            if not numbers:
                raise ValueError(
                    f"{self.source}: no pair of prompt and answer fits into length={self.length}; increase length"
                )
            pairs, names = spool.read(), np.array(numbers, np.int64)
            order = rng.permutation(self.seed, rng.ORDER, -1, len(names)).numpy()
            first = self._heldout_rows(self.heldout_fraction, len(names))
            yield "train", self._rows(pairs, names, order[first:])
            yield "heldout", self._rows(pairs, names, order[:first])

    def _rows(self, pairs: Spooled, names: np.ndarray, order: np.ndarray) -> Iterator[Rows]:
        """Rows of the pairs (prompt, answer) whose numbers are `order` [n], as `Rows` of up to `CHUNK` rows each. Pair
        i has the prompt ids `pairs`[2 i] and the answer ids `pairs`[2 i + 1], and comes from the dialogue
        `names`[i]."""
        for chosen in np.split(order, range(CHUNK, len(order), CHUNK)):
            ids = np.full((len(chosen), self.length), self.end, pairs.flat.dtype)
            candidates = np.zeros(ids.shape, bool)
            for row, i in enumerate(chosen):
                prompt, answer = pairs[2 * i], pairs[2 * i + 1]
                stop = len(prompt) + len(answer)
                ids[row, : len(prompt)] = prompt
                ids[row, len(prompt) : stop] = answer
                candidates[row, len(prompt) : stop + 1] = True
            yield Rows(ids, candidates, names[chosen])

    def encode(self, text: str) -> list[int]:
        return self._tokenizer()(text, add_special_tokens=False)["input_ids"]

    def prompt(self, text: str) -> list[int]:
        """Token ids of one question as in a training row, up to the answer: BOS, the question, and the setting `head`
        with the role "assistant", which precedes the answer. ValueError where no position is left for an answer."""
        ids = self._before([{"role": "user", "content": text}])
        if len(ids) >= self.length:
            raise ValueError(
                f"the prompt takes {len(ids)} ids, so that length={self.length} leaves no answer; shorten the prompt"
            )
        return ids

    def _before(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of BOS, the messages, and the setting `head` with the role "assistant", which precedes the answer
        that follows them."""
        written = [self.head.format(role=m["role"]) + m["content"] + self.tail for m in messages]
        return [self.begin, *self.encode("".join(written) + self.head.format(role="assistant"))]

    def _pairs(self, source: Any) -> Iterator[tuple[int, list[int], list[int]]]:
        """(number of the dialogue, prompt ids, answer ids without EOS) of each drawn pair of the dataset `source` that
        fits into a row; ValueError names a dialogue without an answer."""
        for row, given in enumerate(source["messages"]):
            messages = self._chat(row, given)
            answers = [i for i, message in enumerate(messages) if i and message["role"] == "assistant"]
            if not answers:
                raise ValueError(
                    f"{self.source}: row {row} has no message of role 'assistant' after the first; remove the row"
                )
            u = rng.uniform(rng.keys(self.seed, rng.LENGTH, -1, row)).item()
            chosen = answers[int(u * len(answers))]
            prompt, answer = self._before(messages[:chosen]), self.encode(messages[chosen]["content"])
            if len(prompt) + len(answer) < self.length:
                yield row, prompt, answer

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = sources.tokenizer(self.tokenizer, self.tokenizer_revision)
        if len(tokenizer) > self.size:
            raise ValueError(
                f"size={self.size}, but {self.tokenizer} has {len(tokenizer)} ids; set size to that number or more"
            )
        return tokenizer
