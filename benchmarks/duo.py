"""A training step on Duo's soft tokens against the reference script: time and memory (docs/method.md#cost-duo-step)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, batch, llama
from benchmarks.row import Row, against, peak_bytes, product_share

if TYPE_CHECKING:
    from repro.objectives.objective import Objective


class DuoStep:
    """One step, forward and backward, of recipe `duo` and of the reference script as written.

    `vocab_size` defaults to the recipe's 50,368. The losses differ in the reverse term (docs/method.md#symmetric-kl);
    recipe `duo_script` has the script's loss, so agreement is measured with it.
    """

    def __init__(self, vocab_size: int | None = None, rows: int = 8, length: int = 128) -> None:

        from repro.recipes.scale import by_name

        recipe = by_name("duo")
        sizes = Sizes(ids=vocab_size or recipe.data.vocabulary().size, mask=None, bos=None, length=length)
        self.name = f"Duo step, V={sizes.ids:,}, d=256, 2 layers, B={rows}, L={length}"
        self.loss, self.same, self.process = (
            recipe.objective,
            by_name("duo_script").objective,
            recipe.process,
        )
        self.denoiser = llama(sizes, self.process, width=256, layers=2, ffn=1024, heads=4).train()
        self.batch = batch(sizes, rows)

    def ours(self) -> float:
        """A step of recipe `duo`; returns its loss."""
        return self.step(self.loss)

    def step(self, objective: Objective) -> float:
        """A forward and backward pass of an objective; returns its loss."""
        self.denoiser.zero_grad()
        loss = objective(self.denoiser, self.process, self.batch).value
        loss.backward()
        return loss.item()

    def script(self) -> float:
        """A step of the reference script (docs/method.md#uniform-script, docs/method.md#symmetric-kl) at our noise
        levels; returns its loss without the constant of its reverse term, on which no gradient depends."""
        from torch.nn import functional

        from repro.core import rng
        from repro.core.lazy import torch
        from repro.models.denoiser import Soft
        from repro.objectives.sym_kl import SymKLScript

        assert isinstance(self.same, SymKLScript)
        self.denoiser.zero_grad()
        batch, noise, floor = self.batch, self.same.noise, self.same.floor
        vocab_size = batch.vocabulary.size
        u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index)).float()
        t = (noise.low + (noise.high - noise.low) * u)[:, None]
        clean = functional.one_hot(batch.ids, vocab_size).float()
        signal = (1 - t)[..., None]
        latent = signal * clean + (1 - signal**2).sqrt() * torch.randn_like(clean)
        soft = (latent / self.same.temperature.tau(batch.step)).softmax(-1)
        features = self.denoiser.encode(Soft(None, soft), t=None, attention=batch.attention)
        logits = self.denoiser.head().logits(features)
        logp = logits.log_softmax(-1)
        forward = functional.kl_div(logp, clean, reduction="none").sum(-1)
        floored = (clean + floor).log()
        wrong = functional.kl_div(floored, logp.exp(), reduction="none", log_target=True).sum(-1)
        scale = t / (vocab_size * (1 - t) + t)
        mask = batch.candidates.float()
        loss = (scale * (forward + wrong) * mask).sum() / mask.sum()
        loss.backward()
        constant = (-math.log(floor) * (vocab_size - 1) * scale * mask).sum() / mask.sum()
        return (loss - constant).item()

    def agreement(self) -> str:
        """Relative difference of the script's loss and that of `duo_script`, which draw different noise; the script's
        float32 sums hold a constant of 927,794 (docs/method.md#symmetric-kl)."""
        one, other = self.step(self.same), self.script()
        return f"duo_script's loss differs by {abs(one / other - 1):.1e}"


def duo_step(repeats: int) -> list[Row]:
    """Seconds with sparse soft tokens against one-hot vectors, noise, softmax and product over the whole vocabulary."""
    step = DuoStep()
    ours, script = (f"{product_share(side):.0%}" for side in (step.ours, step.script))
    agreement = f"{step.agreement()}; matrix products take {ours} of our time, {script} of the script's"
    found = against({"ours": step.ours, "theirs": step.script}, repeats)
    return [found.row(step.name, 3.0, agreement)]


def duo_memory(repeats: int) -> list[Row]:
    """Peak memory of the two steps of `duo_step` beyond the weights, in MiB; deterministic, so `repeats` is not
    used."""
    step = DuoStep()
    agreement = step.agreement()
    ours, script = (peak_bytes(work) / 2**20 for work in (step.ours, step.script))
    name = f"{step.name}: peak memory beyond the weights, MiB"
    return [Row(name, ours, script, script / ours, 12.0, agreement)]
