"""What a question costs before it is asked: forwards, tokens through the network, and hours on a stated device.

    decoding(sampler, plan, prompt, causal)    one text: forwards and token-forwards, at most where a rule stops early
    seconds(effort, network, device, batch)    time by arithmetic
    fitting_batch(network, length, free)       rows of a forward that fit in free memory

A forward of N tokens that sees K keys a token takes 2 N (blocks) + 4 N K (layers) (width) FLOPs, and its logits
2 (width) (vocabulary) at each position where they are asked; it cannot be faster than reading the weights once a batch.
Draws move bytes beside that. Tokenisation and judges are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from repro.backbones.backbone import Size
from repro.checkpoints import Shape
from repro.evals.likelihoods.guided import GuidedLikelihood
from repro.evals.likelihoods.likelihood import Estimator
from repro.files import ROOT
from repro.parts import nearest
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform
from repro.recipes.plan import PEAK, UTILISATION
from repro.samplers.corrector import Corrected
from repro.samplers.hitting import FirstHitting
from repro.samplers.plan import Plan
from repro.samplers.renoise import Renoise
from repro.samplers.sampler import Sampler
from repro.samplers.shapes import Guided, Shaped
from repro.samplers.tail import Tail

if TYPE_CHECKING:
    from repro.evals.task import Ask
    from repro.models import Model, Precision

SIZES = ROOT / "evals" / "tasks" / "sizes.toml"
PARALLEL = 2.5
"""Tokens a forward of a rule that commits by confidence: what Fast-dLLM's table 1 gains on GSM8K at length 256."""
CANVAS = 28.9
"""The same of DiffusionGemma's rule: dllm's page, GSM8K."""
MOST = 256
"""Rows of a forward at most, however small they are."""
DRAWN = {"uniform": 190, "absorbing": 95}
"""Bytes that a draw in float64 moves for each id of the vocabulary (counted, tests/test_draws_cost.py): uniform noise
draws a posterior at every position of every forward, absorbing noise the prediction once a position."""
SPARE = 0.8
"""Share of the free memory that a batch may take: the rest is the allocator's slack."""


@dataclass(frozen=True, kw_only=True)
class Effort:
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
    def of_rows(cls, items: int, forwards: float, length: int) -> Effort:
        """Whole rows of `length`, logits at every position."""
        tokens = forwards * length
        return cls(items=items, forwards=forwards, tokens=tokens, keys=tokens * length, heads=tokens)

    def limited(self, limit: int | None) -> Effort:
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
    if isinstance(sampler, Shaped):
        return forwards_a_step(sampler.rule, steps) * (2 if isinstance(sampler.shape, Guided) else 1)
    if isinstance(sampler, Tail):
        return forwards_a_step(sampler.rule, steps) + 1
    if isinstance(sampler, Corrected):
        return forwards_a_step(sampler.rule, steps) + sampler.sweeps * (steps - 1)
    return steps


