"""A training step on masked positions against one that scores every position (docs/method.md#cost-duo-step)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, llama
from benchmarks.row import Row, interleaved

if TYPE_CHECKING:
    from torch import Tensor


class MaskedStep:
    """A training step at d = 256, half of the tokens masked: `masked_ce`, and log-softmax at every position.

    `count` is V, the mask id beyond it.
    """

    def __init__(self, count: int) -> None:
        from repro.core import rng
        from repro.core.lazy import torch
        from repro.models.attention import Mask
        from repro.objectives.masked_ce import Fresh, MaskedCE
        from repro.objectives.noise import Window
        from repro.objectives.objective import Batch, GlobalBatch
        from repro.processes.absorbing import Absorbing

        rows, length = 8, 128
        self.name = f"training step, V={count:,}, d=256, 4 layers, B=8, L=128, half masked"
        self.process = Absorbing()
        sizes = Sizes(ids=count, mask=count, bos=None, length=length)
        self.denoiser = llama(sizes, self.process, width=256, layers=4, ffn=1024, heads=4).train()
        index = torch.arange(rows)
        self.batch = Batch(
            ids=(rng.uniform(rng.keys(0, rng.SENTENCE, 0, index), length) * count).long(),
            candidates=torch.ones(rows, length, dtype=torch.bool),
            attention=Mask(),
            index=index,
            step=0,
            seed=0,
            vocabulary=self.denoiser.vocabulary,
            step_examples=index,
            step_candidates=torch.full((rows,), length),
        )
        self.objective = MaskedCE(rate=Window(low=0.5, high=0.5), masks=Fresh(), group=GlobalBatch())

    def ours(self) -> float:
        return self.step(self.objective(self.denoiser, self.process, self.batch).value)

    def everywhere(self) -> float:
        batch, masked = self.batch, self.objective.chosen(self.batch)
        noisy = batch.ids.masked_fill(masked, batch.vocabulary.size)
        features = self.denoiser.encode(noisy, t=None, attention=batch.attention)
        logp = self.denoiser.head().logits(features).float().log_softmax(-1)
        return self.step(-logp.gather(-1, batch.ids[..., None])[..., 0][masked].mean())

    def step(self, loss: Tensor) -> float:
        self.denoiser.zero_grad()
        loss.backward()
        return loss.item()

    def agreement(self) -> str:
        return f"loss differs by {abs(self.ours() - self.everywhere()):.1e}"


def masked_head(repeats: int) -> list[Row]:
    step = MaskedStep(50_000)
    return [interleaved(step.name, step.ours, step.everywhere, 1.4, repeats, step.agreement())]
