"""Plans: how much is generated, in how many steps, and with which KV cache.

    plan           gen_length, block_length, steps (None for an adaptive rule)
    served_plan    the same with a KV cache, and stop ids that end a row

A plan is part of a record's question: the KV cache of a bidirectional network is an approximation, and stop ids change
the text that follows them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.core.parts import Part, part
from repro.processes.process import Process
from repro.samplers.sampler import Sampler

Reach = Literal["onward", "block"]


@part
class Cache(Part):
    """Kind: KV cache policy of a bidirectional network within a block (approximate).

    `refresh`: number of forwards after which all keys and values are recomputed; None: only when a block begins.
    """

    refresh: int | None
    reach: ClassVar[Reach]


@part
class PrefixCache(Cache):
    """Caches the columns before the block; the block and all later columns are forwarded (Fast-dLLM, arXiv 2505.22618;
    docs/method.md#fast-dllm)."""

    reach = "onward"


@part
class DualCache(Cache):
    """Caches all columns outside the block; only the block is forwarded (Fast-dLLM, arXiv 2505.22618;
    docs/method.md#fast-dllm)."""

    reach = "block"


CACHES: dict[str, Cache] = {"prefix": PrefixCache(refresh=None), "dual": DualCache(refresh=None)}


def cache(name: str) -> Cache:
    """The cache policy named `prefix`, `dual` or, for example, `dual:refresh=4`; ValueError names the nearest name."""
    base, _, overrides = name.partition(":")
    if base not in CACHES:
        raise ValueError(f"no cache {base!r}; {nearest(base, CACHES)}")
    return parts.derive(CACHES[base], parts.parse_overrides(overrides.split(",")) if overrides else {})


@part
class Plan(Part):
    """Tokens to generate, tokens of a block, and steps over all blocks (None for an adaptive rule)."""

    gen_length: int
    block_length: int
    steps: int | None

    def cache_policy(self) -> Cache | None:
        """KV cache policy of a bidirectional network; None: no cache."""
        return None

    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a row."""
        return ()


@part
class ServedPlan(Plan):
    """A plan as a serving engine runs it: with a KV cache, and rows that leave the batch at a stop id.

    A row has finished when it holds an id of `stop` and nothing before is undecided; the rest is filled with that id.
    """

    cache: Cache | None
    stop: tuple[int, ...]

    def cache_policy(self) -> Cache | None:
        return self.cache

    def stop_ids(self) -> tuple[int, ...]:
        return self.stop


def check(sampler: Sampler, process: Process, plan: Plan) -> None:
    """Raise ValueError, naming the remedy, when rule, process and plan do not fit together."""
    name, noise = registry.part_name(type(sampler.innermost)), registry.part_name(type(process))
    capabilities = sampler.capabilities
    if noise not in capabilities.processes:
        raise ValueError(
            f"sampler {name!r} is for {' and '.join(sorted(capabilities.processes))} models; this one is {noise}"
        )
    if plan.gen_length < 1 or plan.block_length < 1 or plan.gen_length % plan.block_length:
        raise ValueError(
            f"gen_length {plan.gen_length} is no multiple of block_length {plan.block_length}; choose one"
        )
    cache = plan.cache_policy()
    if cache is not None and noise == "left_to_right":
        raise ValueError(
            f"a left-to-right model always uses an exact KV cache; leave out the cache"
            f" {registry.part_name(type(cache))!r}"
        )
    if cache is not None and cache.refresh is not None and cache.refresh < 1:
        raise ValueError(
            f"refresh={cache.refresh} is no number of forwards; give 1 or more, or null for none"
        )
    if capabilities.plan == "adaptive":
        if plan.steps is not None:
            raise ValueError(
                f"sampler {name!r} is adaptive: it takes no number of steps; leave out steps={plan.steps}"
            )
        return
    blocks = plan.gen_length // plan.block_length
    if plan.steps is None or plan.steps < blocks or plan.steps % blocks:
        raise ValueError(f"steps {plan.steps} must be a positive multiple of the number of blocks, {blocks}")
    if plan.steps > plan.gen_length and capabilities.plan == "quota":
        raise ValueError(
            f"steps {plan.steps} exceed gen_length {plan.gen_length}: {name!r} commits at least one token per step"
        )
    if noise == "left_to_right" and plan.steps != plan.gen_length:
        raise ValueError(
            f"a left-to-right model writes one token per step: steps must be {plan.gen_length}, not {plan.steps}"
        )


def plan_for(
    sampler: Sampler, gen_length: int, block_length: int | None, steps: int | None, cache: Cache | None
) -> Plan:
    """A plan with the usual defaults: one block, and one step per token unless the rule is adaptive."""
    block = gen_length if block_length is None else block_length
    if steps is None and sampler.capabilities.plan != "adaptive":
        steps = gen_length
    if cache is None:
        return Plan(gen_length=gen_length, block_length=block, steps=steps)
    return ServedPlan(gen_length=gen_length, block_length=block, steps=steps, cache=cache, stop=())
