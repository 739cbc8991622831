"""Likelihoods of causal networks: requests of similar lengths share forward passes, padded on the right."""

from __future__ import annotations

import pytest
from helpers import lm_worlds
from helpers.lm_worlds import BOS

from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.likelihood import LikelihoodRequest
from repro.evals.likelihood.orders import NextToken
from repro.processes.left_to_right import LeftToRight


def test_causal_requests_of_similar_lengths_share_forwards(monkeypatch):
    """Padded rows have the values of rows forwarded alone; of six requests five have similar lengths, and two of these
    have one input (all ids but the last)."""
    process = LeftToRight()
    denoiser = lm_worlds.model(process).denoiser
    drawn = [i * i * 7 % 31 for i in range(40)]
    lengths = (16, 3, 14, 17, 15)
    some = [LikelihoodRequest.of((BOS, *drawn[i : i + n - 3]), (1, i)) for i, n in enumerate(lengths)]
    some.append(LikelihoodRequest.of(some[2].prompt, (1, 9)))

    def scored(requests, batch):
        return NextToken().score(BatchedDenoiser(denoiser, process, batch), requests, seed=0)

    alone = [scored([each], 1)[0] for each in some]
    encode, shapes = denoiser.encode, []
    monkeypatch.setattr(
        denoiser, "encode", lambda ids, **k: shapes.append(tuple(ids.shape)) or encode(ids, **k)
    )
    for batch, expected in ((4, [(1, 2), (4, 16)]), (3, [(1, 2), (3, 15), (1, 16)])):
        shapes.clear()
        found = scored(some, batch)
        assert [f.value for f in found] == pytest.approx([f.value for f in alone], abs=1e-4)
        assert [f.greedy for f in found] == [f.greedy for f in alone]
        assert shapes == expected


def test_padding_is_limited():
    """A long row does not share the forward of rows half as long: at most a quarter of the ids is padding."""
    from repro.evals.likelihood.orders import _similar_lengths

    lengths = [10, 20, 11, 40, 12, 13, 21]
    some = [LikelihoodRequest((BOS, *range(n - 1)), (1,), n) for n in lengths]
    groups = [[lengths[i] for i in group] for group in _similar_lengths(some, 64)]
    assert groups == [[10, 11, 12, 13], [20, 21], [40]]
