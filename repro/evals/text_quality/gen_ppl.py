"""Generative perplexity (gen_ppl) of samples under a judge (a causal language model), with the published scoring rules
by name (docs/method.md#metrics).

    gen_ppl(rows, judge, rule("duo"))              samples as token ids of the judge -> (value, standard error, n)
    rule("bd3:length=512,stride=256")              the scoring rule bd3 with two fields changed

gen_ppl = exp(sum of nll / number of scored tokens) over all samples: long samples weigh more, and none is dropped (the
published code drops those beyond a multiple of its batch, docs/method.md#peer-defect-4). The judge reads *windows* of
ids; the rule defines how samples are cut into windows and which tokens are scored. Values under different rules or
judges are not comparable: published values of MDLM's samples range from 40.7 to 104.85 (docs/method.md#published-d). A
low value alone does not mean good text (see `repro.evals.text_quality.samples.repetition`), so entropy is reported
along with it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from repro.core import parts
from repro.core.errors import nearest
from repro.core.parts import Part, part
from repro.core.reading import convert
from repro.core.stats import perplexity
from repro.evals.text_quality.samples import Ids, Metric
from repro.evals.work_queue import SERIAL, WorkQueue, rows_per_chunk


class CausalLM(Protocol):
    """Interface of a judge as far as gen_ppl needs it: a causal language model, with a name and a SHA-256 `digest`,
    that returns log-probabilities of token ids."""

    name: str
    digest: str
    eos: int | None
    """Id of the end-of-text token (EOS); None if the model has none."""

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        """Log-probability in nats of each id given those before it in its window, one array [length] for each of the
        `windows` (sequences of token ids); NaN for the first id if the model reads no BOS. ValueError for a window
        longer than the model's context."""
        ...


@dataclass(frozen=True)
class ScoredWindow:
    """A window of a sample: the token `ids` that the judge reads at once, and `scored` [len(ids)] bool, True at the ids
    whose likelihood counts."""

    ids: list[int]
    scored: np.ndarray


class Rule(Part):
    """Base class of scoring rules of generative perplexity. A subclass says into which windows samples are cut, and
    which of their tokens are scored (`windows`)."""

    @abstractmethod
    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[ScoredWindow]]:
        """The windows of each sample, in the order of the samples; `rows` holds the token ids of each sample, `eos` is
        the judge's EOS id (None: it has none). ValueError if the rule needs EOS and the judge has none."""


def _require_positive(rule: Any, *pins: str) -> None:
    for pin in pins:
        if getattr(rule, pin) < 1:
            raise ValueError(
                f"scoring rule: {pin}={getattr(rule, pin)} is not a positive number; give 1 or more"
            )


def _require_eos(eos: int | None, rule: Rule) -> int:
    if eos is None:
        name = next(name for name, known in RULES.items() if type(known) is type(rule))
        raise ValueError(f"scoring rule {name} needs an EOS id and this judge has none; use rule every_token")
    return eos


@part
class FirstEosChunks(Rule):
    """Scoring rule of Duo, MDLM and ReMDM: samples are cut to `length` ids, padded with EOS to the longest, and split
    into chunks of `chunk` ids; in each chunk every id but the first is scored if it is not EOS or is the chunk's first
    EOS.

    Text after the first EOS counts. In a sample that begins with EOS, as packed rows do, no later EOS is scored; in a
    sample without EOS the first padding id is scored. Source: `s-sahoo/duo@7c9b498 metrics.py:113-210`, the same in
    MDLM and ReMDM, which pad each batch to its longest row; here all samples form one batch.
    """

    length: int
    chunk: int

    def __post_init__(self) -> None:
        _require_positive(self, "length", "chunk")

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[ScoredWindow]]:
        eos = _require_eos(eos, self)
        cut = [list(row[: self.length]) for row in rows]
        width = max(map(len, cut), default=0)
        found = []
        for row in cut:
            padded = row + [eos] * (width - len(row))
            chunks = [padded[i : i + self.chunk] for i in range(0, width, self.chunk)]
            found.append([ScoredWindow(ids, self._scored_ids(ids, eos)) for ids in chunks])
        return found

    def _scored_ids(self, chunk: list[int], eos: int) -> np.ndarray:
        ends = np.asarray(chunk) == eos
        scored = ~ends | (ends.cumsum() == 1)
        scored[0] = False
        return scored


@part
class NoEosWindows(Rule):
    """Scoring rule of BD3-LM: windows of `length` ids start every `stride` ids of a sample; in each the ids that no
    earlier window holds are scored, except EOS and the window's first id. Source: `kuleshov-group/bd3lms@1c3e8f4
    metrics.py:184-220`, without drawing samples of low entropy again (`repro.evals.text_quality.redrawn` does)."""

    length: int
    stride: int

    def __post_init__(self) -> None:
        _require_positive(self, "length", "stride")
        if self.stride > self.length:
            raise ValueError(
                f"stride={self.stride} skips ids between windows of length={self.length}; give at most {self.length}"
            )

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[ScoredWindow]]:
        return [self._slid(list(row), _require_eos(eos, self)) for row in rows]

    def _slid(self, row: list[int], eos: int) -> list[ScoredWindow]:
        found: list[ScoredWindow] = []
        seen = 0
        for start in range(0, len(row), self.stride):
            ids = row[start : start + self.length]
            scored = np.asarray(ids) != eos
            scored[: max(1, seen - start)] = False
            found.append(ScoredWindow(ids, scored))
            seen = start + len(ids)
            if seen == len(row):
                break
        return found


