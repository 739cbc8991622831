"""Generative perplexity against literal implementations of the published rules; entropy, n-grams and naive samples."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from repro.core import rng
from repro.evals.text_quality.gen_ppl import (
    RULES,
    EveryToken,
    FirstEosChunks,
    NoEosWindows,
    gen_ppl,
    rule,
    score_texts,
)
from repro.evals.text_quality.samples import distinct, entropy, mean, repetition, unigram

EOS = 0
SIZE = 5


class Table:
    """A bigram judge: log p(b | a) = table[a, b]; with `bos`, the first id is predicted from it."""

    name, digest = "table", "0" * 64

    def __init__(self, eos=EOS, bos=None, uniform=False):
        draws = rng.uniform(rng.keys(3, rng.NAIVE, 0, torch.arange(SIZE)), SIZE)
        self.table = (torch.zeros_like(draws) if uniform else 3 * draws).log_softmax(-1).numpy()
        self.eos, self.bos, self.read = eos, bos, []

    def logp(self, windows):
        self.read += [list(w) for w in windows]
        first = [math.nan if self.bos is None else self.table[self.bos, w[0]] for w in windows]
        rest = [[self.table[a, b] for a, b in itertools.pairwise(w)] for w in windows]
        return [np.array([f, *r]) for f, r in zip(first, rest, strict=True)]


def draws(count, longest, seed=0, ends=True):
    law = random.Random(seed)
    return [
        [law.randrange(0 if ends else 1, SIZE) for _ in range(law.randint(2, longest))] for _ in range(count)
    ]


def by_duo(rows, table, length, chunk):
    """Duo's rule, one token at a time; yields (sum of nll, tokens) of each row."""
    width = max(min(len(row), length) for row in rows)
    for row in rows:
        padded = (row + [EOS] * width)[: min(len(row), length)] + [EOS] * (width - min(len(row), length))
        nll = tokens = 0
        for start in range(0, width, chunk):
            ends = 0
            for place in range(start, min(start + chunk, width)):
                end = padded[place] == EOS
                ends += end
                if place > start and (not end or ends == 1):
                    nll -= table[padded[place - 1], padded[place]]
                    tokens += 1
        yield nll, tokens


def by_bd3(rows, table, length, stride):
    """BD3-LM's rule: an id is scored in the first window that holds it, unless it is first there or EOS."""
    for row in rows:
        nll, counted, end = 0, 0, 0
        for start in range(0, len(row), stride):
            for place in range(start, min(start + length, len(row))):
                if place >= end and place > start and row[place] != EOS:
                    nll -= table[row[place - 1], row[place]]
                    counted += 1
            end = min(start + length, len(row))
            if end == len(row):
                break
        yield nll, counted


@pytest.mark.parametrize("length, chunk", [(12, 12), (9, 4), (30, 7), (5, 1)])
def test_first_eos_chunks_are_duos(length, chunk):
    rows, judge = draws(40, 20), Table()
    found = score_texts(rows, judge, FirstEosChunks(length=length, chunk=chunk))
    nll, tokens = zip(*by_duo(rows, judge.table, length, chunk), strict=True)
    assert found.tokens.tolist() == list(tokens) and np.allclose(found.nll, nll, atol=1e-12, rtol=0)
    if chunk > 1:
        assert found.perplexity()[0] == pytest.approx(math.exp(sum(nll) / sum(tokens)), rel=1e-12)


def test_duos_rule_and_eos():
    """Text after the first EOS counts (docs/method.md#peer-defect-4); in a row that begins with EOS no other EOS
    does."""
    at = FirstEosChunks(length=8, chunk=8)
    (((window,),), (late,)) = (at.windows([[1, EOS, 2, EOS, 3]], EOS), at.windows([[EOS, 1, EOS, 2]], EOS)[0])
    assert window.scored.tolist() == [False, True, True, False, True]
    assert late.scored.tolist() == [False, True, False, True]
    (long,), (short,) = at.windows([[1, 2, 3, 4], [1, 2]], EOS)
    assert long.scored.sum() == 3 and short.scored.tolist() == [False, True, True, False]


@pytest.mark.parametrize("length, stride", [(8, 4), (6, 6), (5, 1), (64, 32)])
def test_no_eos_windows_are_bd3s(length, stride):
    rows, judge = draws(40, 20), Table()
    found = score_texts(rows, judge, NoEosWindows(length=length, stride=stride))
    nll, tokens = zip(*by_bd3(rows, judge.table, length, stride), strict=True)
    assert found.tokens.tolist() == list(tokens) and np.allclose(found.nll, nll, atol=1e-12, rtol=0)
    assert max(map(len, judge.read)) <= length


def test_every_token_is_the_chain_rule():
    judge = Table(eos=None, bos=1)
    rows = [list(row) for row in itertools.product(range(SIZE), repeat=3)]
    found = score_texts(rows, judge, EveryToken(length=3))
    assert np.exp(-found.nll).sum() == pytest.approx(1, abs=1e-12) and (found.tokens == 3).all()


