"""The loss of block diffusion from autoregressive weights: every token of a row is a target once, under a mask or under
its complement (Fast-dLLM v2, wangziyannb/Fast-dLLM@fd27cb3 v2/modeling_ori.py:594-654;
docs/method.md#ar-to-block-diffusion).

    loss = mean over tokens i of -log p(x_i | tokens of its block outside the mask that hides x_i, clean blocks before)

A block's mask has a rate uniform on [low, high]; its complement hides the other tokens. No weight depends on the rate,
so the value is no bound. The two noisy copies of a row and its clean one pass the layers in one forward.

Shapes: R rows of an optimizer step, B of them in a batch, L positions, C blocks of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.objectives.blocks import block_length, check_rates, stratified_rates
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.processes.absorbing import mask_id
from repro.processes.blocks import per_position
from repro.processes.process import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


@part
class ComplementaryCE(Objective):
    """Unweighted cross-entropy of all tokens. A row has two noisy copies (views), and each token is predicted in the
    view that masks it. The first view masks a block at a rate uniform on `rate`, stratified over all blocks of a step;
    the second masks the other tokens.

    `group`: mean over all scored tokens of the step (`GlobalBatch`), or over those of each group of rows and then over
    the groups (`RowGroup`). ValueError for a `rate` that is no range in (0, 1]."""

    rate: Window
    group: Group

    meaning = "leave_one_out"
    processes = frozenset({"absorbing"})
    score = "no bound"
    in_blocks = True

    def __post_init__(self) -> None:
        check_rates(self.rate)

    def views(self, batch: Batch, block: int) -> tuple[Tensor, Tensor]:
        """Masked positions [2, B, L] bool of the two noisy copies (views) of the rows, which share no position and
        cover all candidates, and the mask rates [B, C] of the first view; `block`: tokens per block."""
        length = batch.ids.shape[1]
        t = stratified_rates(self.rate, batch, -(-length // block))
        keys = rng.keys(batch.seed, rng.CORRUPT, batch.step, batch.index)
        first = batch.candidates & (rng.uniform(keys, length) < per_position(t, block, length))
        return torch.stack([first, batch.candidates & ~first]), t

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.blocks import BlockPrediction

        block = block_length(process, batch)
        views, t = self.views(batch, block)
        first = per_position(t, block, batch.ids.shape[1])
        masked, rate = torch.cat([*views], 1), torch.cat([first, 1 - first], 1)
        ids = batch.ids.repeat(1, 2)
        noisy = ids.masked_fill(masked, mask_id(batch.vocabulary))
        prediction = BlockPrediction(denoiser, noisy, batch.ids, rate, batch.attention, block)
        weight = self.group.weights(batch.step_candidates, batch.index)[masked.nonzero()[:, 0]]
        value, nll = prediction.weighted_loss(cross_entropy, masked, weight, ids[masked])
        return Loss(value, nll.sum(), int(batch.candidates.sum()), {"t": t.mean(1).sum()})
