"""Perplexity of a corpus: its documents as rows under a stated protocol, scored by a bound or exactly.

    python -m repro.evals --ckpt DIR --tasks owt.wrapped            a published protocol (evals/corpora.toml)
    python -m repro.evals --ckpt DIR --corpus book.txt              any text

Diffusion: `nll_bound` in nats a token counted, `ppl_bound`, `bits_per_byte_bound`, `bits_per_word_bound`; left to
right: the same names without `_bound`, exact, from one pass. Bytes and words are those of the documents as they were
published, before detokenisation; a document that is scored in part counts by its share of ids. Standard errors take
documents as the independent units, which covers the noise of a bound's draws as well; `draws_error` [nats a token] is
that noise alone, by the spread of independently randomised passes, and no standard error is below it. What became of
the documents is told of the whole corpus, whatever the limit on its rows. Symbols: n rows, L ids a row.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repro.core import parts, rng
from repro.core.parts import part
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.counted import Counted
from repro.data.documents import Documents
from repro.data.packed import Joined, Padded
from repro.data.rows import Stream
from repro.evals.perplexity.packings import Ends, Packing
from repro.evals.perplexity.perplexity import shared_bound
from repro.evals.perplexity.tokenizers import OWN, check, ends
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Work
from repro.evals.workload import Workload
from repro.model import Model

if TYPE_CHECKING:
    from repro.objectives.bound import Bound

LOGITS = 1 << 27
"""Logits of a forward at most: rows of 1,024 ids out of 50,258 go two at a time. No number depends on it."""
Counts = Literal["row", "text"]


@part
class Perplexity(Task):
    """Perplexity of `corpus`: all of `documents` in rows of `length` ids by `packing`, `passes` passes of a bound.

    `tokenizer`: the one that the numbers are a token of, "own" for whatever the model has; `counts`: what nats are
    divided by. "text": the text (and its end where that varies). "row", as published: also BOS and EOS that stand in
    every row, scored like the rest; a model that was never trained to predict them, since its own rows give them, has
    them for nothing.
    """

    corpus: str
    documents: Documents
    packing: Packing
    length: int
    passes: int
    tokenizer: str
    counts: Counts
    generates = False

    def __post_init__(self) -> None:
        if self.passes < 4:
            raise ValueError(f"passes={self.passes} gives no error of the draws; the smallest is 4")
        if self.packing.room(self.length) < 1:
            raise ValueError(f"length={self.length} has no room for text; the smallest is 3")
        ends(self.tokenizer, None)

    def protocol(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus,
            "length": self.length,
            **self.packing.protocol(),
            "counted": {"row": "every position of a row", "text": "text alone"}[self.counts],
            "tokenizer": self.tokenizer,
            "estimator": "process bound, stratified",
            "precision": "float32",
            "unit": "nats a token counted",
        }

    def skip(self, model: Model) -> str | None:
        vocabulary = model.data.vocabulary()
        if self.length > model.data.row_length():
            return f"rows of {self.length} ids; this model has {model.data.row_length()}"
        marks = ends(self.tokenizer, vocabulary)
        if model.recipe.process.causal and marks.begin is None:
            return "the vocabulary has no BOS for autoregression to begin with"
        return check(self.tokenizer, vocabulary) or self.packing.need(marks)

    def workload(self, model: Model, ask: Ask) -> Workload:
        from repro.evals.perplexity.catalogue import expected_rows

        passes = 1 if model.recipe.process.exact else self.passes
        one = Workload.of_rows(1, passes, self.length)
        found = expected_rows(self.corpus, self.packing, self.length)
        guess = ("sizes of corpora as guessed in evals/corpora.toml",)
        return dataclasses.replace(one, items=found, assumed=guess).limited(ask.limit)

    def resolved(self) -> Task:
        found = {f"documents.{pin}": value for pin, value in self.documents.resolve().items()}
        return parts.derive(self, found)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        from repro.objectives.bound import ratio_error

        laid = lay_out(self, model, ask.limit)
        bound, count = laid.score(model, self.passes, ask.seed, work), len(laid.rows)
        suffix = "" if model.recipe.process.exact else "_bound"
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
        metrics[f"ppl{suffix}"] = (math.exp(value), math.exp(value) * error, count)
        for name, units in zip(("bits_per_byte", "bits_per_word"), laid.weights, strict=True):
            if units.any():
                measure(name, bits, units)
        if drawn is not None:
            metrics["draws_error"] = (drawn, None, self.passes)
        return Answer(metrics | {name: (value, None, count) for name, value in laid.told.items()})


@dataclass(frozen=True)
class Laid:
    """A corpus as rows for one model. `vocabulary`: as the rows hold it; `forced` [n]: positions counted at no cost;
    `weights` [2, n]: bytes and words of the text that each row scores; `told`: what became of the documents."""

    rows: Rows
    vocabulary: Vocabulary
    forced: np.ndarray
    weights: np.ndarray
    told: dict[str, float]

    def score(self, model: Model, passes: int, seed: int, work: Work) -> Bound:
        """Nats of every row; `tokens` counts the forced positions as well."""
        batch = work.batch or max(1, min(256, LOGITS // (self.rows.ids.shape[1] * self.vocabulary.total)))
        bound = shared_bound(model, self.vocabulary, self.rows, work, passes=passes, seed=seed, batch=batch)
        return dataclasses.replace(bound, tokens=bound.tokens + self.forced)


def lay_out(task: Perplexity, model: Model, limit: int | None) -> Laid:
    """The rows of a task for a model (at most `limit`, drawn from all); ValueError when the corpus gives none."""
    check(task.tokenizer, model.data.vocabulary(), model.data)
    marks = ends(task.tokenizer, model.data.vocabulary())
    read = _Read(task.documents, model)
    kind = np.min_scalar_type(model.data.vocabulary().total)
    found = [
        Rows(r.ids.astype(kind), r.candidates, r.example)
        for r in task.packing.rows(read.stream(), task.length, marks)
    ]
    rows = Rows.joined(found, task.length)
    _check_any(task, len(rows), read)
    weights, used = read.weights(task.packing, task.length, rows)
    chosen = np.arange(len(rows))
    if limit is not None and limit < len(rows):
        order = rng.permutation(0, rng.CORPUS, 0, len(rows)).numpy()
        chosen = np.sort(order[:limit])
    rows = Rows(rows.ids[chosen], rows.candidates[chosen], rows.example[chosen] >> 32)
    rows, forced = _counted(task, model, rows)
    return Laid(rows, _vocabulary(task, model.data.vocabulary(), marks), forced, weights[:, chosen], used)


class _Read:
    """Documents of a corpus as they go by: what they hold is counted, their text is not kept."""

    def __init__(self, documents: Documents, model: Model) -> None:
        self.documents, self.model = documents, model
        self.numbers: list[int] = []
        self.sizes: list[tuple[int, int, int]] = []
        """Bytes, words and ids of each document."""

    def stream(self) -> Stream:
        numbers, originals, texts = self._texts()
        for number, original, ids in zip(numbers, originals, self.model.data.encode_each(texts), strict=True):
            self.numbers.append(number)
            self.sizes.append((len(original.encode("utf-8")), len(original.split()), len(ids)))
            yield number, ids

    def _texts(self) -> tuple[Iterator[int], Iterator[str], Iterator[str]]:
        pairs = zip(self.documents.originals("heldout"), self.documents.texts("heldout"), strict=True)
        one, two, three = itertools.tee(pairs, 3)
        return (o[0] for o, _ in one), (o[1] for o, _ in two), (t[1] for _, t in three)

    def weights(self, packing: Packing, length: int, rows: Rows) -> tuple[np.ndarray, dict[str, float]]:
        """Bytes and words of what each row scores [2, n], and what became of the documents: the same rows are cut
        anew, of the numbers of ids instead of the ids."""
        sizes = np.array(self.sizes, np.int64).reshape(-1, 3)
        first = np.concatenate([[0], np.cumsum(sizes[:, 2])])
        share = sizes[:, :2] / np.maximum(sizes[:, 2:], 1)
        stream = ((n, np.arange(first[i], first[i + 1])) for i, n in enumerate(self.numbers))
        scored = np.zeros(len(sizes), np.int64)
        weights = []
        for chunk in packing.rows(stream, length, Ends(-1, -1, -1)):
            text = chunk.candidates & (chunk.ids >= 0)
            owner = np.searchsorted(first, chunk.ids[text], "right") - 1
            row = np.repeat(np.arange(len(chunk)), text.sum(1))
            weights.append([np.bincount(row, share[owner, i], minlength=len(chunk)) for i in (0, 1)])
            scored += np.bincount(owner, minlength=len(sizes))
        found = np.concatenate([np.empty((2, 0)), *map(np.array, weights)], 1)
        assert found.shape[1] == len(rows)
        ids = sizes[:, 2]
        return found, {
            "documents": float(len(sizes)),
            "documents_without_ids": float((ids == 0).sum()),
            "documents_unscored": float(((ids > 0) & (scored == 0)).sum()),
            "ids_scored": float(scored.sum() / max(1, ids.sum())),
        }


def _check_any(task: Perplexity, rows: int, read: _Read) -> None:
    if rows:
        return
    ids = sum(size[2] for size in read.sizes)
    if not read.sizes:
        raise ValueError(f"corpus {task.corpus!r} is empty: it holds no document")
    if not ids:
        raise ValueError(
            f"corpus {task.corpus!r} is empty: none of its {len(read.sizes)} documents has an id"
        )
    longest = max(size[2] for size in read.sizes)
    raise ValueError(
        f"corpus {task.corpus!r} gives no row of {task.packing.room(task.length)} ids of text: {len(read.sizes)}"
        f" documents of {ids} ids, the longest {longest}; give more text or longer documents"
    )


def _counted(task: Perplexity, model: Model, rows: Rows) -> tuple[Rows, np.ndarray]:
    """Rows as a model reads and scores them, and [n] positions that count at no cost."""
    positions = task.packing.forced(rows)
    given = _given(model.data)
    causal = model.recipe.process.causal
    forced = np.zeros(len(rows), np.int64)
    candidates = rows.candidates
    if task.counts == "row":
        if causal:
            positions = positions & (np.arange(task.length) > 0)  # the first id is read, never predicted
        if given:
            forced = positions.sum(1)
        else:
            candidates = candidates | positions
    ids = rows.ids
    if causal and not given and task.packing.forced(rows)[:, 0].all():
        # the process puts a BOS of its own in front
        ids, candidates = ids[:, 1:], candidates[:, 1:]
    return Rows(ids, candidates, rows.example), forced


def _given(data: Data) -> bool:
    """Whether a model's own rows stand between ends that are read and never predicted."""
    return _given(data.data) if isinstance(data, Counted) else isinstance(data, Joined | Padded)


def _vocabulary(task: Perplexity, own: Vocabulary, marks: Ends) -> Vocabulary:
    """The model's vocabulary for these rows: BOS as they begin, and padding where they are padded.

    Published rows are attended where they are padded, and noised there; so are those of a model that pads like that.
    Where a row is not padded, an id that pads elsewhere (EOS, often) is a token like others.
    """
    plain = dataclasses.replace(
        own, bos=own.bos if marks.begin is None else marks.begin, pad=None, filler=None
    )
    if not task.packing.pads:
        return plain
    if task.tokenizer != OWN or own.filler is not None:
        return dataclasses.replace(plain, filler=marks.pad)
    return dataclasses.replace(plain, pad=marks.pad)