@part
class EveryToken(Rule):
    """Scoring rule that scores every id (chain rule): samples are split into chunks of `length` ids, and the judge
    reads BOS before each chunk, so that the first id of a chunk is scored too. Not a published protocol; only for
    judges that read BOS."""

    length: int

    def __post_init__(self) -> None:
        _require_positive(self, "length")

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[ScoredWindow]]:
        starts = [range(0, len(row), self.length) for row in rows]
        cut = [[list(row[i : i + self.length]) for i in each] for row, each in zip(rows, starts, strict=True)]
        return [[ScoredWindow(ids, np.ones(len(ids), bool)) for ids in chunks] for chunks in cut]


RULES: Mapping[str, Rule] = {
    "duo": FirstEosChunks(length=1024, chunk=1024),
    "mdlm": FirstEosChunks(length=1024, chunk=1024),
    "remdm": FirstEosChunks(length=1024, chunk=1024),
    "bd3": NoEosWindows(length=1024, stride=512),
    "every_token": EveryToken(length=1024),
}
"""Scoring rules of generative perplexity by name, which is that of the paper that uses the rule."""


def rule(name: str) -> Rule:
    """The scoring rule called `name` (a key of `RULES`), also with fields changed: `duo:length=128,chunk=128`.
    ValueError for an unknown rule or field suggests the most similar name."""
    known, _, pins = name.partition(":")
    if known not in RULES:
        raise ValueError(f"no scoring rule {known!r} of gen_ppl; {nearest(known, RULES)}")
    return parts.derive(RULES[known], parts.parse_overrides(pins.split(","))) if pins else RULES[known]


@dataclass(frozen=True)
class SampleScores:
    """Scores of n samples under a judge: `nll` [n], the sum of -log p over each sample's scored tokens in nats, and
    `tokens` [n], the number of these tokens."""

    nll: np.ndarray
    tokens: np.ndarray

    def perplexity(self) -> Metric:
        """(generative perplexity exp(sum of nll / sum of tokens), its standard error or None for one sample, number of
        samples with scored tokens).

        The error is that of a ratio of sums over independent samples (Cochran, Sampling Techniques, section 2.11), by
        the delta method. ValueError if no token is scored.
        """
        total, count = self.tokens.sum(), int((self.tokens > 0).sum())
        if total == 0:
            raise ValueError(
                "no token of the samples is scored; give samples of two tokens or more, which the scoring rule needs"
            )
        rate = self.nll.sum() / total
        value = perplexity(rate)
        if count < 2:
            return value, None, count
        residual = self.nll - rate * self.tokens
        error = math.sqrt(count / (count - 1) * float(residual @ residual)) / total
        return value, float(value * error), count


def score_texts(rows: Sequence[Ids], judge: CausalLM, rule: Rule, work: WorkQueue = SERIAL) -> SampleScores:
    """Scores of samples by `judge` under the scoring rule `rule`; `rows`: the token ids of each sample, in the judge's
    vocabulary; `work`: queue by which processes share the samples. ValueError if the judge has no EOS or BOS that the
    rule needs, or too short a context; Busy while other processes score the remaining samples."""
    by_row = rule.windows(rows, judge.eos)
    longest = max((sum(len(window.ids) for window in windows) for windows in by_row), default=1)

    def score(span: range) -> tuple[list[float], list[float]]:
        found = _score_windows(by_row[span.start : span.stop], judge)
        return found.nll.tolist(), found.tokens.tolist()

    def read(found: Any, span: range) -> tuple[list[float], list[float]]:
        values = convert(found, tuple[list[float], list[float]], "the scores", "compute them again")
        if any(len(each) != len(span) for each in values):
            raise ValueError(
                f"a stored result does not have a likelihood and a number of tokens for each of {len(span)} samples"
            )
        return values

    chunks = work.map_chunks(len(by_row), rows_per_chunk(longest), score, read)
    nll, tokens = (np.array([value for chunk in chunks for value in chunk[i]]) for i in (0, 1))
    return SampleScores(nll, tokens)


def _score_windows(by_row: Sequence[Sequence[ScoredWindow]], judge: CausalLM) -> SampleScores:
    """Negative log-likelihood in nats and number of scored tokens of each sample under a judge, summed over the
    sample's windows; those of sample i are `by_row[i]`. ValueError where the judge has no likelihood of a scored id."""
    logp = iter(judge.logp([window.ids for windows in by_row for window in windows]))
    nll, tokens = np.zeros(len(by_row)), np.zeros(len(by_row))
    for i, windows in enumerate(by_row):
        for window in windows:
            chosen = -next(logp)[window.scored]
            if np.isnan(chosen).any():
                raise ValueError(
                    f"judge {judge.name} reads no BOS, so a window's first token has no likelihood; use rule duo or bd3"
                )
            nll[i] += chosen.sum()
            tokens[i] += len(chosen)
    return SampleScores(nll, tokens)


def gen_ppl(rows: Sequence[Ids], judge: CausalLM, rule: Rule) -> Metric:
    """(generative perplexity, its standard error, number of samples with scored tokens) of the samples `rows`, token
    ids of the judge, under `judge` and the scoring rule `rule`. ValueError if no token is scored."""
    return score_texts(rows, judge, rule).perplexity()
