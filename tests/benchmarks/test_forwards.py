"""The calls of a network that a decoding makes, made again without the decoding."""

from __future__ import annotations

import pytest

from benchmarks.forwards import forwards_alone
from benchmarks.peer_decoding import Case, _ours
from benchmarks.row import SAME, Timed, against
from repro.models import products
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


def test_the_bound_is_the_peers_time_over_that_of_the_forwards():
    seconds = {"ours": 2.5, "theirs": 6.0, "network": 2.0}
    of = "x if only our forwards took time, with the same products"
    assert Timed(seconds, {}).bound() == f"3.00{of}"
    assert Timed(seconds | {f"theirs{SAME}": 3.0}, {}).bound() == f"1.50{of}"


@pytest.mark.parametrize("faster", [True, False])
def test_the_code_of_others_runs_with_torchs_own_products(monkeypatch, faster):
    """Where oneDNN is faster, a peer's side is timed twice, and the ratio is that with torch's own products."""
    monkeypatch.setattr("benchmarks.row.onednn_is_faster", lambda: faster)
    monkeypatch.setattr("repro.models.products.onednn_is_faster", lambda: faster)
    seen = []
    side = lambda name: lambda: seen.append((name, products.onednn_is_faster()))  # noqa: E731
    found = against({"ours": side("ours"), "theirs": side("theirs")}, 1)
    text = found.row("name", 1.0, "equal").agreement
    if not faster:
        assert set(seen) == {("ours", False), ("theirs", False)} and text == "equal"
        return
    assert set(seen) == {("ours", True), ("theirs", False), ("theirs", True)}
    assert text.endswith("x with oneDNN's products on both sides")
