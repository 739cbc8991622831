"""The calls of a network that a decoding makes, made again without the decoding."""

from __future__ import annotations

import pytest

from benchmarks.forwards import bound, forwards_alone
from benchmarks.peer_decoding import Case, _ours
from benchmarks.row import Timed
from repro.samplers.plan import DualCache

CASE = Case(40, 6, 8, 4, 16, 2, 24, 2)


@pytest.mark.parametrize("cache", [None, DualCache(refresh=None)])
def test_the_same_forwards_are_made_again(cache, monkeypatch):
    """Layers and output layer read the same numbers of tokens, in the same order, on the same columns of a cache."""
    denoiser, prompt = CASE.denoiser(), CASE.prompt_ids()
    seen = []
    kind = type(denoiser)
    encode, head = kind.encode, kind.head

    def noted(self, tokens, **given):
        kept = given.get("kv_cache")
        features = encode(self, tokens, **given)
        seen.append((tuple(tokens.shape), None if kept is None else kept.span, features.sum().item()))
        return features

    monkeypatch.setattr(kind, "encode", noted)
    monkeypatch.setattr(kind, "head", lambda self: seen.append("head") or head(self))
    again = forwards_alone(denoiser, lambda: _ours(denoiser, prompt, CASE, cache))
    first, seen[:] = [call for call in seen if call != "head"], []
    again()
    calls = [call for call in seen if call != "head"]
    assert len(first) == CASE.length and calls == first and seen.count("head") == CASE.length
    assert not {"encode", "logits"} & vars(denoiser).keys()


def test_bound_is_the_peers_time_over_that_of_the_forwards():
    found = Timed({"ours": 2.5, "theirs": 3.0, "network": 2.0}, {})
    assert bound(found) == "with no cost besides our forwards 1.50"
