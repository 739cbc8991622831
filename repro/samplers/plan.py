"""Decoding plans: how many tokens are generated, in how many steps, and with which KV cache.

    plan           gen_length, block_length (tokens), steps (None for a sampler that decides their number itself)
    served_plan    these fields, a KV cache, and stop ids that end a row

The plan is part of what identifies a stored result (the `question` of its record), so results with different plans are
never merged: the KV cache of a bidirectional network is an approximation, and stop ids change the text after them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.core import parts
from repro.core.errors import LARGEST_COUNT, nearest
from repro.core.parts import Part, part
from repro.processes.process import Process
from repro.samplers.quotas import quota_processor
from repro.samplers.sampler import Sampler

Reach = Literal["onward", "block"]


@part
class Cache(Part):
    """Base class of KV cache policies for networks that are not causal. Cached keys and values of a bidirectional
    network are approximate; those of a block-causal network (each block attends to itself and to earlier blocks) are
    exact (docs/method.md#block-diffusion).

    `refresh`: number of forward passes after which all keys and values are recomputed; None: only when a block begins.
    """

    refresh: int | None
    reach: ClassVar[Reach]


@part
class PrefixCache(Cache):
    """KV cache of the columns before the current block; the block and all later columns go through the network at every
    step (Fast-dLLM, arXiv 2505.22618; docs/method.md#fast-dllm)."""

    reach = "onward"


@part
class DualCache(Cache):
    """KV cache of all columns outside the current block; only the block goes through the network at each step
    (Fast-dLLM, arXiv 2505.22618; docs/method.md#fast-dllm)."""

    reach = "block"


CACHES: dict[str, Cache] = {"prefix": PrefixCache(refresh=None), "dual": DualCache(refresh=None)}


def cache(name: str) -> Cache:
    """The KV cache policy called `name`: `prefix`, `dual`, or one of these with its setting `refresh` changed, such as
    `dual:refresh=4`.

    Raises ValueError for an unknown name or setting, with the most similar valid one.
    """
    base, _, overrides = name.partition(":")
    if base not in CACHES:
        raise ValueError(f"there is no cache {base!r}; {nearest(base, CACHES)}")
    return parts.derive(CACHES[base], parts.parse_overrides(overrides.split(",")) if overrides else {})


@part
class Plan(Part):
    """Decoding plan: number of tokens to generate, tokens per block, and steps over all blocks together (None for an
    adaptive sampler, which takes as many steps as the text needs)."""

    gen_length: int
    block_length: int
    steps: int | None

    def cache_policy(self) -> Cache | None:
        """Policy of the plan's KV cache for networks that are not causal; None: no cache."""
        return None

    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which a row's text ends: once one is generated, decoding of that row stops; none by default."""
        return ()


@part
class ServedPlan(Plan):
    """Decoding plan as in a serving engine: with a KV cache, and rows that leave the batch at a stop id.

    A row has finished when it holds one of the ids `stop` and no position before this id is undecided; if the sampler
    changes committed tokens, at the end of the block that holds the id. All later positions are filled with this id.
    """

    cache: Cache | None
    stop: tuple[int, ...]

    def cache_policy(self) -> Cache | None:
        return self.cache

    def stop_ids(self) -> tuple[int, ...]:
        return self.stop


def check(sampler: Sampler, process: Process, plan: Plan) -> None:
    """Raise ValueError, with the remedy, if sampler, noise process and decoding plan cannot be combined."""
    name, capabilities = parts.part_name(type(sampler.innermost)), sampler.capabilities
    if process.noise not in capabilities.processes:
        raise ValueError(
            f"sampler {name!r} is for {' and '.join(sorted(capabilities.processes))} models; this one is"
            f" {process.noise}: choose a sampler that fits (`python -m repro.evals list samplers`)"
        )
    for count in ("gen_length", "block_length", "steps"):
        if (getattr(plan, count) or 0) > LARGEST_COUNT:
            raise ValueError(f"{count}={getattr(plan, count)} is too large; give at most {LARGEST_COUNT:,}")
    if plan.gen_length < 1 or plan.block_length < 1 or plan.gen_length % plan.block_length:
        raise ValueError(
            f"gen_length {plan.gen_length} is no multiple of block_length {plan.block_length};"
            " give a gen_length that is a positive multiple"
        )
    cache = plan.cache_policy()
    if cache is not None and process.causal:
        raise ValueError(
            f"a left-to-right model always uses an exact KV cache; leave out the cache"
            f" {parts.part_name(type(cache))!r}"
        )
    if cache is not None and capabilities.looks_ahead:
        raise ValueError(
            f"{name} reproduces the output of decoding without a KV cache and cannot use one; leave out the cache"
            f" {parts.part_name(type(cache))!r}"
        )
    if cache is not None and cache.refresh is not None and cache.refresh < 1:
        raise ValueError(
            f"cache setting refresh={cache.refresh} is no number of forward passes after which to recompute the KV"
            " cache; give 1 or more, or null to recompute it only when a block begins"
        )
    if capabilities.plan == "adaptive":
        if plan.steps is not None:
            raise ValueError(
                f"sampler {name!r} is adaptive: it takes no number of steps; leave out steps={plan.steps}"
            )
        return
    blocks = plan.gen_length // plan.block_length
    if plan.steps is None or plan.steps < blocks or plan.steps % blocks:
        raise ValueError(
            f"steps {plan.steps} must be a positive multiple of the number of blocks, {blocks}"
            f" (gen_length={plan.gen_length} / block_length={plan.block_length})"
        )
    idle = quota_processor(sampler) is not None
    if plan.steps > plan.gen_length and capabilities.plan == "quota" and not idle:
        raise ValueError(
            f"steps {plan.steps} exceed gen_length {plan.gen_length}: {name!r} commits at least one token per step;"
            f" give at most {plan.gen_length} steps, or add +rounded_quotas, with which a step may commit none"
        )
    if process.causal and plan.steps != plan.gen_length:
        raise ValueError(
            f"steps={plan.steps}: a left-to-right model writes one token per step, so steps must be {plan.gen_length}"
        )


def plan_for(
    sampler: Sampler, gen_length: int, block_length: int | None, steps: int | None, cache: Cache | None
) -> Plan:
    """A decoding plan for `sampler`: `gen_length` tokens in blocks of `block_length` (None: one block), in `steps`
    steps over all blocks (None: one per token, or no number for an adaptive sampler), with `cache` (None: no KV cache).
    """
    block = gen_length if block_length is None else block_length
    if steps is None and sampler.capabilities.plan != "adaptive":
        steps = gen_length
    if cache is None:
        return Plan(gen_length=gen_length, block_length=block, steps=steps)
    return ServedPlan(gen_length=gen_length, block_length=block, steps=steps, cache=cache, stop=())
