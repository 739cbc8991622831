"""Perplexity of a model on a corpus: its documents are cut into rows, which are scored exactly or by a bound.

    python -m repro.evals --ckpt DIR --tasks owt.wrapped            a published protocol (evals/corpora.toml)
    python -m repro.evals --ckpt DIR --corpus book.txt              any text

Diffusion models get the upper bounds `nll_bound` in nats per counted token, `ppl_bound`, `bits_per_byte_bound` and
`bits_per_word_bound` (docs/method.md#metrics). Autoregressive models get exact values, from one pass, under the same
names without `_bound`. Bytes and words are those of the published documents, before detokenisation; a partly scored
document contributes its bytes and words in proportion to the ids scored. Standard errors treat documents as
independent, which also covers the Monte Carlo noise of the bound. `draws_error` (nats per token) is this noise alone,
from the spread of independently randomised passes, and is a lower limit of every standard error
(docs/method.md#statistics). The metrics `documents`, `documents_without_ids`, `documents_unscored` and `ids_scored`
describe the whole corpus, even if a limit scores only some of its rows. Symbols: n rows, L ids per row.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from repro.core import parts, rng
from repro.core.errors import naming
from repro.core.parts import part
from repro.core.stats import perplexity
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.counted import Counted
from repro.data.documents import Documents
from repro.data.packed import Joined, Padded
from repro.data.rows import Stream
from repro.evals.perplexity.catalogue import expected_rows
from repro.evals.perplexity.packings import Packing, SpecialIds
from repro.evals.perplexity.perplexity import ESTIMATORS, SUFFIXES, no_terms, shared_bound
from repro.evals.perplexity.tokenizers import OWN, check_ids, mismatch, special_ids
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload
from repro.model import Model

if TYPE_CHECKING:
    from repro.objectives.bound import Bound, Form

MAX_LOGITS = 1 << 27
"""Largest number of logits of one forward: two rows of 1,024 ids at a vocabulary of 50,258. No result depends on it."""
Counts = Literal["row", "text"]


@part
class Perplexity(Task):
    """Perplexity on the corpus named `corpus`, whose `documents` are cut into rows of `length` ids by `packing`.

    `passes`: independent Monte Carlo passes of the bound, at least 4. `tokenizer`: name of the tokenizer whose tokens
    are counted, "own" for the model's. `counts`: which tokens the nats are divided by. "text": the tokens of the text,
    and the EOS after a document where its position in the row varies. "row", as published: also the BOS and EOS at the
    ends of every row, which are scored like other tokens; for a model whose training rows always have them there, so
    that it never learned to predict them, their loss is zero. ValueError for fewer than 4 passes, a length without
    space for text, and an unknown tokenizer.
    """

    corpus: str
    documents: Documents
    packing: Packing
    length: int
    passes: int
    tokenizer: str
    counts: Counts
    generates = False
    form: ClassVar[Literal["full", "truncated"]] = "full"

    def __post_init__(self) -> None:
        if self.passes < 4:
            raise ValueError(
                f"passes={self.passes} is too few to estimate the Monte Carlo error; give at least 4"
            )
        if self.packing.text_ids(self.length) < 1:
            raise ValueError(f"length={self.length} leaves no room for text in a row; give at least 3")
        special_ids(self.tokenizer, None)

    def protocol(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus,
            "length": self.length,
            **self.packing.protocol(),
            "counted": {"row": "every position of a row", "text": "text alone"}[self.counts],
            "tokenizer": self.tokenizer,
            "estimator": ESTIMATORS[self.form],
            "precision": "float32",
            "unit": "nats a token counted",
        }

    def skip(self, model: Model) -> str | None:
        vocabulary = model.data.vocabulary()
        if self.length > model.data.row_length():
            return f"its rows have {self.length} ids; this model reads at most {model.data.row_length()}"
        special = special_ids(self.tokenizer, vocabulary)
        if model.recipe.process.causal and special.begin is None:
            return "the vocabulary has no BOS, from which an autoregressive model predicts the first token"
        return mismatch(self.tokenizer, vocabulary) or self.packing.missing(special)

    def workload(self, model: Model, ask: Ask) -> Workload:
        one = Workload.of_bound(1, self.passes, self.length, model)
        rows = expected_rows(self.corpus, self.packing, self.length)
        assumed = ("sizes of corpora as guessed in evals/corpora.toml",)
        return dataclasses.replace(one, items=rows, assumed=assumed).limited(ask.limit)

    def resolved(self) -> Task:
        pins = {f"documents.{pin}": value for pin, value in self.documents.resolve().items()}
        return parts.derive(self, pins)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        from repro.objectives.bound import ratio_error

        packed = pack_corpus(self, model, ask.limit)
        bound, count = packed.score(model, self.passes, ask.seed, work, self.form), len(packed.rows)
        suffix = "" if model.recipe.process.exact else SUFFIXES[self.form]
        drawn, bits = bound.drawn_error, bound.nll / math.log(2)
        metrics: dict[str, tuple[float, float | None, int]] = {}

        def measure(name: str, nats: np.ndarray, units: np.ndarray) -> tuple[float, float]:
            value = float(nats.sum() / units.sum())
            error = ratio_error(nats, units, bound.cluster)
            if drawn is not None and error < drawn * value / bound.value:
                error = drawn * value / bound.value
            metrics[f"{name}{suffix}"] = (value, error, count)
            return value, error

        value, error = measure("nll", bound.nll, bound.tokens)
        metrics[f"ppl{suffix}"] = (perplexity(value), perplexity(value) * error, count)
        for name, units in zip(("bits_per_byte", "bits_per_word"), packed.weights, strict=True):
            if units.any():
                measure(name, bits, units)
        if drawn is not None:
            metrics["draws_error"] = (drawn, None, self.passes)
        return Answer(metrics | {name: (value, None, count) for name, value in packed.documents.items()})


@part
class TruncatedPerplexity(Perplexity):
    """Perplexity without the terms of the bound for t = 1 (prior) and for times below the smallest integrated one
    (tail), as MDLM and Duo publish it (docs/method.md#mdlm). It is not a bound. The fields are those of
    `Perplexity`."""

    form = "truncated"

    def skip(self, model: Model) -> str | None:
        return no_terms(model) or super().skip(model)


@dataclass(frozen=True)
class PackedCorpus:
    """A corpus cut into n `rows` for one model, which reads them with `vocabulary`.

    `free` [n]: number of positions per row that are counted with zero loss (BOS and EOS that the model reads but does
    not predict); `weights` [2, n]: numbers of bytes and of words of the text that each row scores; `documents`:
    metrics, name -> value, of how many documents and ids of the whole corpus were scored.
    """

    rows: Rows
    vocabulary: Vocabulary
    free: np.ndarray
    weights: np.ndarray
    documents: dict[str, float]

    def score(self, model: Model, passes: int, seed: int, work: WorkQueue, form: Form) -> Bound:
        """Bound (or exact value) of every row in nats, from `passes` Monte Carlo passes with the random seed `seed`.
        The numbers of tokens in the result include the positions with zero loss (`free`); `form`: "full", or
        "truncated" without prior and tail terms. Raises Busy while other processes compute chunks of the work that are
        still missing."""
        batch = work.batch or max(1, min(256, MAX_LOGITS // (self.rows.ids.shape[1] * self.vocabulary.total)))
        bound = shared_bound(
            model, self.vocabulary, self.rows, work, passes=passes, seed=seed, batch=batch, form=form
        )
        return dataclasses.replace(bound, tokens=bound.tokens + self.free)


def pack_corpus(task: Perplexity, model: Model, limit: int | None) -> PackedCorpus:
    """The corpus of a task cut into rows for a model: all rows (`limit` None), or `limit` of them, drawn at random with
    a fixed key.

    ValueError if the corpus gives no rows, or if the model's tokenizer is not the task's.
    """
    vocabulary = model.data.vocabulary()
    check_ids(task.tokenizer, model.data)
    special = special_ids(task.tokenizer, vocabulary)
    reader = _Reader(task.documents, model)
    dtype = np.min_scalar_type(vocabulary.total)
    chunks = [
        Rows(chunk.ids.astype(dtype), chunk.candidates, chunk.example)
        for chunk in task.packing.rows(reader.stream(), task.length, special)
    ]
    rows = Rows.joined(chunks, task.length)
    _check_any(task, len(rows), reader)
    weights, documents = reader.weights(task.packing, task.length, rows)
    chosen = np.arange(len(rows))
    if limit is not None and limit < len(rows):
        order = rng.permutation(0, rng.CORPUS, 0, len(rows)).numpy()
        chosen = np.sort(order[:limit])
    rows = Rows(rows.ids[chosen], rows.candidates[chosen], rows.example[chosen] >> 32)
    rows, free = _counted(task, model, rows)
    return PackedCorpus(rows, _row_vocabulary(task, vocabulary, special), free, weights[:, chosen], documents)


class _Reader:
    """Reader of a corpus: passes once through its `documents`, encodes each as token ids of `model`, and keeps the
    documents' sizes in memory but not their text."""

    def __init__(self, documents: Documents, model: Model) -> None:
        self.documents, self.model = documents, model
        self.numbers: list[int] = []
        self.sizes: list[tuple[int, int, int]] = []
        """Numbers of bytes, words and ids of each document."""

    def stream(self) -> Stream:
        numbers, originals, texts = self._texts()
        encoded = self.model.data.encode_each(texts)
        for number, original in zip(numbers, originals, strict=True):
            with naming(f"{self.documents.origin()}, document {number}"):
                ids = next(encoded)
            self.numbers.append(number)
            self.sizes.append((len(original.encode("utf-8")), len(original.split()), len(ids)))
            yield number, ids

    def _texts(self) -> tuple[Iterator[int], Iterator[str], Iterator[str]]:
        pairs = zip(self.documents.originals("heldout"), self.documents.texts("heldout"), strict=True)
        one, two, three = itertools.tee(pairs, 3)
        return (o[0] for o, _ in one), (o[1] for o, _ in two), (t[1] for _, t in three)

    def weights(self, packing: Packing, length: int, rows: Rows) -> tuple[np.ndarray, dict[str, float]]:
        """(numbers of bytes and of words of text that each of the n `rows` scores, [2, n]; metrics of the corpus, name
        -> value: numbers of documents, of those without ids, of those that no row scores, and share of ids scored).

        `rows` are those that `packing` cut, `length` ids each. To find the document that each position belongs to, the
        corpus is packed again, with each token id replaced by its index in the corpus.
        """
        sizes = np.array(self.sizes, np.int64).reshape(-1, 3)
        first = np.concatenate([[0], np.cumsum(sizes[:, 2])])
        share = sizes[:, :2] / np.maximum(sizes[:, 2:], 1)
        stream = ((n, np.arange(first[i], first[i + 1])) for i, n in enumerate(self.numbers))
        scored = np.zeros(len(sizes), np.int64)
        weights = []
        for chunk in packing.rows(stream, length, SpecialIds(-1, -1, -1)):
            text = chunk.candidates & (chunk.ids >= 0)
            owner = np.searchsorted(first, chunk.ids[text], "right") - 1
            row = np.repeat(np.arange(len(chunk)), text.sum(1))
            weights.append([np.bincount(row, share[owner, i], minlength=len(chunk)) for i in (0, 1)])
            scored += np.bincount(owner, minlength=len(sizes))
        joined = np.concatenate([np.empty((2, 0)), *map(np.array, weights)], 1)
        assert joined.shape[1] == len(rows)
        ids = sizes[:, 2]
        return joined, {
            "documents": float(len(sizes)),
            "documents_without_ids": float((ids == 0).sum()),
            "documents_unscored": float(((ids > 0) & (scored == 0)).sum()),
            "ids_scored": float(scored.sum() / max(1, ids.sum())),
        }


def _check_any(task: Perplexity, rows: int, reader: _Reader) -> None:
    if rows:
        return
    name = task.documents.origin()
    ids = sum(size[2] for size in reader.sizes)
    if not reader.sizes:
        raise ValueError(f"corpus {name} is empty: it holds no document; give a corpus with text")
    if not ids:
        raise ValueError(
            f"corpus {name} is empty: its {len(reader.sizes)} documents contain no tokens;"
            " give a corpus with text"
        )
    longest = max(size[2] for size in reader.sizes)
    raise ValueError(
        f"corpus {name} gives no row of {task.packing.text_ids(task.length)} ids of text: {len(reader.sizes)}"
        f" documents of {ids} ids, the longest {longest}; give more text or longer documents"
    )


def _counted(task: Perplexity, model: Model, rows: Rows) -> tuple[Rows, np.ndarray]:
    """(the n rows, with `candidates` changed to the positions that this model scores; number of zero-loss positions per
    row, [n]). Zero-loss positions are BOS and EOS of a row that the protocol of `task` counts, but that the model only
    reads and does not predict. If the process of a left-to-right model adds BOS itself, the rows are returned without
    their first id."""
    constant = task.packing.constant(rows)
    positions = constant
    given = _ends_are_given(model.data)
    causal = model.recipe.process.causal
    free = np.zeros(len(rows), np.int64)
    candidates = rows.candidates
    if task.counts == "row":
        if causal:
            positions = positions & (np.arange(task.length) > 0)  # the first id is read, never predicted
        if given:
            free = positions.sum(1)
        else:
            candidates = candidates | positions
    ids = rows.ids
    if causal and not given and constant[:, 0].all():
        # the process adds its own BOS
        ids, candidates = ids[:, 1:], candidates[:, 1:]
    return Rows(ids, candidates, rows.example), free


def _ends_are_given(data: Data) -> bool:
    """Whether training rows of `data` begin and end with special ids (BOS, EOS) that a model reads but is not trained
    to predict."""
    return _ends_are_given(data.data) if isinstance(data, Counted) else isinstance(data, Joined | Padded)


def _row_vocabulary(task: Perplexity, own: Vocabulary, special: SpecialIds) -> Vocabulary:
    """The vocabulary with which the model reads the rows of `task`: its `own`, with the BOS of `special` (special ids
    of the tokenizer whose tokens are counted), if there is one, and with a padding id only if the rows are padded.

    The padding id is the vocabulary's `filler`, attended to and noised like text, in published protocols and for a
    model that was trained in this way; otherwise it is the vocabulary's `pad`, left out of attention. In rows without
    padding, the model's padding id, often EOS, is a token like any other.
    """
    plain = dataclasses.replace(
        own, bos=own.bos if special.begin is None else special.begin, pad=None, filler=None
    )
    if not task.packing.has_padding:
        return plain
    if task.tokenizer != OWN or own.filler is not None:
        return dataclasses.replace(plain, filler=special.pad)
    return dataclasses.replace(plain, pad=special.pad)
