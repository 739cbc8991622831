"""The loss of block diffusion: its mean is the bound; mask rates are clipped, and stratified over the blocks of a step
(docs/method.md#block-diffusion).

Symbols: R rows of a step, L tokens, W tokens a block, C blocks of a row.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.spaces import InBlocks, Words, random_space, stranger
from torch import Tensor

from repro.core import parts, rng
from repro.models.attention import Mask
from repro.objectives.blocks import BlockElbo, limits, truncated_binomial
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, GlobalBatch
from repro.processes.absorbing import Absorbing
from repro.processes.blocks import BlockAbsorbing, block_subsets
from repro.recipes.scale import by_name

SPACE = random_space(3, 4)


def objective(low: float, high: float, resample: bool = False) -> BlockElbo:
    return BlockElbo(rate=Window(low=low, high=high), resample=resample, group=GlobalBatch())


def batch(ids: Tensor, words: Words, step: int = 0) -> Batch:
    rows = len(ids)
    return Batch(
        ids=ids,
        candidates=torch.ones_like(ids, dtype=torch.bool),
        attention=Mask(),
        index=torch.arange(rows),
        step=step,
        seed=0,
        vocabulary=words.vocabulary(),
        step_examples=torch.arange(rows),
        step_candidates=torch.full((rows,), ids.shape[1]),
    )


@pytest.mark.parametrize("block", [1, 2, 3])
def test_its_mean_over_all_mask_rates_is_the_bound(block, monkeypatch):
    """All masks of a sentence at 40 nodes of t, against all mask counts and subsets of each block."""
    denoiser = InBlocks(SPACE.words, Absorbing(), block, stranger(SPACE, Absorbing()).answer)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    x, loss = torch.tensor([2, 0, 1, 1]), objective(1e-9, 1)
    masks = torch.tensor(list(itertools.product([False, True], repeat=4)))
    node, which = torch.cartesian_prod(torch.arange(40), torch.arange(16)).T
    t, masked = ((nodes + 1) / 2)[node], masks[which]
    chance = torch.where(masked, t[:, None], 1 - t[:, None]).prod(1) * (weights / 2)[node]
    monkeypatch.setattr(
        BlockElbo, "rates", lambda self, batch, blocks: t[batch.index, None].expand(-1, blocks)
    )
    monkeypatch.setattr(BlockElbo, "masked", lambda self, rate, batch, block: masked[batch.index])
    monkeypatch.setattr(GlobalBatch, "weights", lambda self, tokens, index: chance[index])
    found = loss(denoiser, BlockAbsorbing(block=block), batch(x.expand(len(t), -1), SPACE.words)).value

    bound = torch.zeros((), dtype=torch.float64)
    for first in range(0, 4, block):
        size = min(block, 4 - first)
        for hidden in itertools.product([False, True], repeat=size):
            if not any(hidden):
                continue
            noisy, here = x.clone(), torch.zeros(4, dtype=torch.bool)
            here[first : first + size] = torch.tensor(hidden)
            noisy[here] = noisy[first + size :] = 3
            logp = denoiser.answer(noisy[None], torch.zeros(1))[0].log()[torch.arange(4), x]
            count = sum(hidden)
            bound -= logp[here].sum() / (count * math.comb(size, count))
    assert abs(found.item() - bound.item()) < 1e-9 * abs(bound.item()) + 1e-9


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.8), (0.5, 1.0), (1e-3, 0.5), (1e-3, 1.0)])
def test_resampled_counts_are_those_of_rejection(low, high):
    """P(count | share in the range), by a grid of u, for blocks of 1 to 5; blocks without a possible count are free."""
    size = torch.arange(1, 6)
    least, most = limits(size, Window(low=low, high=high))
    u = (torch.arange(4000) + 0.5) / 4000
    t = low + 0.4 * (high - low)
    for n, smallest, largest in zip(size.tolist(), least.tolist(), most.tolist(), strict=True):
        inside = [k for k in range(n + 1) if (low <= 1e-3 or k / n >= low) and k / n <= high]
        assert list(range(smallest, largest + 1)) == (inside or list(range(n + 1)))
        law = np.array([math.comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(smallest, largest + 1)])
        ones = torch.full((len(u),), n)
        found = truncated_binomial(ones, torch.full_like(u, t), ones * 0 + smallest, ones * 0 + largest, u)
        share = torch.bincount(found, minlength=largest + 1)[smallest:] / len(u)
        assert np.abs(share.numpy() - law / law.sum()).max() < 1e-3


def test_masks_follow_their_range():
    """512 rows of 8 blocks: with resampling every share is in [.5, 1], without it some are not; mean rates are those of
    t."""
    words = Words(size=3, length=32)
    given = batch(torch.zeros(512, 32, dtype=torch.int64), words)
    process = BlockAbsorbing(block=4)
    shares = {}
    for resample in (True, False):
        loss = objective(0.5, 1, resample)
        t = loss.rates(given, 8)
        masked = loss.masked(t, given, process.block)
        shares[resample] = masked.unflatten(1, (8, 4)).double().mean(2)
        assert t.min() >= 0.5 and t.max() <= 1
    assert (shares[True] >= 0.5).all() and (shares[False] < 0.5).any()
    assert abs(shares[False].mean() - 0.75) < 0.01 and shares[True].mean() > shares[False].mean()


def test_mask_rates_are_stratified_over_all_blocks_of_a_step():
    """Each of the R C strata of the range once, however the step is split; another step has other rates."""
    words = Words(size=3, length=12)
    whole = batch(torch.zeros(16, 12, dtype=torch.int64), words)
    t = objective(0.2, 0.6).rates(whole, 3)
    cell = ((t - 0.2) / 0.4 * 48).floor().long()
    assert torch.equal(cell.flatten().sort().values, torch.arange(48))
    assert not torch.equal(t, objective(0.2, 0.6).rates(batch(whole.ids, words, step=1), 3))


def test_a_row_draws_the_same_masks_in_any_batch():
    words = Words(size=3, length=8)
    whole = batch(torch.zeros(6, 8, dtype=torch.int64), words)
    t = torch.full((6, 2), 0.6, dtype=torch.float64)
    for resample in (True, False):
        loss = objective(0.3, 0.8, resample)
        masked = loss.masked(t, whole, 4)
        some = torch.tensor([4, 1])
        part = Batch(
            **{**vars(whole), "ids": whole.ids[some], "candidates": whole.candidates[some], "index": some}
        )
        assert torch.equal(loss.masked(t[some], part, 4), masked[some]) and masked.any() and not masked.all()
    keys = rng.keys(0, rng.CORRUPT, 0, torch.arange(6))
    count = torch.full((6, 2), 2)
    assert (block_subsets(keys, count, whole.candidates, 4).sum(1) == 4).all()


def test_combinations_that_do_not_fit_are_one_line_errors():
    recipe = by_name("mdlm")
    block = {"part": "block_elbo", "rate": {"part": "window", "low": 0.5, "high": 1.0}, "resample": True}
    block["group"] = {"part": "global_batch"}
    with pytest.raises(
        ValueError, match=r"'block_elbo' does not fit process 'absorbing'; use block_absorbing"
    ):
        parts.derive(recipe, {"objective": block})
    process = {"part": "block_absorbing", "block": 4}
    with pytest.raises(
        ValueError, match=r"'elbo' does not fit process 'block_absorbing'; use one that noises whole"
    ):
        parts.derive(recipe, {"process": process})
    with pytest.raises(ValueError, match=r"noises blocks of 4 tokens, the backbone reads whole rows"):
        parts.derive(recipe, {"process": process, "objective": block})
    for low, high in ((0.0, 1.0), (0.6, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match=rf"from {low} to {high} are no range"):
            objective(low, high)
