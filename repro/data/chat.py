"""Chats for fine-tuning: one question and one answer per row, as in the two scripts of tom-pollak/dllm from which this
project started (docs/method.md#masked-script, docs/method.md#uniform-script).

    Chat(source="allenai/tulu-3-sft-mixture-0225", revision=UNRESOLVED, ..., scored="answer")
    Chat(source="evals/data/chats.jsonl", ...)                # about 120 chats of this repository, no download

A row is [CLS] User: QUESTION <newline> [SEP] <newline> Assistant: <newline> ANSWER [SEP] [PAD]*, from the *first two*
messages of a chat: where the first is a system message, the user's message becomes the "answer". Symbols: L ids per
row, N chats in the source, n of them used.
"""

from __future__ import annotations

import math
import string
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repro.core.parts import part
from repro.core.reading import convert
from repro.data import sources
from repro.data.corpus import UNRESOLVED, Data, Rows, Vocabulary, check_heldout
from repro.data.documents import Message
from repro.data.rows import CHUNK
from repro.data.spool import Spool, Spooled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@part
class SourceOfChats(Data):
    """Base class of data sources that read chats from the column `messages` of a dataset.

    `source`: name on the Hub, file or folder of the dataset; `revision`: its commit, the SHA-256 of local files, or
    UNRESOLVED (any); `split`: split expression of `datasets`; `source_rows`: N, the number of chats (checked unless
    `revision` is UNRESOLVED); `tokenizer`, `tokenizer_revision`: Hub name or folder of the tokenizer, and its revision.
    """

    source: str
    revision: str
    split: str
    source_rows: int
    tokenizer: str
    tokenizer_revision: str

    def resolve(self) -> dict[str, str | int]:
        return {
            "revision": sources.revision(self.source, self.revision, "dataset"),
            "tokenizer_revision": sources.revision(self.tokenizer, self.tokenizer_revision, "model"),
            "source_rows": len(sources.dataset(self.source, None, self.revision, self.split)),
        }

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer().backend_tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def _source(self) -> Any:
        """The dataset. Raises ConnectionError, with a one-line message, where the Hub cannot be reached, and ValueError
        if the dataset has not `source_rows` rows."""
        source = sources.dataset(self.source, None, self.revision, self.split)
        if self.revision != UNRESOLVED and len(source) != self.source_rows:
            raise ValueError(
                f"{self.source}: expected {self.source_rows} rows, found {len(source)}; correct source_rows or revision"
            )
        return source

    def _chat(self, row: int, messages: Any) -> list[Message]:
        """The `messages` of row number `row`; ValueError, with that number, unless they are a list of messages with a
        role and a content of text."""
        return convert(messages, list[Message], f"{self.source}: row {row}", "correct the row")

    def _heldout_rows(self, fraction: float, rows: int) -> int:
        """Number of rows, of `rows` in permuted order, that are held out: ceil(`fraction` * `rows`). ValueError if none
        is left to train on."""
        heldout = math.ceil(fraction * rows)
        if heldout == rows:
            raise ValueError(
                f"{self.source}: {rows} of its chats can be used, and heldout_fraction={fraction} leaves none to train"
                " on; give more chats, or longer rows"
            )
        return heldout

    @abstractmethod
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer; ValueError if a setting of this data source (vocabulary size, special id) contradicts it."""


@part
class Chat(SourceOfChats):
    """Chat rows of L = `max_length` ids. Vocabulary size (`size`; `total` with special ids) and special ids are
    settings, so that cost plans need no tokenizer. `template`: text of a row, with {user}, {sep} and {assistant}.

    `scored`: "answer": candidates (positions that are corrupted and scored) are those after the first SEP that are
    neither PAD nor SEP, so also those of "<newline>Assistant:<newline>", but not the closing SEP; rows without
    candidates, whose answer was cut off, are dropped. "all": candidates are all positions that are not PAD.
    `heldout_fraction` f: of the n rows used, the first ceil(f n) of numpy's default_rng(`split_seed`).permutation(n)
    are held out, as by `Dataset.train_test_split`. A row's name (`Rows.example`) is its number in the source.

    A literal "[SEP]" in a question becomes the SEP id, here and in `prompt`, so that the answer starts within the
    question, as in tom-pollak/dllm.
    """

    template: str
    max_length: int
    scored: Literal["answer", "all"]
    heldout_fraction: float
    split_seed: int
    size: int
    total: int
    mask: int
    pad: int
    cls: int
    sep: int

    def __post_init__(self) -> None:
        check_heldout(self.heldout_fraction)
        fields = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        if fields != ["user", "sep", "assistant"] or not self.template.endswith("{assistant}"):
            raise ValueError(
                f"template={self.template!r} is not of the form '...{{user}}...{{sep}}...{{assistant}}'"
            )

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            size=self.size, total=self.total, mask=self.mask, bos=self.cls, eos=self.sep, pad=self.pad
        )

    def row_length(self) -> int:
        return self.max_length

    def expected_rows(self) -> int:
        """Number of training rows if every chat of the source gives one."""
        return self.source_rows - self._heldout(self.source_rows)

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return {split: Rows.joined(chunks, self.max_length) for split, chunks in self.splits()}

    def splits(self) -> Iterator[tuple[Literal["train", "heldout"], Iterable[Rows]]]:
        """(name of the split, iterator of `Rows`, each with up to `CHUNK` of the split's rows) for both splits, in an
        order permuted by `split_seed`; ConnectionError, with a one-line message, where the source cannot be reached."""
        source = self._source()
        with Spool(np.min_scalar_type(self.total)) as spool:
            fit = [np.empty(0, bool)]
            for ids in self._ids(source):
                fit.append(self._candidates(ids).any(1))
                for row in ids:
                    spool.append(row)
            used = np.flatnonzero(np.concatenate(fit))
            if len(used) == 0:
                raise ValueError(
                    f"{self.source}: no answer begins within max_length={self.max_length}; increase max_length"
                )
            every = spool.read()
            order = used[np.random.default_rng(self.split_seed).permutation(len(used))]
            first = self._heldout_rows(self.heldout_fraction, len(used))
            yield "train", self._rows(every, order[first:])
            yield "heldout", self._rows(every, order[:first])

    def _rows(self, every: Spooled, order: np.ndarray) -> Iterator[Rows]:
        """The rows of the chats whose numbers in the source are `order` [n], as `Rows` of up to `CHUNK` rows each;
        `every` holds the ids [L] of all chats of the source."""
        for chosen in np.split(order, range(CHUNK, len(order), CHUNK)):
            ids = np.stack([every[i] for i in chosen])
            yield Rows(ids, self._candidates(ids), chosen)

    def encode(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, stop) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
            if token == tokenizer.unk_token_id:
                raise ValueError(
                    f"{text[start:stop]!r} has no id in the vocabulary of {self.tokenizer}; leave it out"
                )
        return encoding["input_ids"]

    def prompt(self, text: str) -> list[int]:
        """Ids of a question as in a training row, up to the answer: [CLS] and the filled template
        (docs/method.md#script-departures, 14).

        ValueError where no position is left for an answer. The README of tom-pollak/dllm uses another prompt format,
        which is in `repro.hub.templates`.
        """
        before, sep = self.template.removesuffix("{assistant}"), self._tokenizer().sep_token
        ids = [self.cls, *self.encode(before.format(user=text, sep=sep))]
        if len(ids) >= self.max_length:
            raise ValueError(
                f"the prompt takes {len(ids)} ids, so max_length={self.max_length} leaves no answer; shorten the prompt"
            )
        return ids

    def _heldout(self, rows: int) -> int:
        return math.ceil(self.heldout_fraction * rows)

    def _ids(self, source: Any) -> Iterator[np.ndarray]:
        """Token ids of the chats in the dataset `source`, truncated and padded to L, in blocks [<= 1000, L]; ValueError
        names a row with fewer than two messages."""
        tokenizer, start = self._tokenizer(), 0
        for block in source.select_columns("messages").iter(batch_size=1000):
            texts = []
            for row, messages in enumerate(block["messages"], start):
                chat = self._chat(row, messages)
                if len(chat) < 2:
                    raise ValueError(
                        f"{self.source}: row {row} has {len(chat)} messages, fewer than 2; remove the row"
                    )
                user, assistant = (message["content"] for message in chat[:2])
                texts.append(self.template.format(user=user, sep=tokenizer.sep_token, assistant=assistant))
            start += len(texts)
            encoded = tokenizer(texts, truncation=True, padding="max_length", max_length=self.max_length)
            yield np.array(encoded["input_ids"], np.min_scalar_type(self.total))

    def _candidates(self, ids: np.ndarray) -> np.ndarray:
        """The candidates (positions that noise may corrupt and the loss scores), bool [N, L], of rows of ids [N, L]. If
        the setting `scored` is "all": all positions but padding; if it is "answer": all positions after the first SEP
        but padding and further SEPs."""
        written = ids != self.pad
        if self.scored == "all":
            return written
        is_sep = ids == self.sep
        after_first = (np.cumsum(is_sep, axis=1, dtype=np.int32) > 0) & ~is_sep
        return written & after_first

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the source; ValueError names a setting (`mask`, `pad`, `cls`, `sep`, `total`) that
        contradicts it."""
        tokenizer = sources.tokenizer(self.tokenizer, self.tokenizer_revision)
        for pin in ("mask", "pad", "cls", "sep"):
            pinned, found = getattr(self, pin), getattr(tokenizer, f"{pin}_token_id")
            if pinned != found:
                raise ValueError(f"{pin}={pinned}, but {self.tokenizer} has {found}; set {pin}={found}")
        if len(tokenizer) > self.total:
            raise ValueError(
                f"total={self.total}, but {self.tokenizer} has {len(tokenizer)} ids; set total to that number or more"
            )
        return tokenizer
