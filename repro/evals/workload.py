"""What a question costs before it is asked: forwards, tokens through the network, logits and draws.

decoding(sampler, plan, prompt, causal)    one text: forwards and token-forwards, at most where a rule stops early
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
from repro.samplers.renoise import Renoise
from repro.samplers.sampler import Sampler
from repro.samplers.tail import Tail

if TYPE_CHECKING:
    from repro.evals.task import Ask
    from repro.model import Model

SIZES = ROOT / "evals" / "tasks" / "sizes.toml"
PARALLEL = 2.5
"""Tokens a forward of a rule that commits by confidence: what Fast-dLLM's table 1 gains on GSM8K at length 256."""
CANVAS = 28.9
"""The same of DiffusionGemma's rule: dllm's page, GSM8K."""
DRAWN = {"uniform": 190, "absorbing": 95}
"""Bytes that a draw in float64 moves for each id of the vocabulary (counted, tests/evals/test_workload.py): uniform
noise draws a posterior at every position of every forward, absorbing noise the prediction once a position."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The cost of one item, and how many there are (None: nobody has counted them).

    `forwards` of single rows; `tokens` that go through the network in them; `keys`: tokens times what each sees;
    `heads`: positions whose logits are made; `drawn`: bytes that draws move for each id of the vocabulary; `assumed`:
    what the numbers rest on, in words.
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
        """Whole rows of `length`, logits at every position."""
        tokens = forwards * length
        return cls(items=items, forwards=forwards, tokens=tokens, keys=tokens * length, heads=tokens)

    def limited(self, limit: int | None) -> Workload:
        """The same of at most `limit` items."""
        if limit is None:
            return self
        return replace(self, items=limit if self.items is None else min(limit, self.items))


# --- tasks of lm-eval ---------------------------------------------------------------------------------------
class TaskSize(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of evals/tasks/sizes.toml."""

    items: int
    prompt: int
    shot: int
    answer: int = 0
    choices: int = 1

    def context(self, shots: int) -> int:
        """Ids before the answer."""
        return self.prompt + shots * self.shot


@lru_cache
def sizes() -> dict[str, TaskSize]:
    """Sizes of lm-eval's tasks by name."""
    return msgspec.toml.decode(SIZES.read_bytes(), type=dict[str, TaskSize])


# --- decoding -----------------------------------------------------------------------------------------------
def forwards_a_step(sampler: Sampler, steps: int) -> float:
    """Forwards of a block of `steps` steps: guidance doubles them, removal adds one, correction one a sweep."""
    if isinstance(sampler, ProcessedSampler):
        return forwards_a_step(sampler.rule, steps) * (2 if isinstance(sampler.shape, Guided) else 1)
    if isinstance(sampler, Tail):
        return forwards_a_step(sampler.rule, steps) + 1
    if isinstance(sampler, Corrected):
        return forwards_a_step(sampler.rule, steps) + sampler.sweeps * (steps - 1)
    return steps


def decoding(sampler: Sampler, plan: Plan, prompt: int, causal: bool) -> Workload:
    """One text of `plan.gen_length` after `prompt` ids; `items` is 1."""
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
    each = forwards_a_step(sampler, steps)
    kept, tokens = plan.kept(), 0.0
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


def of_texts(items: int | None, model: Model, ask: Ask, prompt: int) -> Workload:
    """Texts as a question's sampler and plan make them, `prompt` ids before each."""
    assert ask.sampler is not None and ask.plan is not None
    causal = model.recipe.process.causal
    each = decoding(ask.sampler, ask.plan, prompt, causal)
    redraws = model.recipe.process.redraws
    drawn = DRAWN["uniform"] * each.heads if redraws else DRAWN["absorbing"] * ask.plan.gen_length
    return replace(each, items=items, drawn=drawn).limited(ask.limit)


# --- likelihoods --------------------------------------------------------------------------------------------
def of_answers(size: TaskSize, shots: int, estimator: Estimator, model: Model) -> Workload:
    """Likelihoods of every answer to a question: the estimator's forwards, and under absorbing noise one an id more for
    lm-eval's `is_greedy`; guidance doubles both."""
    if isinstance(estimator, GuidedLikelihood):
        plain = of_answers(size, shots, estimator.rule, model)
        twice = {name: 2 * getattr(plain, name) for name in ("forwards", "tokens", "keys", "heads")}
        return replace(plain, **twice)
    length = size.context(shots) + size.answer
    draws = estimator.most(size.answer)
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
