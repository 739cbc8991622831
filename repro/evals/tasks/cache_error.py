"""What an approximate cache costs in truth: divergence a token and tokens changed, by cache and refresh interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import prepared
from repro.evals.decoding import cut
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Work
from repro.model import Model
from repro.samplers.decode import steps
from repro.samplers.plan import CACHES, Cache, ServedPlan
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from torch import Tensor

RULE = "low_confidence"
"""The rule that is followed: one token a step, no draws."""


@part
class CacheError(Task):
    """Each approximate cache against none, on `rows` held-out rows: their prompt is kept and the rest is decoded.

    A row's prompt is what comes before its first candidate, or its first half where all are candidates. Along the
    cached decode, at every step and open position: KL(whole forward || cached one), nats a token; at its end: the share
    of tokens that differ from the decode without cache. `refreshes`: forwards between two whole ones of a block, beside
    the one when it begins ("never" after it is asked too).
    """

    rows: int
    block_length: int
    refreshes: tuple[int, ...]
    generates = False

    def protocol(self) -> dict[str, Any]:
        return {
            "rule": RULE,
            "tokens_per_step": 1,
            "kl": "whole || cached, open positions",
            "unit": "nats a token",
        }

    def skip(self, model: Model) -> str | None:
        if not model.recipe.process.masks:
            return "caches are for networks of absorbing noise here"
        return None if model.denoiser.supports_kv_cache else "this denoiser has no keys and values to keep"

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        prompts, length = self._prompts(model, self.rows if ask.limit is None else min(self.rows, ask.limit))
        caches: list[tuple[str, Cache | None]] = [("whole", None)]
        for name, cache in CACHES.items():
            for refresh in (*self.refreshes, None):
                interval = "never" if refresh is None else str(refresh)
                caches.append((f"{name}_{interval}", type(cache)(refresh=refresh)))

        def of_cache(number: range) -> dict[str, list[Any]]:
            _, cache = caches[number.start]
            rows = cut(range(len(prompts)), work.batch)
            found = [self._decoded(model, prompts[r.start : r.stop], length, cache) for r in rows]
            return {what: [value for each in found for value in each[what]] for what in found[0]}

        decoded = work.pieces(len(caches), 1, of_cache)
        work.join()
        found = [
            {what: torch.tensor(values, dtype=torch.float64) for what, values in each.items()}
            for each in decoded
        ]
        whole, metrics = found[0], {}
        for (name, _), each in zip(caches[1:], found[1:], strict=True):
            metrics[f"{name}_kl"] = _mean(each["kl"])
            metrics[f"{name}_changed"] = _mean((each["ids"] != whole["ids"]).double().mean(1))
            metrics[f"{name}_tokens"] = _mean(each["tokens"] / whole["tokens"])
        return Answer(metrics)

    def _prompts(self, model: Model, count: int) -> tuple[list[list[int]], int]:
        """Prompts of one length from the end of the held-out split, and how many tokens follow."""
        split = prepared(model.data).heldout
        rows = rng.permutation(0, rng.QUOTED, 1, len(split)).numpy()[:count]
        ids, candidates = split.ids[rows].astype(np.int64), split.candidates[rows]
        width = ids.shape[1]
        first = width // 2 if candidates.all() else int(candidates.argmax(1).min())
        length = (width - first) // self.block_length * self.block_length
        return ids[:, :first].tolist(), length

    def _decoded(
        self, model: Model, prompts: list[list[int]], length: int, cache: Cache | None
    ) -> dict[str, list[Any]]:
        """Decoded `ids` [B, length], `kl` a token [B] of cached forwards from whole ones, `tokens` forwarded [B]."""
        plan = ServedPlan(
            gen_length=length, block_length=self.block_length, steps=length, cache=cache, stop=()
        )
        process, rule, count = model.recipe.process, preset(RULE), len(prompts)
        frames = steps(model.denoiser, process, rule, plan, prompts, seed=0, names=range(count))
        sums, places = torch.zeros(2, count, dtype=torch.float64).unbind()
        decoder, frame = None, None
        for decoder, frame in frames:
            if cache is not None:
                where = decoder.open(frame.before, frame.at.block)
                whole = decoder.prediction(frame.before, frame.at, frame.advanced.t, decoder.pad, None)
                with torch.no_grad():
                    gap = divergence(whole.logits(where), frame.advanced.prediction.logits(where))
                sums = sums.index_add(0, where.nonzero()[:, 0], gap)
                places = places + where.sum(1)
        assert decoder is not None and frame is not None
        return {
            "ids": frame.ids[:, decoder.start :].tolist(),
            "kl": (sums / places.clamp_min(1)).tolist(),
            "tokens": frame.cost.token_forwards.double().tolist(),
        }


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(other)), [N, V] twice with the same ids at -inf -> [N] nats, float64."""
    one, two = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    return torch.where(one.isinf(), 0.0, one.exp() * (one - two)).sum(-1)


def _mean(values: Tensor) -> tuple[float, float | None, int]:
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return values.mean().item(), error, len(values)
