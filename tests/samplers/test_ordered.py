"""The choice of the surest positions: float64 decides, and is computed only where float32 leaves it open."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repro.processes.absorbing import Absorbing
from repro.samplers.sampler import State

WHERE = torch.tensor(
    [[0, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 1, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]], dtype=torch.bool
)


class Watched(State):
    """A state that notes how many positions had their confidence computed in float64."""

    computed = 0

    def confidence(self, logits, tokens):
        self.computed += len(logits)
        return super().confidence(logits, tokens)


def state(**settings: Any) -> Watched:
    ids, none = torch.zeros(WHERE.shape, dtype=torch.int64), torch.zeros(len(WHERE))
    needed: dict[str, Any] = dict.fromkeys(("prediction", "memory", "_draw", "_forward"))
    fixed = {"ids": ids, "active": WHERE, "undecided": WHERE, "t": none, "s": none, "_pad": none}
    return Watched(**fixed, quota=1, step=0, steps=1, process=Absorbing(), **needed, **settings)


def logits(kind: str) -> torch.Tensor:
    """Logits [14, 300] of three rows of positions, float32."""
    generator = torch.Generator().manual_seed(0)
    found = 3 * torch.randn(int(WHERE.sum()), 300, generator=generator)
    if kind == "close":  # every second position has the logits of the one before it, in another order
        found[1::2] = found[::2, torch.randperm(300, generator=generator)]
    if kind == "equal":
        found[:] = found[0]
    if kind == "sure":  # probabilities that are 1 in float32 and some of them in float64
        found[:, 3] += torch.linspace(20, 60, len(found))
    if kind == "wrong":
        found[4, 2] = torch.nan
    return found


@pytest.mark.parametrize("kind", ["apart", "close", "equal", "sure", "wrong"])
@pytest.mark.parametrize("settings", [{}, {"distrusted": (3, 5)}])
def test_the_surest_positions_are_those_with_the_best_probability_in_float64(kind, settings):
    given, here = logits(kind), state(**settings)
    expected = here.confidence(given, given.argmax(-1)).exp()
    for count in range(WHERE.shape[1] + 1):
        assert torch.equal(here.surest(given, WHERE, count), here.best(expected, WHERE, count)), count


@pytest.mark.parametrize(("kind", "count", "computed"), [("apart", 1, 0), ("equal", 8, 0), ("equal", 1, 14)])
def test_float64_is_computed_where_float32_leaves_a_doubt(kind, count, computed):
    here = state()
    here.surest(logits(kind), WHERE, count)
    assert here.computed == computed


def test_a_few_doubtful_positions_are_decided_alone():
    """Two positions of the first row have probabilities that float32 cannot tell apart; the right one is higher. Of the
    other rows one position each is computed with them."""
    given = logits("apart")
    given[:6] = given[0] / 4
    given[2], given[4] = given[0] * 2, given[0] * 2 * (1 + 2e-7)
    here = state()
    chosen = here.surest(given, WHERE, 1)
    assert here.computed == 4
    assert chosen[0].nonzero()[:, 0].tolist() == [5]


def test_no_position_is_lost_at_the_edge_of_doubt(monkeypatch):
    """Of log-probabilities `DOUBT` apart up to rounding, every row gets as many positions as asked."""
    where = torch.ones(4000, 128, dtype=torch.bool)
    peaks = 0.01 * torch.rand(where.numel(), generator=torch.Generator().manual_seed(0)) - 6.9
    monkeypatch.setattr("repro.samplers.sampler._log_peaks", lambda logits: peaks)
    chosen = state().surest(torch.zeros(where.numel(), 2), where, 8)
    assert (chosen.sum(1) == 8).all()
