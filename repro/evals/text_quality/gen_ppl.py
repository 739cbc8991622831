"""Generative perplexity: how likely a judge finds samples, under the published rules by name (docs/method.md#metrics).

    gen_ppl(rows, judge, rule("duo"))                  rows of the judge's ids -> (value, standard error, n)
    rule("bd3:length=512,stride=256")                  a derived rule

gen_ppl = exp(sum of nll / number of scored tokens) over all samples, so long ones weigh more and none is dropped (the
published code drops those beyond a multiple of its batch). A judge reads a *window* of ids; the rule says how samples
become windows and which tokens are scored. Numbers under two rules, or of two judges, are not comparable: MDLM's
samples read 40.7 to 104.85 in print. Low alone says nothing (`repro.evals.text_quality.samples.repetition`): entropy
stands beside.
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
from repro.evals.text_quality.samples import Ids, Metric
from repro.evals.work_queue import ALONE, Work, rows_of


class Reader(Protocol):
    """A causal model as a judge."""

    name: str
    digest: str
    eos: int | None
    """Id of the end of a text, None where it has none."""

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        """log p of each id of a window given those before it, nats, [length] each; NaN for the first id where the judge
        puts no BOS in front. ValueError for a window longer than it reads."""
        ...


@dataclass(frozen=True)
class Window:
    """What the judge reads at once, and which of its ids count: scored [len(ids)] bool."""

    ids: list[int]
    scored: np.ndarray


class Rule(Part):
    """Kind: how samples become windows."""

    @abstractmethod
    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[Window]]:
        """The windows of each sample, in order."""


def _counts(rule: Any, *pins: str) -> None:
    for pin in pins:
        if getattr(rule, pin) < 1:
            raise ValueError(f"{pin}={getattr(rule, pin)} is no count; give 1 or more")


def _needed(eos: int | None, rule: Rule) -> int:
    if eos is None:
        raise ValueError(
            f"rule {type(rule).__name__} speaks of EOS and this judge has none; take rule every_token"
        )
    return eos


@part
class FirstEosChunks(Rule):
    """Rows cut to `length`, padded with EOS to the longest, split in chunks; in each, an id that is not the first is
    scored if it is no EOS or the chunk's first EOS.

    Text after the first EOS counts. A row that begins with EOS, as packed ones do, spends its first EOS there; one that
    has none is charged for its first pad. Source: Duo's metrics.py, the same in MDLM and ReMDM. They pad each batch to
    its longest row, here all samples are one batch.
    """

    length: int
    chunk: int

    def __post_init__(self) -> None:
        _counts(self, "length", "chunk")

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[Window]]:
        eos = _needed(eos, self)
        cut = [list(row[: self.length]) for row in rows]
        width = max(map(len, cut), default=0)
        found = []
        for row in cut:
            padded = row + [eos] * (width - len(row))
            chunks = [padded[i : i + self.chunk] for i in range(0, width, self.chunk)]
            found.append([Window(ids, self._scored(ids, eos)) for ids in chunks])
        return found

    def _scored(self, chunk: list[int], eos: int) -> np.ndarray:
        ends = np.asarray(chunk) == eos
        scored = ~ends | (ends.cumsum() == 1)
        scored[0] = False
        return scored


@part
class NoEosWindows(Rule):
    """A window of `length` ids moves by `stride`; each scores the ids that no earlier one did, EOS and the window's own
    first id left out. Source: BD3-LM's metrics.py, without its cut of samples whose end has low entropy."""

    length: int
    stride: int

    def __post_init__(self) -> None:
        _counts(self, "length", "stride")
        if self.stride > self.length:
            raise ValueError(f"stride={self.stride} skips ids of windows of {self.length}; give at most that")

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[Window]]:
        return [self._slid(list(row), _needed(eos, self)) for row in rows]

    def _slid(self, row: list[int], eos: int) -> list[Window]:
        found: list[Window] = []
        seen = 0
        for start in range(0, len(row), self.stride):
            ids = row[start : start + self.length]
            scored = np.asarray(ids) != eos
            scored[: max(1, seen - start)] = False
            found.append(Window(ids, scored))
            seen = start + len(ids)
            if seen == len(row):
                break
        return found