def decoding(sampler: Sampler, plan: Plan, prompt: int, causal: bool) -> Effort:
    """One text of `plan.gen_length` after `prompt` ids; `items` is 1."""
    width, block = prompt + plan.gen_length, plan.block_length
    if causal:
        return Effort(
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
    return Effort(
        items=1,
        forwards=forwards,
        tokens=tokens,
        keys=tokens * width,
        heads=forwards * block,
        assumed=assumed,
    )


def of_texts(items: int | None, model: Model, ask: Ask, prompt: int) -> Effort:
    """Texts as a question's sampler and plan make them, `prompt` ids before each."""
    assert ask.sampler is not None and ask.plan is not None
    causal = isinstance(model.recipe.process, LeftToRight)
    each = decoding(ask.sampler, ask.plan, prompt, causal)
    if isinstance(model.recipe.process, Uniform):
        drawn = DRAWN["uniform"] * each.heads
    else:
        drawn = DRAWN["absorbing"] * ask.plan.gen_length
    return replace(each, items=items, drawn=drawn).limited(ask.limit)


# --- likelihoods --------------------------------------------------------------------------------------------


def of_answers(size: TaskSize, shots: int, estimator: Estimator, model: Model) -> Effort:
    """Likelihoods of every answer to a question: the estimator's forwards, and under absorbing noise one an id more for
    lm-eval's `is_greedy`; guidance doubles both."""
    if isinstance(estimator, GuidedLikelihood):
        plain = of_answers(size, shots, estimator.rule, model)
        twice = {name: 2 * getattr(plain, name) for name in ("forwards", "tokens", "keys", "heads")}
        return replace(plain, **twice)
    length = size.context(shots) + size.answer
    draws = estimator.most(size.answer)
    if isinstance(model.recipe.process, Absorbing):
        draws += size.answer
    forwards = draws * size.choices
    return Effort(
        items=size.items,
        forwards=forwards,
        tokens=forwards * length,
        keys=forwards * length**2,
        heads=forwards * size.answer,
    )


# --- devices and time ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Device:
    """`flops`: dense, at the width of numbers `value` [bytes]; `weight` [bytes] of a weight; `bandwidth` [bytes/s] and
    `memory` [bytes]."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    value: int
    weight: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """A machine in either width: dense FLOP/s of bfloat16 (`narrow`) and of float32 without TF32 (`wide`)."""

    name: str
    narrow: float
    wide: float
    bandwidth: float
    memory: float


CARDS = {
    "h100": Card(name="one H100 80 GB", narrow=PEAK, wide=67e12, bandwidth=3.35e12, memory=80e9),
    "h200": Card(name="one H200 141 GB", narrow=PEAK, wide=67e12, bandwidth=4.8e12, memory=141e9),
    "a100": Card(name="one A100 80 GB", narrow=312e12, wide=19.5e12, bandwidth=2.0e12, memory=80e9),
    "cpu": Card(name="one thread of a CPU", narrow=60e9, wide=60e9, bandwidth=10e9, memory=8e9),
}
"""Vendors' data sheets; the CPU is a guess of ours."""


def device(name: str, precision: Precision) -> Device:
    """The device of a name, weights kept in `precision` (int8: products in bfloat16, a byte for every weight).

    ValueError names the nearest.
    """
    if name not in CARDS:
        raise ValueError(f"no device {name!r}; {nearest(name, CARDS)}")
    card, wide = CARDS[name], precision == "float32"
    return Device(
        name=f"{card.name}, {precision}",
        flops=card.wide if wide else card.narrow,
        bandwidth=card.bandwidth,
        memory=card.memory,
        value=4 if wide else 2,
        weight={"float32": 4, "bfloat16": 2, "int8": 1}[precision],
    )


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a forward costs: `blocks` parameters that every token meets, `head` those of the logits; `kv_width`: of keys
    and values, `ffn`: width inside the feed-forward."""

    parameters: int
    blocks: float
    layers: int
    width: int
    kv_width: int
    ffn: int
    vocabulary: int

    @classmethod
    def of_shape(cls, shape: Shape, parameters: int) -> Network:
        return cls(
            parameters=parameters,
            blocks=shape.blocks,
            layers=shape.layers,
            width=shape.width,
            kv_width=shape.kv_width,
            ffn=shape.ffn,
            vocabulary=shape.vocabulary,
        )

    @classmethod
    def of_model(cls, model: Model) -> Network | None:
        """Of a loaded model; None for an exact denoiser, which has no network."""
        if model.weights == "exact":
            return None
        size = model.recipe.backbone.size(model.data)
        return cls.of_size(size, model.data.vocabulary().total)

    @classmethod
    def of_size(cls, size: Size, vocabulary: int) -> Network:
        """Of a backbone's own count; keys and feed-forward by the usual ratios, which only a batch asks for."""
        return cls(
            parameters=size.parameters,
            blocks=size.body_flops / 2,
            layers=size.layers,
            width=size.width,
            kv_width=size.width,
            ffn=4 * size.width,
            vocabulary=vocabulary,
        )


def flops(effort: Effort, network: Network) -> float:
    """FLOPs of one item."""
    blocks = 2 * network.blocks * effort.tokens
    attention = 4 * network.layers * network.width * effort.keys
    return blocks + attention + 2 * network.width * network.vocabulary * effort.heads


def seconds(effort: Effort, network: Network, device: Device, batch: int) -> float:
    """Seconds of one item where `batch` are forwarded together: the slower of arithmetic and reading the weights, and
    the bytes of its draws at the full bandwidth."""
    arithmetic = flops(effort, network) / device.flops
    reading = effort.forwards / batch * network.parameters * device.weight / device.bandwidth
    drawing = effort.drawn * network.vocabulary / device.bandwidth
    return max(arithmetic, reading) / UTILISATION + drawing


# --- batches ------------------------------------------------------------------------------------------------


def row_bytes(network: Network, length: int, positions: int, value: int, cached: bool) -> int:
    """Bytes of one row of a forward without gradients: residual and normed states, queries, keys, values and the
    feed-forward of one layer, a mask, logits in float32 and probabilities in float64 at `positions`, kept keys."""
    states = length * value * (6 * network.width + 2 * network.kv_width + 3 * network.ffn)
    logits = positions * network.vocabulary * (4 + 8)
    kept = 2 * network.layers * network.kv_width * length * value if cached else 0
    return states + length * length * value + logits + kept


def fitting_batch(
    network: Network, length: int, free: float, *, positions: int, value: int, cached: bool = False
) -> int:
    """Rows of `length` that fit in `free` bytes beside the loaded weights: a power of two from 1 to MOST."""
    rows = SPARE * free / row_bytes(network, length, positions, value, cached)
    batch = 1
    while 2 * batch <= min(rows, MOST):
        batch *= 2
    return batch


def rows_at_once(effort: Effort, network: Network, free: float, value: int) -> int:
    """Rows of a question's forward that fit in `free` bytes beside the weights, numbers of `value` bytes; a cache's
    keys are counted where forwards see more than they send."""
    length = round(effort.keys / effort.tokens)
    positions = round(effort.heads / effort.forwards)
    cached = effort.tokens < effort.forwards * length
    return fitting_batch(network, length, free, positions=positions, value=value, cached=cached)
