"""Cross-entropy at masked positions with a truncated mask rate: the loss of the masked reference script,
tom-pollak/dllm@43ea9ff (docs/method.md#masked-script).

The loss has no weight 1/t and draws mask rates in [low, high] only, so it is not a bound, and heavily masked rows weigh
more. The softmax runs over all ids, the mask id included, as in the script.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.processes.absorbing import mask_id, subset
from repro.processes.process import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


class Masks(Part):
    """Base class of the ways to draw an example's masked positions: once for the whole run (`Static`), or anew at every
    step (`Fresh`). Subclasses give the random keys of these draws, `keys`."""

    @abstractmethod
    def keys(self, purpose: int, batch: Batch) -> Tensor:
        """Random keys of all R rows of a step, [R]; `purpose`: what is drawn, a constant of `repro.core.rng`."""


@part
class Static(Masks):
    """Masked positions of an example are drawn once for the whole run, as the random key depends on the example only
    (the reference script masks in datasets.map; docs/method.md#masked-script)."""

    def keys(self, purpose: int, batch: Batch) -> Tensor:
        return rng.keys(batch.seed, purpose, 0, batch.step_examples)


@part
class Fresh(Masks):
    """Masked positions are drawn anew at each optimizer step, as the random key depends on step and row."""

    def keys(self, purpose: int, batch: Batch) -> Tensor:
        rows = torch.arange(len(batch.step_examples), device=batch.ids.device)
        return rng.keys(batch.seed, purpose, batch.step + 1, rows)


@part
class MaskedCE(Objective):
    """Cross-entropy at masked positions of each row, drawn without replacement.

    Of the c tokens of a row that may be masked, max(int(c u), 1) are masked, with the mask rate u uniform on the range
    `rate`. `masks`: whether masked positions are drawn once or at every step; `group`: mean over all scored tokens of
    the step (`GlobalBatch`), or over those of each group of rows and then over the groups (`RowGroup`)."""

    rate: Window
    masks: Masks
    group: Group

    meaning = "x0_mean"
    processes = frozenset({"absorbing"})
    score = "no bound"

    def trained(self, vocab_size: int) -> tuple[float, float]:
        return 1 - self.rate.high, 1 - self.rate.low

    def counts(self, batch: Batch) -> Tensor:
        """Number of masked tokens in each of the R rows of the optimizer step, [R]."""
        u = rng.uniform(self.masks.keys(rng.TIME, batch))
        rate = self.rate.low + (self.rate.high - self.rate.low) * u
        return (batch.step_candidates * rate).long().clamp_min(1)

    def chosen(self, batch: Batch) -> Tensor:
        """Mask [B, L] bool of the masked positions of the B rows of this batch."""
        keys = self.masks.keys(rng.CORRUPT, batch)[batch.index]
        return subset(keys, self.counts(batch)[batch.index], batch.candidates)

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.fused_head import fused_loss

        if batch.vocabulary.filler is not None:
            raise ValueError(
                "objective masked_ce does not corrupt filler (padding read as text), which data of padded rows has;"
                " use objective elbo, or packed rows (data part packed)"
            )
        masked = self.chosen(batch)
        noisy = batch.ids.masked_fill(masked, mask_id(batch.vocabulary))
        features = denoiser.encode(noisy, t=None, attention=batch.attention)[masked]
        counts = self.counts(batch)
        weight = self.group.weights(counts, batch.index)[masked.nonzero()[:, 0]]
        value, nll = fused_loss(features, denoiser.head(), cross_entropy, weight, batch.ids[masked])
        logs = {"mask_rate": (masked.sum(1) / batch.candidates.sum(1)).sum()}
        return Loss(value, nll.sum(), int(masked.sum()), logs)
