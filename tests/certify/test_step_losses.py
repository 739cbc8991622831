"""The exact KL of single steps: against sums written out, and against the path KL that it adds up to."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from repro.certify.reference import ancestral, step_losses, written_loss
from repro.certify.space import code, tiny, words
from scripts.items import law_file


def test_a_step_that_writes_one_position_loses_what_the_denoiser_is_wrong_by():
    """KL of the true conditional from the denoiser's probabilities: 0 for the exact ones."""
    source = tiny(3)
    before = torch.tensor([1, -1, 2])
    fits = (source.sentences[:, 0] == 1) & (source.sentences[:, 2] == 2)
    exact = torch.stack([source.law[fits & (source.sentences[:, 1] == v)].sum() for v in range(3)])
    exact = exact / exact.sum()
    for probs in (exact, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)):
        by_hand = (exact * (exact / probs).log()).sum().item()
        found = written_loss(source.sentences, source.law, before, torch.tensor([1]), probs[None])
        assert found == pytest.approx(by_hand, abs=1e-12)


def test_positions_written_together_lose_their_dependence():
    source, nothing = tiny(3), torch.full((3,), -1)
    law = {tuple(x): p for x, p in zip(source.sentences.tolist(), source.law.tolist(), strict=True)}
    marginal = [[sum(p for x, p in law.items() if x[place] == v) for v in range(3)] for place in range(3)]
    by_hand = sum(
        p * (math.log(p) - sum(math.log(marginal[place][x[place]]) for place in range(3)))
        for x, p in law.items()
    )
    probs = torch.tensor(marginal, dtype=torch.float64)
    found = written_loss(source.sentences, source.law, nothing, torch.arange(3), probs)
    assert found == pytest.approx(by_hand) == pytest.approx(ancestral(source, "absorbing", 1).path_kl)


def test_a_text_that_the_law_excludes_has_no_loss():
    texts, even = torch.tensor([[0, 1], [1, 0]]), torch.full((2,), 0.5, dtype=torch.float64)
    flat = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert written_loss(texts, even, torch.tensor([0, -1]), torch.tensor([1]), flat) == pytest.approx(
        math.log(2)
    )
    texts = torch.tensor([[0, 1]])
    assert written_loss(texts, even[:1], torch.tensor([1, -1]), torch.tensor([1]), flat) is None


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_losses_of_steps_are_kl_by_bayes_rule_and_add_up_to_the_path_kl(noise):
    source, steps = tiny(2), 3
    symbols = 3 + (noise == "absorbing")
    states = words(symbols, 2).tolist()

    def kept(x, z, t):
        """q(z | x) at time t."""
        chance = 1.0
        for clean, seen in zip(x, z, strict=True):
            fresh = (seen == 3) if noise == "absorbing" else 1 / 3
            chance *= (1 - t) * (clean == seen) + t * fresh
        return chance

    def forward(later, sooner, t, s):
        """q(state at t | state at s)."""
        chance = 1.0
        for a, b in zip(later, sooner, strict=True):
            fresh = (a == 3) if noise == "absorbing" else 1 / 3
            ratio = (1 - t) / (1 - s) if s < 1 else 0.0
            chance *= ratio * (a == b) + (1 - ratio) * fresh
        return chance

    law = list(zip(source.sentences.tolist(), source.law.tolist(), strict=True))
    total = 0.0
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        losses = step_losses(source, noise, t, s)
        for z in states:
            here = sum(p * kept(x, z, t) for x, p in law)
            if here < 1e-12:
                continue
            joint = {
                tuple(y): sum(p * kept(x, y, s) for x, p in law) * forward(z, y, t, s) / here for y in states
            }
            each = [[sum(q for y, q in joint.items() if y[at] == v) for v in range(symbols)] for at in (0, 1)]
            kl = sum(q * math.log(q / (each[0][y[0]] * each[1][y[1]])) for y, q in joint.items() if q > 0)
            assert losses[code(torch.tensor([z]), symbols)].item() == pytest.approx(kl, abs=1e-9)
            total += here * kl
    assert total == pytest.approx(ancestral(source, noise, steps).path_kl)


def test_the_recorded_losses_of_a_random_order_are_those_of_its_positions():
    """One position a step loses nothing under the exact denoiser; three at once always the same."""
    single = [
        step["kl"]
        for item in law_file("random:temperature=1.0", "absorbing", 3)["items"]
        for step in item["steps"]
    ]
    at_once = [item["steps"][0]["kl"] for item in law_file("random:temperature=1.0", "absorbing", 1)["items"]]
    assert single == [0.0] * 12
    assert set(at_once) == {float(f"{ancestral(tiny(3), 'absorbing', 1).path_kl:.4g}")}
    revising = law_file("forward_backward", "absorbing", 6)["items"]
    assert all(
        step["kl"] is None for step in itertools.chain.from_iterable(item["steps"] for item in revising)
    )
