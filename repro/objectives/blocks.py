"""The loss of block diffusion (BD3-LM, arXiv 2503.09573; docs/method.md#block-diffusion): the likelihood bounds of all
blocks of a row, from one forward of a noisy and a clean copy of the row.

    loss = sum over blocks b of (1 / t_b) sum over masked i in b of -log p(x_i | noisy block b, clean blocks before it)

with one mask rate t_b uniform on [low, high] for each block. The closer this range is to all of (0, 1], the closer the
mean of the loss is to the bound; on a narrower range the loss has less variance, but is no bound.

Shapes: R rows of an optimizer step, B of them in a batch, L positions, C blocks of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.processes.absorbing import mask_id, weighted_ce
from repro.processes.blocks import block_subsets, per_block, per_position

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process

UNCLIPPED = 1e-3
"""The lowest mask rate of the authors' code. A range that starts here or below allows any small number of masked
tokens, even 0, as that code does (kuleshov-group/bd3lms@1c3e8f4 diffusion.py:484-488)."""


def limits(size: Tensor, rate: Window) -> tuple[Tensor, Tensor]:
    """Smallest and largest number of masked tokens in a block with `size` candidates (tokens that may be masked), two
    int64 tensors of the shape of `size`: the share of masked candidates must lie in the range `rate`. If that range
    starts at .001 (`UNCLIPPED`) or below, the smallest number is 0. For a block in which no number gives such a share:
    0 and `size`."""
    least = torch.zeros_like(size) if rate.low <= UNCLIPPED else (size * rate.low - 1e-9).ceil().long()
    most = (size * rate.high + 1e-9).floor().long()
    free = least > most
    return least.masked_fill(free, 0), torch.where(free, size, most)


def truncated_binomial(size: Tensor, t: Tensor, least: Tensor, most: Tensor, u: Tensor) -> Tensor:
    """Number of masked tokens in each block, int64: a draw from the binomial distribution of `size` trials with
    probability t, given that it lies in [`least`, `most`], by inversion of its CDF at u in (0, 1). The arguments and
    the output all have the same shape.

    The number has this distribution if masks are drawn anew until the share of masked tokens is in a range, as in the
    authors' code (kuleshov-group/bd3lms@1c3e8f4 diffusion.py:476-500).
    """
    count = torch.arange(int(size.max()) + 1, device=size.device)
    n, k = size[..., None].double(), count.double()
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    chance = (ways + torch.xlogy(k, t[..., None]) + torch.xlogy(n - k, 1 - t[..., None])).exp()
    inside = (count >= least[..., None]) & (count <= most[..., None])
    law = torch.where(inside, chance, 0.0).flatten(0, -2)
    return rng.choose(law, u.flatten()).view(size.shape)


def stratified_rates(rate: Window, batch: Batch, blocks: int) -> Tensor:
    """Mask rates [B, C] of the C = `blocks` blocks of each of the B rows of `batch`, uniform on the range `rate`. They
    are stratified: the range is split into R C equal intervals, one for each block of the optimizer step, with
    neighbouring intervals for the blocks of a row (kuleshov-group/bd3lms@1c3e8f4 diffusion.py:768-789)."""
    number = batch.index[:, None] * blocks + torch.arange(blocks, device=batch.index.device)
    strata = len(batch.step_candidates) * blocks
    return rate.low + (rate.high - rate.low) * rng.low_discrepancy(
        batch.seed, rng.TIME, batch.step, number, strata
    )


def check_rates(rate: Window) -> None:
    """Raise ValueError unless the range `rate` of mask rates has 0 < low <= high <= 1."""
    if not 0 < rate.low <= rate.high <= 1:
        raise ValueError(
            f"mask rates from {rate.low} to {rate.high} are no range in (0, 1]; give 0 < low <= high <= 1"
        )


def block_length(process: Process, batch: Batch) -> int:
    """Tokens per block of `process`, which noises a row block by block. ValueError if the data of `batch` has filler
    (padding read as text), which the losses of block diffusion do not corrupt."""
    block = process.block_length()
    assert block is not None, "a recipe checks that such an objective has a block process"
    if batch.vocabulary.filler is not None:
        raise ValueError(
            "the objectives block_elbo and complementary_ce do not corrupt filler (padding read as text), which data"
            " of padded rows has; use packed rows (data part packed or packed_whole)"
        )
    return block


@part
class BlockElbo(Objective):
    """The loss of block diffusion (formula in the module's docstring) at mask rates uniform on `rate`, stratified over
    all blocks of a step.

    `resample`: whether the mask of a block is redrawn until the share of masked tokens lies in `rate` as well; `group`:
    mean over all scored tokens of the step (`GlobalBatch`), or over those of each group of rows and then over the
    groups (`RowGroup`). ValueError for a `rate` that is no range in (0, 1]."""

    rate: Window
    resample: bool
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"absorbing"})
    score = "no bound"
    in_blocks = True

    def __post_init__(self) -> None:
        check_rates(self.rate)

    def trained(self, vocab_size: int) -> tuple[float, float]:
        return 1 - self.rate.high, 1 - self.rate.low

    def rates(self, batch: Batch, blocks: int) -> Tensor:
        """Mask rates [B, C] of the C = `blocks` blocks of each of the B rows of `batch`."""
        return stratified_rates(self.rate, batch, blocks)

    def masked(self, t: Tensor, batch: Batch, block: int) -> Tensor:
        """Which positions are masked, [B, L] bool, drawn at the mask rates t [B, C] of the blocks; `block`: tokens per
        block."""
        keys = rng.keys(batch.seed, rng.CORRUPT, batch.step, batch.index)
        where, length = batch.candidates, batch.ids.shape[1]
        if not self.resample:
            return where & (rng.uniform(keys, length) < per_position(t, block, length))
        size = per_block(where, block)
        u = rng.uniform(rng.fold(keys, 1), size.shape[1])
        return block_subsets(keys, truncated_binomial(size, t, *limits(size, self.rate), u), where, block)

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.blocks import BlockPrediction

        block = block_length(process, batch)
        length = batch.ids.shape[1]
        t = self.rates(batch, -(-length // block))
        masked = self.masked(t, batch, block)
        noisy = batch.ids.masked_fill(masked, mask_id(batch.vocabulary))
        rate = per_position(t, block, length)
        prediction = BlockPrediction(denoiser, noisy, batch.ids, rate, batch.attention, block)
        weight = self.group.weights(batch.step_candidates, batch.index)[masked.nonzero()[:, 0]]
        value, nll = prediction.weighted_loss(weighted_ce, masked, weight, batch.ids[masked], rate[masked])
        share = masked.sum(1) / batch.candidates.sum(1).clamp_min(1)
        logs = {"t": t.mean(1).sum(), "mask_rate": share.sum()}
        return Loss(value, nll.sum(), int(batch.candidates.sum()), logs)
