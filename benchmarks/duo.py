"""A step on Duo's soft tokens against the seed's script as written: time and memory (docs/method.md#cost-duo-step)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, llama
from benchmarks.row import Row, interleaved, peak_bytes, product_share

if TYPE_CHECKING:
    from repro.objectives.objective import Objective


class DuoStep:
    """One step on the seed's Duo terms, forward and backward: recipe `duo`, and the script as written.

    `count` is V (None: the recipe's 50,368). The two differ in the reverse term (docs/method.md#symmetric-kl);
    `duo_script`, whose loss is the script's, shows the agreement.
    """

    def __init__(self, count: int | None = None) -> None:
        from repro.core import registry, rng
        from repro.core.lazy import torch
        from repro.models.attention import Mask
        from repro.objectives.objective import Batch

        rows, length = 8, 128
        recipe = registry.recipe("duo")
        sizes = Sizes(ids=count or recipe.data.vocabulary().size, mask=None, bos=None, length=length)
        self.name = f"Duo step, V={sizes.ids:,}, d=256, 2 layers, B=8, L=128"
        self.loss, self.same, self.process = (
            recipe.objective,
            registry.recipe("duo_script").objective,
            recipe.process,
        )
        self.denoiser = llama(sizes, self.process, width=256, layers=2, ffn=1024, heads=4).train()
        u = rng.uniform(rng.keys(0, rng.SENTENCE, 0, torch.arange(rows)), length)
        self.batch = Batch(
            ids=(u * sizes.ids).long(),
            candidates=torch.ones(rows, length, dtype=torch.bool),
            attention=Mask(),
            index=torch.arange(rows),
            step=0,
            seed=0,
            vocabulary=sizes.vocabulary(),
            step_examples=torch.arange(rows),
            step_candidates=torch.full((rows,), length),
        )

    def ours(self) -> float:
        return self.step(self.loss)

    def step(self, objective: Objective) -> float:
        self.denoiser.zero_grad()
        loss = objective(self.denoiser, self.process, self.batch).value
        loss.backward()
        return loss.item()

    def script(self) -> float:
        """The seed's step as docs/method.md#uniform-script and docs/method.md#symmetric-kl state it, at our noise
        levels; its constant subtracted at the end."""
        from torch.nn import functional

        from repro.core import rng
        from repro.core.lazy import torch
        from repro.models.denoiser import Soft
        from repro.objectives.sym_kl import SymKLScript

        assert isinstance(self.same, SymKLScript)
        self.denoiser.zero_grad()
        batch, noise, floor, count = self.batch, self.same.noise, self.same.floor, self.batch.vocabulary.size
        u = rng.uniform(rng.keys(batch.seed, rng.TIME, batch.step, batch.index)).float()
        t = (noise.low + (noise.high - noise.low) * u)[:, None]
        clean = functional.one_hot(batch.ids, count).float()
        signal = (1 - t)[..., None]
        latent = signal * clean + (1 - signal**2).sqrt() * torch.randn_like(clean)
        soft = (latent / self.same.temperature.tau(batch.step)).softmax(-1)
        features = self.denoiser.encode(Soft(None, soft), t=None, attention=batch.attention)
        logits = self.denoiser.head().logits(features)
        logp = logits.log_softmax(-1)
        forward = functional.kl_div(logp, clean, reduction="none").sum(-1)
        floored = (clean + floor).log()
        wrong = functional.kl_div(floored, logp.exp(), reduction="none", log_target=True).sum(-1)
        scale = t / (count * (1 - t) + t)
        mask = batch.candidates.float()
        loss = (scale * (forward + wrong) * mask).sum() / mask.sum()
        loss.backward()
        constant = (-math.log(floor) * (count - 1) * scale * mask).sum() / mask.sum()
        return (loss - constant).item()

    def agreement(self) -> str:
        """Of the script and `duo_script`: other noise, and float32 sums that hold a constant of 927,794
        (docs/method.md#symmetric-kl)."""
        one, other = self.step(self.same), self.script()
        return f"duo_script's loss differs by {abs(one / other - 1):.1e}"


def duo_step(repeats: int) -> list[Row]:
    """Sparse soft tokens against one-hot, Gaussian, softmax and product over the whole vocabulary
    (docs/method.md#cost-duo-step)."""
    step = DuoStep()
    ours, script = (f"{product_share(side):.0%}" for side in (step.ours, step.script))
    agreement = f"{step.agreement()}; matrix products take {ours} of our time, {script} of the script's"
    return [interleaved(step.name, step.ours, step.script, 3.0, repeats, agreement)]


def duo_memory(repeats: int) -> list[Row]:
    """What the same two steps hold at their peak beyond the weights, in MiB; one run of each tells."""
    step = DuoStep()
    agreement = step.agreement()
    ours, script = (peak_bytes(work) / 2**20 for work in (step.ours, step.script))
    name = f"{step.name}: peak memory beyond the weights, MiB"
    return [Row(name, ours, script, script / ours, 12.0, agreement)]