@part
class EveryToken(Rule):
    """Chunks of `length` ids, every id scored, the first given BOS: the chain rule itself (ours; for judges that put a
    BOS in front, and rows without EOS)."""

    length: int

    def __post_init__(self) -> None:
        _counts(self, "length")

    def windows(self, rows: Sequence[Ids], eos: int | None) -> list[list[Window]]:
        starts = [range(0, len(row), self.length) for row in rows]
        cut = [[list(row[i : i + self.length]) for i in each] for row, each in zip(rows, starts, strict=True)]
        return [[Window(ids, np.ones(len(ids), bool)) for ids in chunks] for chunks in cut]


RULES: Mapping[str, Rule] = {
    "duo": FirstEosChunks(length=1024, chunk=1024),
    "mdlm": FirstEosChunks(length=1024, chunk=1024),
    "remdm": FirstEosChunks(length=1024, chunk=1024),
    "bd3": NoEosWindows(length=1024, stride=512),
    "every_token": EveryToken(length=1024),
}
"""By the paper that scores so."""


def rule(name: str) -> Rule:
    """A rule by name, or derived from one (`duo:length=128,chunk=128`); ValueError names the nearest."""
    known, _, pins = name.partition(":")
    if known not in RULES:
        raise ValueError(f"no rule {known!r}; {nearest(known, RULES)}")
    return parts.derive(RULES[known], parts.parse_overrides(pins.split(","))) if pins else RULES[known]


@dataclass(frozen=True)
class Scored:
    """Sum of -log p of each sample's scored tokens, nats, and how many they are; [n] each."""

    nll: np.ndarray
    tokens: np.ndarray

    def perplexity(self) -> Metric:
        """exp(sum nll / sum tokens), its standard error, n.

        The error is of a ratio of sums over independent samples (Cochran, Sampling Techniques, section 2.11), by the
        delta method. ValueError when no token is scored.
        """
        total, count = self.tokens.sum(), len(self.tokens)
        if total == 0:
            raise ValueError(
                "no token of the samples is scored; the rule wants samples of two tokens or more"
            )
        rate = self.nll.sum() / total
        value = math.exp(rate)
        if count < 2:
            return value, None, count
        residual = self.nll - rate * self.tokens
        error = math.sqrt(count / (count - 1) * float(residual @ residual)) / total
        return value, value * error, count


def judged(rows: Sequence[Ids], judge: Reader, rule: Rule, work: Work = ALONE) -> Scored:
    """Each sample's nll under the judge; rows are the judge's ids. ValueError when rule and judge do not fit, Elsewhere
    while other processes read what is left."""
    by_row = rule.windows(rows, judge.eos)
    longest = max((sum(len(window.ids) for window in windows) for windows in by_row), default=1)

    def read(some: range) -> tuple[list[float], list[float]]:
        found = _summed(by_row[some.start : some.stop], judge)
        return found.nll.tolist(), found.tokens.tolist()

    pieces = work.pieces(len(by_row), rows_of(longest), read)
    nll, tokens = (np.array([value for piece in pieces for value in piece[i]]) for i in (0, 1))
    return Scored(nll, tokens)


def _summed(by_row: Sequence[Sequence[Window]], judge: Reader) -> Scored:
    """What the judge finds in the windows of some samples."""
    logp = judge.logp([window.ids for windows in by_row for window in windows])
    found = iter(logp)
    nll, tokens = np.zeros(len(by_row)), np.zeros(len(by_row))
    for i, windows in enumerate(by_row):
        for window in windows:
            read = next(found)
            chosen = -read[window.scored]
            if np.isnan(chosen).any():
                raise ValueError(
                    f"{judge.name} puts no BOS in front, so a first token has no likelihood; take rule duo or bd3"
                )
            nll[i] += chosen.sum()
            tokens[i] += len(chosen)
    return Scored(nll, tokens)


def gen_ppl(rows: Sequence[Ids], judge: Reader, rule: Rule) -> Metric:
    """Generative perplexity of samples, its standard error, and their number."""
    return judged(rows, judge, rule).perplexity()
