"""A training step that computes logits at masked positions only, against one at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, batch, llama
from benchmarks.row import Row, interleaved

if TYPE_CHECKING:
    from torch import Tensor


class MaskedStep:
    """A training step with half of the tokens masked: objective `masked_ce`, and log-softmax at every position.

    The mask id is `vocab_size`, after the ids of all tokens.
    """

    def __init__(self, vocab_size: int, rows: int = 8, length: int = 128) -> None:
        from repro.objectives.masked_ce import Fresh, MaskedCE
        from repro.objectives.noise import Window
        from repro.objectives.objective import GlobalBatch
        from repro.processes.absorbing import Absorbing

        self.name = f"training step, V={vocab_size:,}, d=256, 4 layers, B={rows}, L={length}, half masked"
        self.process = Absorbing()
        sizes = Sizes(ids=vocab_size, mask=vocab_size, bos=None, length=length)
        self.denoiser = llama(sizes, self.process, width=256, layers=4, ffn=1024, heads=4).train()
        self.batch = batch(sizes, rows)
        self.objective = MaskedCE(rate=Window(low=0.5, high=0.5), masks=Fresh(), group=GlobalBatch())

    def ours(self) -> float:
        """A step of `masked_ce`; returns its loss."""
        return self.step(self.objective(self.denoiser, self.process, self.batch).value)

    def everywhere(self) -> float:
        """A step with log-probabilities at every position; returns the same loss."""
        batch, masked = self.batch, self.objective.chosen(self.batch)
        noisy = batch.ids.masked_fill(masked, batch.vocabulary.size)
        features = self.denoiser.encode(noisy, t=None, attention=batch.attention)
        logp = self.denoiser.head().logits(features).float().log_softmax(-1)
        return self.step(-logp.gather(-1, batch.ids[..., None])[..., 0][masked].mean())

    def step(self, loss: Tensor) -> float:
        """The backward pass of a loss; returns its value."""
        self.denoiser.zero_grad()
        loss.backward()
        return loss.item()

    def agreement(self) -> str:
        """Absolute difference of the two losses."""
        return f"loss differs by {abs(self.ours() - self.everywhere()):.1e}"


def masked_head(repeats: int) -> list[Row]:
    """Seconds of both steps at a vocabulary of 50,000."""
    step = MaskedStep(50_000)
    return [interleaved(step.name, step.ours, step.everywhere, 1.4, repeats, step.agreement())]
