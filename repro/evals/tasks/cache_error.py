"""Error of approximate KV caches of bidirectional networks: KL divergence per token and share of changed tokens, per
cache policy and refresh interval (docs/method.md#fast-dllm)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.core.reading import convert
from repro.data.corpus import prepared
from repro.evals.decoding import cut
from repro.evals.task import Answer, Ask, Task, mean_metric
from repro.evals.work_queue import WorkQueue
from repro.model import Model
from repro.samplers.decode import steps
from repro.samplers.plan import CACHES, Cache, ServedPlan
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from torch import Tensor

RULE = "low_confidence"
"""Preset name of the sampler that the task uses: one token per step, no random draws."""


@part
class CacheError(Task):
    """Error of each approximate KV cache against decoding without one, on continuations of `rows` held-out rows.

    The prompts, of one length, are the beginnings of the rows, up to the first position that is scored in some row (not
    part of its prompt), or their first halves if all positions are scored. Metrics per cache and refresh interval:
    `kl`, the mean over all steps and undecided positions of KL(prediction of a whole forward || prediction with the
    cache), in nats per token; `changed`, the share of final tokens that differ from decoding without a cache; `tokens`,
    tokens forwarded relative to decoding without a cache. Blocks have `block_length` tokens. `refreshes`: numbers of
    forwards with the cache between two forwards of the whole row within a block (each block begins with a forward of
    the whole row); no refresh ("never") is measured too.
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
            return "the error of KV caches is defined only for networks trained with absorbing noise"
        if model.recipe.process.block_length() is not None:
            return "the KV cache of a network that reads blocks is exact"
        return (
            None
            if model.denoiser.supports_kv_cache
            else "the network of this model does not support a KV cache"
        )

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        prompts, length = self._prompts(model, ask.at_most(self.rows))
        caches: list[tuple[str, Cache | None]] = [("whole", None)]
        for name, cache in CACHES.items():
            for refresh in (*self.refreshes, None):
                interval = "never" if refresh is None else str(refresh)
                caches.append((f"{name}_{interval}", type(cache)(refresh=refresh)))

        def of_cache(number: range) -> dict[str, list[Any]]:
            _, cache = caches[number.start]
            rows = cut(range(len(prompts)), work.batch)
            found = [self._decoded(model, prompts[r.start : r.stop], length, cache) for r in rows]
            return {name: [value for each in found for value in each[name]] for name in found[0]}

        found = work.map_chunks(len(caches), 1, of_cache, lambda data, _: _read(data, len(prompts), length))
        work.join()
        whole, metrics = found[0], {}
        for (name, _), each in zip(caches[1:], found[1:], strict=True):
            metrics[f"{name}_kl"] = mean_metric(each["kl"])
            metrics[f"{name}_changed"] = mean_metric((each["ids"] != whole["ids"]).double().mean(1))
            metrics[f"{name}_tokens"] = mean_metric(each["tokens"] / whole["tokens"])
        return Answer(metrics)

    def _prompts(self, model: Model, count: int) -> tuple[list[list[int]], int]:
        """(`count` prompts, lists of token ids of one length; number of tokens to decode after each, a multiple of
        `block_length`). The prompts are the beginnings of held-out rows that are drawn at random with a fixed key."""
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
        """Results, name -> list, of decoding `length` tokens after each of B prompts with `cache` (None: without).

        `ids` [B, length]: the decoded ids; `kl` [B]: mean KL divergence of the predictions with the cache from those of
        forwards of the whole row, in nats per token; `tokens` [B]: number of tokens that went through the network.
        """
        plan = ServedPlan(
            gen_length=length, block_length=self.block_length, steps=length, cache=cache, stop=()
        )
        process, rule, count = model.recipe.process, preset(RULE), len(prompts)
        frames = steps(model.denoiser, process, rule, plan, prompts, seed=0, names=range(count))
        sums, places = torch.zeros(2, count, dtype=torch.float64).unbind()
        decoder, frame = None, None
        for decoder, frame in frames:
            if cache is not None:
                where = decoder.undecided(frame.before, frame.at.block)
                whole = decoder.prediction(frame.before, frame.at, frame.result.t, decoder.pad, None)
                with torch.no_grad():
                    gap = divergence(whole.logits(where), frame.result.prediction.logits(where))
                sums = sums.index_add(0, where.nonzero()[:, 0], gap)
                places = places + where.sum(1)
        assert decoder is not None and frame is not None
        return {
            "ids": frame.ids[:, decoder.start :].tolist(),
            "kl": (sums / places.clamp_min(1)).tolist(),
            "tokens": frame.cost.token_forwards.double().tolist(),
        }


class _Stored(Struct):
    """Results of decoding B prompts with one cache, as stored in a file: decoded `ids` [B, length], mean KL divergence
    `kl` [B] in nats per token, and number of `tokens` [B] that went through the network."""

    ids: list[list[float]]
    kl: list[float]
    tokens: list[float]


def _read(data: Any, rows: int, length: int) -> dict[str, Tensor]:
    """The results of decoding with one cache, float64 tensors by name (fields of `_Stored`), from the JSON `data` of
    their file; ValueError unless they are those of `rows` rows of `length` ids."""
    found = convert(data, _Stored, "the results", "compute them again")
    sizes = {len(found.ids), len(found.kl), len(found.tokens)}
    if sizes != {rows} or {len(row) for row in found.ids} != {length}:
        raise ValueError(
            f"a stored result does not have `kl`, `tokens` and {length} `ids` for each of {rows} rows"
        )
    return {name: torch.tensor(getattr(found, name), dtype=torch.float64) for name in ("ids", "kl", "tokens")}


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL divergence KL(softmax(logits) || softmax(other)) at each of N positions in nats, float64 [N].

    Both arguments are logits [N, V] (V: vocabulary size), with -inf at the same ids.
    """
    one, two = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    return torch.where(one.isinf(), 0.0, one.exp() * (one - two)).sum(-1)
