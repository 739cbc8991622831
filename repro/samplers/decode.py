"""The one decoding loop. Rules (`repro.samplers.sampler`) differ only in how they turn a state into the next ids.

    decoded = decode(denoiser, process, sampler, plan, prompts, seed=0, names=[0, 1])
    decoded.ids [B, gen_length], decoded.forwards [B]

The loop keeps prompts fixed, walks blocks left to right, gives each block its own time from 1 to 0, stops a block as
soon as nothing is open, counts what was really forwarded, and asserts that no noise is left. Prompts of unequal length
are left-padded; columns are physical, positions count from a row's own start, and draws are keyed by row and position,
so a row decodes alike in any batch.

`repro.samplers.law` runs the same steps with every draw enumerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from repro import parts, registry, rng
from repro.lazy import torch
from repro.parts import Part, part
from repro.processes.left_to_right import LeftToRight
from repro.processes.process import Diffusion, Process
from repro.samplers.sampler import Sampler, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.denoiser import Denoiser
    from repro.backbones.prediction import Prediction
    from repro.samplers.draws import Draw


@part
class Plan(Part):
    """How much is generated and in how many steps: `steps` over all blocks, or None for an adaptive rule."""

    gen_length: int
    block_length: int
    steps: int | None


def check(sampler: Sampler, process: Process, plan: Plan) -> None:
    """Raise ValueError, naming the remedy, when the rule does not fit the process or the plan cannot be had."""
    name, noise = registry.part_name(type(sampler)), registry.part_name(type(process))
    abilities = sampler.abilities
    if noise not in abilities.processes:
        raise ValueError(
            f"sampler {name!r} is for {' and '.join(sorted(abilities.processes))} models; this one is {noise}"
        )
    if plan.gen_length < 1 or plan.block_length < 1 or plan.gen_length % plan.block_length:
        raise ValueError(f"gen_length {plan.gen_length} is no multiple of block_length {plan.block_length}")
    if abilities.plan == "adaptive":
        if plan.steps is not None:
            raise ValueError(f"sampler {name!r} is adaptive: it takes no number of steps (got {plan.steps})")
        return
    blocks = plan.gen_length // plan.block_length
    if plan.steps is None or plan.steps < blocks or plan.steps % blocks:
        raise ValueError(f"steps {plan.steps} must be a positive multiple of the number of blocks, {blocks}")
    if plan.steps > plan.gen_length and abilities.plan == "quota":
        raise ValueError(
            f"steps {plan.steps} exceed gen_length {plan.gen_length}: {name!r} commits one a step at least"
        )
    if noise == "left_to_right" and plan.steps != plan.gen_length:
        raise ValueError(f"a left-to-right model writes one token a step: steps must be {plan.gen_length}")


class Moment(NamedTuple):
    """A step of the plan: its block, its number within the block, and the block's steps."""

    block: int
    step: int
    steps: int


class Advanced(NamedTuple):
    """After a step: ids [B, L], the rule's memory [B, M], forwards [B] and token-forwards [B] of the step."""

    ids: Tensor
    memory: Tensor | None
    forwards: Tensor
    token_forwards: Tensor


@dataclass(frozen=True)
class Frame:
    """What the loop shows after each step: ids [B, L], what changed [B, L], forwards so far [B]."""

    ids: Tensor
    changed: Tensor
    forwards: Tensor


@dataclass(frozen=True)
class Decoded:
    """Generated ids [B, gen_length]; forwards [B]; token-forwards [B] (tokens that went through the network)."""

    ids: Tensor
    forwards: Tensor
    token_forwards: Tensor


