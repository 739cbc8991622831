"""A training step on masked positions against one that scores every position (spec I.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.bench.nets import Sizes, llama
from repro.bench.row import Row, interleaved

if TYPE_CHECKING:
    from torch import Tensor


def masked_head(repeats: int) -> list[Row]:
    """A training step at V = 50k, d = 256: `masked_ce` with its fused head, against log-softmax at every position."""
    from repro import rng
    from repro.backbones.attention import Mask
    from repro.lazy import torch
    from repro.objectives.masked_ce import Fresh, MaskedCE
    from repro.objectives.noise import Window
    from repro.objectives.objective import Batch, GlobalBatch
    from repro.processes.absorbing import Absorbing

    rows, length, vocabulary = 8, 128, 50_000
    process = Absorbing()
    sizes = Sizes(ids=vocabulary, mask=vocabulary, bos=None, length=length)
    denoiser = llama(sizes, process, width=256, layers=4, ffn=1024, heads=4).train()
    index = torch.arange(rows)
    batch = Batch(
        ids=(rng.uniform(rng.keys(0, rng.SENTENCE, 0, index), length) * vocabulary).long(),
        candidates=torch.ones(rows, length, dtype=torch.bool),
        attention=Mask(),
        index=index,
        step=0,
        seed=0,
        vocabulary=denoiser.vocabulary,
        step_examples=index,
        step_candidates=torch.full((rows,), length),
    )
    objective = MaskedCE(rate=Window(low=0.5, high=0.5), masks=Fresh(), group=GlobalBatch())

    def ours() -> Tensor:
        return objective(denoiser, process, batch).value

    def opponent() -> Tensor:
        masked = objective.chosen(batch)
        features = denoiser.encode(batch.ids.masked_fill(masked, vocabulary), t=None, attention=Mask())
        logp = denoiser.head().logits(features).float().log_softmax(-1)
        return -logp.gather(-1, batch.ids[..., None])[..., 0][masked].mean()

    def step(loss: Callable[[], Tensor]) -> float:
        denoiser.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    off = abs(step(ours) - step(opponent))
    name = "training step, V=50k, d=256, 4 layers, B=8, L=128, half masked"
    agreement = f"loss differs by {off:.1e}"
    return [interleaved(name, lambda: step(ours), lambda: step(opponent), 1.4, repeats, agreement)]
