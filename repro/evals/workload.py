"""Workload of an evaluation, counted before it is run: forwards, tokens through the network, logits, random draws.

decoding(sampler, plan, prompt, causal)     one generated text; an upper bound if a sampler may stop early
of_answers(size, shots, estimator, model)   likelihoods of all choices of a multiple-choice item
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from repro.core.files import ROOT
from repro.evals.likelihood.guided import GuidedLikelihood
from repro.evals.likelihood.likelihood import Estimator
from repro.samplers.ancestral import FirstHitting
from repro.samplers.corrector import Corrected
from repro.samplers.logits_processors import Guided, ProcessedSampler
from repro.samplers.plan import Plan
from repro.samplers.quotas import quota_processor
from repro.samplers.renoise import Renoise
from repro.samplers.sampler import Sampler
from repro.samplers.tail import Tail

if TYPE_CHECKING:
    from repro.model import Model

SIZES = ROOT / "evals" / "tasks" / "sizes.toml"
PARALLEL = 2.5
"""Tokens committed per forward by adaptive samplers that use confidence: Fast-dLLM (arXiv 2505.22618, table 1), GSM8K,
length 256."""
CANVAS = 28.9
"""Tokens committed per forward that plans assume of DiffusionGemma's sampler. Our choice: what is reported for GSM8K
(table `dllm.gemma` of evals/published.toml), without the settings it was measured with."""
DRAWN = {"uniform": 152, "absorbing": 72}
"""Bytes of memory traffic of one categorical draw in float64 per id of the vocabulary, by noise process (counted in
tests/evals/test_workload.py). Uniform noise draws from a posterior at every position in every forward, absorbing noise
once per position."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Work that a model does for one item of a task, and the number of `items` (None: unknown).

    Per item: `forwards`, number of forward passes of one row; `tokens`, tokens that go through the network in all of
    these passes; `keys`, number of attended keys, summed over the tokens; `heads`, number of positions whose logits are
    computed; `drawn`, bytes of memory traffic of the random draws, divided by the vocabulary size. `assumed`: sentences
    that state the assumptions behind these numbers.
    """

    items: int | None
    forwards: float
    tokens: float
    keys: float
    heads: float
    drawn: float = 0.0
    assumed: tuple[str, ...] = ()

    @classmethod
    def of_rows(cls, items: int, forwards: float, length: int) -> Workload:
        """Workload of `items` items, each of which takes `forwards` forward passes of a whole row of `length` tokens.

        Logits are computed at every position.
        """
        tokens = forwards * length
        return cls(items=items, forwards=forwards, tokens=tokens, keys=tokens * length, heads=tokens)

    @classmethod
    def of_bound(cls, items: int, passes: int, length: int, model: Model) -> Workload:
        """Workload of the likelihood bound of `items` rows of `length` tokens, by `passes` Monte Carlo passes (one if
        the process computes its bound exactly).

        A block diffusion process forwards two copies of a row, a clean and a noisy one, so its number of tokens is
        doubled. The number of attended keys is not: each of the 2 `length` tokens attends to half a row on average.
        """
        process = model.recipe.process
        one = cls.of_rows(items, 1 if process.exact else passes, length)
        return one if process.block_length() is None else replace(one, tokens=2 * one.tokens)

    def limited(self, limit: int | None) -> Workload:
        """This workload with at most `limit` items (None: all)."""
        if limit is None:
            return self
        return replace(self, items=limit if self.items is None else min(limit, self.items))


# --- tasks of lm-eval ---------------------------------------------------------------------------------------
class TaskSize(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size of an lm-eval task, a line of evals/tasks/sizes.toml: number of `items`, tokens of a `prompt` without
    few-shot examples, of one few-shot example (`shot`) and of an `answer`, and number of `choices` per item."""

    items: int
    prompt: int
    shot: int
    answer: int = 0
    choices: int = 1

    def context(self, shots: int) -> int:
        """Number of tokens before the answer, with `shots` few-shot examples."""
        return self.prompt + shots * self.shot


@lru_cache
def sizes() -> dict[str, TaskSize]:
    """Name -> size of lm-eval tasks, read from evals/tasks/sizes.toml."""
    return msgspec.toml.decode(SIZES.read_bytes(), type=dict[str, TaskSize])