@pytest.mark.parametrize("named", [FirstEosChunks(length=9, chunk=4), NoEosWindows(length=8, stride=4)])
def test_gen_ppl_of_a_uniform_judge_is_the_vocabulary_size(named):
    """docs/method.md#oracle-30"""
    value, error, count = gen_ppl(draws(13, 20), Table(uniform=True), named)
    assert value == pytest.approx(SIZE, abs=1e-9) and error == pytest.approx(0, abs=1e-9) and count == 13


def test_no_sample_is_dropped_and_long_ones_weigh_more():
    """The published code drops samples beyond a multiple of its batch of 8 (docs/method.md#peer-defect-4)."""
    rows, judge, at = draws(13, 20, ends=False), Table(), NoEosWindows(length=64, stride=32)
    found = score_texts(rows, judge, at)
    assert len(found.tokens) == 13 and found.tokens.tolist() == [len(row) - 1 for row in rows]
    each = [gen_ppl([row], judge, at)[0] for row in rows]
    weighted = math.exp(
        sum(math.log(p) * (len(r) - 1) for p, r in zip(each, rows, strict=True)) / found.tokens.sum()
    )
    assert (
        found.perplexity()[0] == pytest.approx(weighted, rel=1e-12) != pytest.approx(np.mean(each), rel=1e-3)
    )


def test_the_standard_error_is_that_of_the_bootstrap():
    rows, judge, at = draws(200, 20), Table(), NoEosWindows(length=64, stride=32)
    found = score_texts(rows, judge, at)
    value, error, _ = found.perplexity()
    pick = rng.uniform(rng.keys(0, rng.NAIVE, 1, torch.arange(2000)), 200).mul(200).long().numpy()
    again = np.exp(found.nll[pick].sum(1) / found.tokens[pick].sum(1))
    assert error == pytest.approx(again.std(ddof=1), rel=0.08)
    assert value == pytest.approx(again.mean(), abs=error)
    assert gen_ppl(rows[:1], judge, at)[1] is None


def test_entropy_is_computed_per_sample():
    """All different ids give ln L, a constant sample 0 (docs/method.md#oracle-30); a mean over samples, not over a
    batch."""
    assert entropy(range(64)) == pytest.approx(math.log(64), abs=1e-12)
    assert entropy([7] * 64) == 0.0
    row = draws(1, 40)[0]
    literal = -sum(n / len(row) * math.log(n / len(row)) for n in Counter(row).values())
    assert entropy(row) == pytest.approx(literal, abs=1e-12)
    assert mean([entropy([1, 2]), entropy([3, 3])])[0] == pytest.approx(math.log(2) / 2)
    with pytest.raises(ValueError, match="empty sample"):
        entropy([])


def test_distinct_counts_different_n_grams():
    assert distinct([1, 2, 1, 2, 1], 1) == 2 / 5 and distinct([1, 2, 1, 2, 1], 2) == 2 / 4
    assert distinct(range(9), 3) == 1.0 and distinct([4] * 9, 3) == 1 / 7
    with pytest.raises(ValueError, match="no 6-grams; use n from 1 to 5"):
        distinct([1, 2, 1, 2, 1], 6)


def test_naive_samples():
    assert repetition([1, 2, 3, 4, 5], 2) == [1, 2, 1, 2, 1]
    with pytest.raises(ValueError, match="give 1 to 5"):
        repetition([1, 2, 3, 4, 5], 6)
    rows = np.array([[9, 9, 9, 2], [9, 9, 4, 9]])
    drawn = np.array(unigram(rows, rng.keys(0, rng.NAIVE, 0, torch.arange(5000))))
    assert drawn.shape == (5000, 4) and set(drawn.flatten()) == {9, 2, 4}
    assert (drawn == 9).mean() == pytest.approx(0.75, abs=0.02)
    assert drawn[:, 0].tolist() != drawn[:, 1].tolist()


def test_rules_by_name():
    assert rule("duo") == rule("mdlm") == rule("remdm") == FirstEosChunks(length=1024, chunk=1024)
    assert rule("bd3") == NoEosWindows(length=1024, stride=512)
    assert rule("duo:length=128,chunk=64") == FirstEosChunks(length=128, chunk=64)
    assert len({type(r) for r in RULES.values()}) == 3
    for name, message in {
        "bd4": "nearest is 'bd3'",
        "bd3:strid=3": "nearest is 'stride'",
        "bd3:stride=2048": "skips ids",
        "duo:chunk=0": "chunk=0: expected a number above 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            rule(name)


def test_rules_that_do_not_fit_the_judge_raise():
    with pytest.raises(ValueError, match="has none; use rule every_token"):
        gen_ppl([[1, 2]], Table(eos=None), RULES["duo"])
    with pytest.raises(ValueError, match="reads no BOS"):
        gen_ppl([[1, 2]], Table(), RULES["every_token"])
    with pytest.raises(ValueError, match="no token of the samples is scored"):
        gen_ppl([[1], [2]], Table(), RULES["bd3"])
