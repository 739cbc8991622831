"""The exact output law of a sampler on a tiny space: the decoding loop's own steps, with every draw enumerated.

    law(denoiser, process, sampler, plan) -> {ids: probability}

A step is run with a script of outcomes; at a draw that the script lacks, all outcomes of it are appended and the step
runs again, as one batch. After each step, states with equal ids are merged.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from repro.lazy import torch
from repro.processes.process import Process
from repro.samplers.decode import Decoder, Moment, Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser
    from repro.samplers.draws import Draw, Outcome


def law(
    denoiser: Denoiser, process: Process, sampler: Sampler, plan: Plan, prompt: Sequence[int] = ()
) -> dict:
    """The exact law of the generated ids, {tuple of ids: probability}, with every draw of the rule enumerated.

    For tiny spaces (V = 3, gen_length = 2 or 3): states with equal ids are merged after each step.
    """
    decoder = Decoder(denoiser, process, sampler, plan, [prompt])
    assert not decoder.causal or denoiser.vocabulary.bos is not None
    weights = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        ids, weights = _enumerate(lambda ids, draw: decoder.begin(draw, ids), decoder.ids, weights)
        for at in decoder.schedule():
            if not decoder.finished(ids, at.block):
                step = functools.partial(_advance, decoder, at)
                ids, weights = _enumerate(step, ids, weights)
    return {tuple(row): w for row, w in zip(ids[:, decoder.start :].tolist(), weights.tolist(), strict=True)}


def _advance(decoder: Decoder, at: Moment, ids: Tensor, draw: Draw) -> Tensor:
    return decoder.advance(ids, at, draw)[0]


def _enumerate(step: Callable[[Tensor, Draw], Tensor], ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """All outcomes of one step from weighted states: rerun with longer scripts until no draw is unknown, then merge."""
    from repro.samplers.draws import Script, Unknown

    scripts: list[dict[Outcome, int]] = [{} for _ in range(len(ids))]
    while True:
        try:
            after = step(ids, Script(scripts))
            break
        except Unknown as unknown:
            grown: list[tuple[int, dict[Outcome, int], float]] = []
            asked: dict[int, list[tuple[Outcome, Tensor]]] = {}
            for name, row, p in zip(unknown.names, unknown.rows, unknown.probabilities, strict=True):
                asked.setdefault(row, []).append((name, p / p.sum()))
            for row in range(len(ids)):
                draws = asked.get(row, [])
                for outcomes in itertools.product(*[range(len(p)) for _, p in draws]):
                    chance = 1.0
                    for (_, p), outcome in zip(draws, outcomes, strict=True):
                        chance *= float(p[outcome])
                    if chance > 0:
                        new = {name: o for (name, _), o in zip(draws, outcomes, strict=True)}
                        grown.append((row, scripts[row] | new, chance))
            source = torch.tensor([row for row, _, _ in grown])
            ids = ids[source]
            weights = weights[source] * torch.tensor([chance for _, _, chance in grown], dtype=torch.float64)
            scripts = [script for _, script, _ in grown]
    merged, inverse = torch.unique(after, dim=0, return_inverse=True)
    return merged, torch.zeros(len(merged), dtype=torch.float64).index_add(0, inverse, weights)