# --- decoding -----------------------------------------------------------------------------------------------
def forwards_a_step(sampler: Sampler, steps: int) -> float:
    """Number of forward passes with which a sampler decodes a block in `steps` steps.

    Guidance doubles the number, final noise removal adds one, and a corrector adds one per sweep between two steps.
    """
    if isinstance(sampler, ProcessedSampler):
        return forwards_a_step(sampler.rule, steps) * (2 if isinstance(sampler.shape, Guided) else 1)
    if isinstance(sampler, Tail):
        return forwards_a_step(sampler.rule, steps) + 1
    if isinstance(sampler, Corrected):
        return forwards_a_step(sampler.rule, steps) + sampler.sweeps * (steps - 1)
    return steps


def decoding(sampler: Sampler, plan: Plan, prompt: int, causal: bool) -> Workload:
    """Workload of generating one text of `plan.gen_length` tokens after a prompt of `prompt` tokens; `causal`: by an
    autoregressive model with a KV cache."""
    width, block = prompt + plan.gen_length, plan.block_length
    if causal:
        return Workload(
            items=1,
            forwards=plan.gen_length,
            tokens=width,
            keys=width**2 / 2,
            heads=plan.gen_length,
        )
    blocks, assumed = plan.gen_length // block, ()
    if plan.steps is not None:
        steps = plan.steps // blocks
    elif isinstance(sampler.innermost, FirstHitting):
        steps = block
    else:
        rate = CANVAS if isinstance(sampler.innermost, Renoise) else PARALLEL
        steps, assumed = max(1, round(block / rate)), (f"adaptive rules commit {rate:g} tokens a forward",)
    quotas = quota_processor(sampler)
    if quotas is not None:  # a step whose quota is 0 takes no forward
        steps = sum(count > 0 for count in quotas.counts(block, steps))
    each = forwards_a_step(sampler, steps)
    kept, tokens = plan.cache_policy(), 0.0
    for number in range(blocks):
        seen = width
        whole = each
        if kept is not None:
            seen = width - prompt - number * block if kept.reach == "onward" else block
            whole = each / steps * (1 if kept.refresh is None else -(-steps // (kept.refresh + 1)))
        tokens += whole * width + (each - whole) * seen
    forwards = each * blocks
    return Workload(
        items=1,
        forwards=forwards,
        tokens=tokens,
        keys=tokens * width,
        heads=forwards * block,
        assumed=assumed,
    )


def of_texts(
    items: int | None, model: Model, sampler: Sampler | None, plan: Plan | None, prompt: int
) -> Workload:
    """Workload of generating `items` texts with a sampler and its decoding plan, after prompts of `prompt` tokens."""
    assert sampler is not None and plan is not None, "a task that generates text is asked with a sampler"
    causal = model.recipe.process.causal
    each = decoding(sampler, plan, prompt, causal)
    redraws = model.recipe.process.redraws
    drawn = DRAWN["uniform"] * each.heads if redraws else DRAWN["absorbing"] * plan.gen_length
    return replace(each, items=items, drawn=drawn)


# --- likelihoods --------------------------------------------------------------------------------------------
def of_answers(size: TaskSize, shots: int, estimator: Estimator, model: Model) -> Workload:
    """Workload of the likelihoods of all answer choices of an lm-eval task's items, with `shots` few-shot examples.

    Per choice: the estimator's forwards, and under absorbing noise one more per token of the answer for lm-eval's
    `is_greedy`; guidance doubles both.
    """
    if isinstance(estimator, GuidedLikelihood):
        plain = of_answers(size, shots, estimator.rule, model)
        twice = {name: 2 * getattr(plain, name) for name in ("forwards", "tokens", "keys", "heads")}
        return replace(plain, **twice)
    length = size.context(shots) + size.answer
    draws = estimator.max_forwards(size.answer)
    if model.recipe.process.masks:
        draws += size.answer
    forwards = draws * size.choices
    return Workload(
        items=size.items,
        forwards=forwards,
        tokens=forwards * length,
        keys=forwards * length**2,
        heads=forwards * size.answer,
    )
