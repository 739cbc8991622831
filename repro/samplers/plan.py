"""Plans: how much is generated, in how many steps, and what is kept between forwards.

    plan           gen_length, block_length, steps (None for an adaptive rule)
    served_plan    the same with a cache of keys and values, and ids that end a row

A plan is part of the question: a cache of a network that looks both ways is an approximation, and a row that ends at an
id holds that id from there on.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.core import parts, registry
from repro.core.parts import Part, part
from repro.processes.process import Process
from repro.samplers.sampler import Sampler

Reach = Literal["onward", "block"]


@part
class Cache(Part):
    """Kind: what a network that looks both ways keeps between the forwards of a block (approximate).

    `refresh`: everything is forwarded again after so many forwards; None: when a block begins, and only then.
    """

    refresh: int | None
    reach: ClassVar[Reach]


@part
class PrefixCache(Cache):
    """Keys and values of the columns before the block are kept, all that follows is forwarded (Fast-dLLM;
    docs/method.md#fast-dllm)."""

    reach = "onward"


@part
class DualCache(Cache):
    """Keys and values of all other columns are kept, the block alone is forwarded (Fast-dLLM;
    docs/method.md#fast-dllm)."""

    reach = "block"


CACHES: dict[str, Cache] = {"prefix": PrefixCache(refresh=None), "dual": DualCache(refresh=None)}


def cache(name: str) -> Cache:
    """The cache of `prefix`, `dual` or `dual:refresh=4`; ValueError names the nearest one."""
    base, _, overrides = name.partition(":")
    if base not in CACHES:
        raise ValueError(f"no cache {base!r}; {parts.nearest(base, CACHES)}")
    return parts.derive(CACHES[base], parts.parse_overrides(overrides.split(",")) if overrides else {})


@part
class Plan(Part):
    """How much is generated and in how many steps: `steps` over all blocks, or None for an adaptive rule."""

    gen_length: int
    block_length: int
    steps: int | None

    def kept(self) -> Cache | None:
        """What a network that looks both ways keeps from step to step."""
        return None

    def ends(self) -> tuple[int, ...]:
        """Ids that end a row."""
        return ()


@part
class ServedPlan(Plan):
    """A plan as an engine serves it: with a cache, and rows that end at the first id of `stop` and leave the batch.

    A row has ended when it holds such an id and nothing before it is undecided; the rest is filled with that id.
    """

    cache: Cache | None
    stop: tuple[int, ...]

    def kept(self) -> Cache | None:
        return self.cache

    def ends(self) -> tuple[int, ...]:
        return self.stop


def check(sampler: Sampler, process: Process, plan: Plan) -> None:
    """Raise ValueError, naming the remedy, when the rule does not fit the process or the plan cannot be had."""
    name, noise = registry.part_name(type(sampler.innermost)), registry.part_name(type(process))
    capabilities = sampler.capabilities
    if noise not in capabilities.processes:
        raise ValueError(
            f"sampler {name!r} is for {' and '.join(sorted(capabilities.processes))} models; this one is {noise}"
        )
    if plan.gen_length < 1 or plan.block_length < 1 or plan.gen_length % plan.block_length:
        raise ValueError(f"gen_length {plan.gen_length} is no multiple of block_length {plan.block_length}")
    cache = plan.kept()
    if cache is not None and noise == "left_to_right":
        raise ValueError(
            f"a left-to-right model keeps its keys and values exactly; leave out the cache"
            f" {registry.part_name(type(cache))!r}"
        )
    if cache is not None and cache.refresh is not None and cache.refresh < 1:
        raise ValueError(f"refresh={cache.refresh} is no number of forwards; give 1 or more, or null")
    if capabilities.plan == "adaptive":
        if plan.steps is not None:
            raise ValueError(f"sampler {name!r} is adaptive: it takes no number of steps (got {plan.steps})")
        return
    blocks = plan.gen_length // plan.block_length
    if plan.steps is None or plan.steps < blocks or plan.steps % blocks:
        raise ValueError(f"steps {plan.steps} must be a positive multiple of the number of blocks, {blocks}")
    if plan.steps > plan.gen_length and capabilities.plan == "quota":
        raise ValueError(
            f"steps {plan.steps} exceed gen_length {plan.gen_length}: {name!r} commits one a step at least"
        )
    if noise == "left_to_right" and plan.steps != plan.gen_length:
        raise ValueError(f"a left-to-right model writes one token a step: steps must be {plan.gen_length}")


def plan_for(
    sampler: Sampler, gen_length: int, block_length: int | None, steps: int | None, kept: Cache | None
) -> Plan:
    """A plan with the usual defaults: one block, one token a step; adaptive rules take no steps."""
    block = gen_length if block_length is None else block_length
    if steps is None and sampler.capabilities.plan != "adaptive":
        steps = gen_length
    if kept is None:
        return Plan(gen_length=gen_length, block_length=block, steps=steps)
    return ServedPlan(gen_length=gen_length, block_length=block, steps=steps, cache=kept, stop=())