class Decoder:
    """A denoiser, a rule and a plan, laid out for some prompts (`pad` [B] columns of left padding)."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: Process,
        sampler: Sampler,
        plan: Plan,
        prompts: Sequence[Sequence[int]],
    ) -> None:
        check(sampler, process, plan)
        self.denoiser, self.process, self.sampler, self.plan = denoiser, process, sampler, plan
        self.causal = isinstance(process, LeftToRight)
        vocabulary = denoiser.vocabulary
        if self.causal:
            if vocabulary.bos is None:
                raise ValueError("a left-to-right model needs a BOS id and this data source has none")
            prompts = [[vocabulary.bos, *prompt] for prompt in prompts]
        self.start = max(len(prompt) for prompt in prompts)
        self.width = self.start + plan.gen_length
        self.device = denoiser.home
        self.pad = torch.tensor([self.start - len(prompt) for prompt in prompts], device=self.device)
        # what a column without token holds never reaches the output: attention hides it
        filler = vocabulary.mask if vocabulary.mask is not None else 0
        rows = [[filler] * (self.start - len(p)) + list(p) + [filler] * plan.gen_length for p in prompts]
        self.ids = torch.tensor(rows, dtype=torch.int64, device=self.device)

    def pads(self, rows: int) -> Tensor:
        """Left padding of each row, [rows] (an enumeration runs many states of one prompt)."""
        return self.pad if rows == len(self.pad) else self.pad.expand(rows)

    def begin(self, draw: Draw, ids: Tensor) -> Tensor:
        """The ids at t = 1: prompts, then draws of the prior (a sure prior, all mask, draws nothing)."""
        if not isinstance(self.process, Diffusion):
            return ids
        where = self._columns(ids, self.start, self.width)
        law = self.process.prior(self.denoiser.vocabulary).to(self.device)
        if law.max() == 1:
            return torch.where(where, law.argmax(), ids)
        rows, columns = where.nonzero(as_tuple=True)
        ids = ids.clone()
        ids[where] = draw(law.expand(len(rows), -1), rng.PRIOR, rows, columns - self.pads(len(ids))[rows], 0)
        return ids

    def schedule(self) -> Iterator[Moment]:
        """Every step of the plan; an adaptive rule has one a position."""
        blocks = self.plan.gen_length // self.plan.block_length
        steps = self.plan.block_length if self.plan.steps is None else self.plan.steps // blocks
        return (Moment(block, i, steps) for block in range(blocks) for i in range(steps))

    def advance(
        self, ids: Tensor, memory: Tensor | None, at: Moment, draw: Draw, cache: Prediction | None = None
    ) -> Advanced:
        """One step: ids [B, L] and the rule's memory -> the next ones and the step's cost; pure but for `cache`."""
        from repro.backbones.prediction import CausalPrediction

        block, i, steps = at
        first = self.start + block * self.plan.block_length
        active = self._columns(ids, first, first + self.plan.block_length)
        open = self.process.open(ids, active, self.denoiser.vocabulary)
        if self.causal:
            open = self._columns(ids, first + i, first + i + 1)
        t = torch.full((len(ids),), self.sampler.time(i / steps), dtype=torch.float64, device=self.device)
        s = torch.full_like(t, self.sampler.time((i + 1) / steps))
        length = self.plan.block_length
        quota = length // steps + (i < length % steps)  # LLaDA: extra tokens go to the first steps (spec B.4)
        prediction = cache
        if prediction is None:
            prediction = self.cached(len(ids)) if self.causal else self._prediction(ids, first, t)
        if isinstance(prediction, CausalPrediction):
            prediction.read(ids)
        predictions = [prediction]

        def forward(ids: Tensor, t: Tensor) -> Prediction:
            predictions.append(self._prediction(ids, first, t))
            return predictions[-1]

        state = State(
            ids=ids,
            active=active,
            open=open,
            t=t,
            s=s,
            quota=quota,
            step=i,
            steps=steps,
            process=self.process,
            prediction=prediction,
            memory=memory,
            _draw=draw,
            _pad=self.pads(len(ids)),
            _forward=forward,
        )
        after = self.sampler.step(state)
        forwards, tokens = torch.zeros_like(self.pads(len(ids))), torch.zeros_like(self.pads(len(ids)))
        for made in predictions:
            forwards, tokens = forwards + made.forwarded, tokens + made.token_forwards()
        return Advanced(after, state.memory, forwards, tokens)

    def finished(self, ids: Tensor, block: int) -> bool:
        """Whether nothing is left to decide in a block; a rule that revises decides until its plan ends."""
        if registry.part_name(type(self.process)) in self.sampler.abilities.revises:
            return False
        first = self.start + block * self.plan.block_length
        active = self._columns(ids, first, first + self.plan.block_length)
        return not self.process.open(ids, active, self.denoiser.vocabulary).any()

    def _columns(self, ids: Tensor, first: int, last: int) -> Tensor:
        column = torch.arange(self.width, device=self.device)
        return ((column >= first) & (column < last)).expand_as(ids)

    def _prediction(self, ids: Tensor, first: int, t: Tensor) -> Prediction:
        """The prediction for ids whose block from column `first` is at time t [B]; what is before is clean, what comes
        after it pure noise."""
        from repro.backbones.attention import Mask
        from repro.backbones.prediction import Prediction

        column = torch.arange(self.width, device=self.device)
        padded = bool(self.pad.any())
        valid = column >= self.pad[:, None] if padded else None
        positions = (column - self.pad[:, None]).clamp_min(0) if padded else None
        times = (column >= first).to(t.dtype).expand(ids.shape).clone()
        times[:, first : first + self.plan.block_length] = t[:, None]
        return Prediction(self.denoiser, ids, times, Mask(valid), positions)

    def cached(self, rows: int) -> Prediction:
        """The prediction of a causal network that keeps its keys and values from step to step."""
        from repro.backbones.prediction import CausalPrediction

        return CausalPrediction(self.denoiser, self.width, self.pads(rows))


def steps(
    denoiser: Denoiser,
    process: Process,
    sampler: Sampler,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    names: Sequence[int],
) -> Iterator[tuple[Decoder, Frame, Tensor]]:
    """Decode step by step: yields (decoder, frame, token-forwards [B]) after each step of an unfinished block."""
    from repro.samplers.draws import Stream

    decoder = Decoder(denoiser, process, sampler, plan, prompts)
    rows = torch.tensor(list(names), dtype=torch.int64, device=decoder.device)
    with torch.no_grad():
        ids = decoder.begin(Stream(seed, rows, -1), decoder.ids)
        memory = sampler.start(ids)
        forwards = torch.zeros_like(rows)
        tokens = torch.zeros_like(rows)
        cache = decoder.cached(len(rows)) if decoder.causal else None
        for number, at in enumerate(decoder.schedule()):
            if decoder.finished(ids, at.block):
                continue
            after = decoder.advance(ids, memory, at, Stream(seed, rows, number), cache)
            forwards, tokens = forwards + after.forwards, tokens + after.token_forwards
            frame = Frame(after.ids, after.ids != ids, forwards)
            ids, memory = after.ids, after.memory
            yield decoder, frame, tokens


def decode(
    denoiser: Denoiser,
    process: Process,
    sampler: Sampler,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    names: Sequence[int],
) -> Decoded:
    """Decode a batch. `names` are the rows' numbers in the global stream (two batches share none of their draws).

    Raises ValueError when rule, process and plan do not fit.
    """
    frame, decoder, tokens = None, None, None
    for decoder, frame, tokens in steps(denoiser, process, sampler, plan, prompts, seed=seed, names=names):  # noqa: B007
        pass
    assert frame is not None and decoder is not None and tokens is not None
    out = frame.ids[:, decoder.start :]
    assert not decoder.denoiser.forbidden.to(out.device)[out].any(), "noise is left after the last step"
    assert (frame.ids[:, : decoder.start] == decoder.ids[:, : decoder.start]).all(), "a prompt was changed"
    return Decoded(out, frame.forwards, tokens)


def describe(sampler: Sampler) -> str:
    """A sampler's pins in one line, for listings."""
    pins = ", ".join(f"{name}={value}" for name, value in parts.leaves(sampler).items() if name)
    return f"{registry.part_name(type(sampler))}({pins})"
