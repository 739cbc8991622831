"""Next-token cross-entropy of the autoregressive baseline (docs/method.md#ar-baseline): an exact negative
log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.objectives.objective import Batch, Group, Loss, Objective
from repro.processes.process import cross_entropy

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


@part
class NextToken(Objective):
    """Next-token cross-entropy -log p(x_l | x_<l) in nats at the positions l to be scored. `group`: mean over all
    scored tokens of the step (`GlobalBatch`), or over those of each group of rows and then over the groups
    (`RowGroup`)."""

    group: Group

    meaning = "x0_mean"
    processes = frozenset({"left_to_right"})
    score = "exact"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        from repro.models.fused_head import fused_loss

        scored = batch.candidates
        inputs = process.inputs(batch.ids, batch.vocabulary)
        features = denoiser.encode(inputs, t=None, attention=batch.attention)[scored]
        weight = self.group.weights(batch.step_candidates, batch.index)[scored.nonzero()[:, 0]]
        value, nll = fused_loss(features, denoiser.head().clean(), cross_entropy, weight, batch.ids[scored])
        return Loss(value, nll.sum(), int(scored.sum()), {})
