"""The one decoding loop. Rules (`repro.samplers.sampler`) differ only in how they turn a state into the next ids.

    decoded = decode(denoiser, process, sampler, plan, prompts, seed=0, names=[0, 1])
    decoded.ids [B, gen_length], decoded.cost.forwards [B]

The loop keeps prompts fixed, walks blocks left to right, gives each block its own time from 1 to 0, stops a block as
soon as nothing is open, lets ended rows leave the batch, counts what was really forwarded, and asserts that no noise is
left. Prompts of unequal length are left-padded; columns are physical, positions count from a row's own start, and
draws are keyed by row and position, so a row decodes alike in any batch.

`repro.samplers.law` runs the same steps with every draw enumerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from repro.core import registry, rng
from repro.core.lazy import torch
from repro.processes.process import Process, diffusion
from repro.samplers.decoded import Advanced, Cost, Decoded, Frame, StepIndex
from repro.samplers.plan import Plan, check
from repro.samplers.sampler import Sampler, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.models.prediction import DecodingCache, Prediction
    from repro.samplers.draws import Draw


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
        if plan.kept() is not None and not denoiser.supports_kv_cache:
            raise ValueError("this denoiser has no keys and values to keep; leave out the cache")
        if denoiser.required_block_size not in (None, plan.block_length):
            raise ValueError(
                f"this network writes blocks of {denoiser.required_block_size}, not {plan.block_length};"
                f" set block_length={denoiser.required_block_size}"
            )
        self.denoiser, self.process, self.sampler, self.plan = denoiser, process, sampler, plan
        self.causal = process.causal
        self.revises = registry.part_name(type(process)) in sampler.capabilities.revises
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
        self.column = torch.arange(self.width, device=self.device)

    def begin(self, draw: Draw, ids: Tensor) -> Tensor:
        """The ids at t = 1: prompts, then draws of the prior (a sure prior, all mask, draws nothing)."""
        if self.causal:
            return ids
        where = self._columns(ids, self.start, self.width)
        law = diffusion(self.process).prior(self.denoiser.vocabulary).to(self.device)
        if law.max() == 1:
            return torch.where(where, law.argmax(), ids)
        rows, columns = where.nonzero(as_tuple=True)
        ids = ids.clone()
        ids[where] = draw(law.expand(len(rows), -1), rng.PRIOR, rows, columns - self._pads(ids)[rows], 0)
        return ids

    def schedule(self) -> Iterator[StepIndex]:
        """Every step of the plan; an adaptive rule has one a position."""
        blocks = self.plan.gen_length // self.plan.block_length
        steps = self.plan.block_length if self.plan.steps is None else self.plan.steps // blocks
        return (StepIndex(block, i, steps) for block in range(blocks) for i in range(steps))

    def window(self, block: int) -> slice:
        """The columns of a block."""
        first = self.start + block * self.plan.block_length
        return slice(first, first + self.plan.block_length)

    def advance(
        self,
        ids: Tensor,
        memory: Tensor | None,
        at: StepIndex,
        draw: Draw,
        pad: Tensor | None = None,
        kept: DecodingCaches | None = None,
    ) -> Advanced:
        """One step: ids [B, L] and the rule's memory -> the next ones and the step's cost; pure but for what is `kept`.

        `pad` [B]: left padding of these rows, when they are not all that were laid out.
        """
        block, i, steps = at
        pad = self._pads(ids) if pad is None else pad
        active, open = self._block(ids, block), self.open(ids, block)
        if self.causal:
            open = self._columns(ids, self.window(block).start + i, self.window(block).start + i + 1)
        t = torch.full((len(ids),), self.sampler.time(i, steps), dtype=torch.float64, device=self.device)
        s = torch.full_like(t, self.sampler.time(i + 1, steps))
        length = self.plan.block_length
        predictions: list[Prediction] = []

        def forward(ids: Tensor, t: Tensor) -> Prediction:
            store = None if kept is None else kept(len(predictions))
            predictions.append(self.prediction(ids, at, t, pad, store))
            return predictions[-1]

        state = State(
            ids=ids,
            active=active,
            open=open,
            t=t,
            s=s,
            quota=length // steps
            + (i < length % steps),  # LLaDA: the rest goes to the first steps (docs/method.md#llada-sampling)
            step=i,
            steps=steps,
            process=self.process,
            prediction=forward(ids, t),
            memory=memory,
            _draw=draw,
            _pad=pad,
            _forward=forward,
            prompt=self._columns(ids, 0, self.start),
        )
        after = self.sampler.step(state)
        cost = Cost.empty(len(ids), self.device)
        for number, made in enumerate(predictions):
            cost.forwards += made.forwarded
            cost.further += made.forwarded if number else 0
            cost.refreshes += made.refreshed
            cost.token_forwards += made.token_forwards()
        cost.writes += (after != ids).sum(1)
        return Advanced(after, state.memory, cost, predictions[0], t)

    def open(self, ids: Tensor, block: int) -> Tensor:
        """Positions of a block that are still undecided, [B, L]."""
        return self.process.open(ids, self._block(ids, block), self.denoiser.vocabulary)

    def decided(self, ids: Tensor, block: int) -> Tensor:
        """[B] whether nothing is left to decide in a block; a rule that revises decides until its plan ends."""
        open = self.open(ids, block)
        return open.new_zeros(len(ids)) if self.revises else ~open.any(1)

    def ended(self, ids: Tensor, at: StepIndex) -> tuple[Tensor, Tensor]:
        """[B] whether a row holds an id that ends it with nothing undecided before, and the column of that id."""
        found = torch.zeros_like(ids, dtype=torch.bool)
        for stop in self.plan.ends():
            found |= ids == stop
        found &= self._reached(ids, at)
        first = torch.where(found, self.column, self.width).amin(1)
        if self.causal or at.step + 1 == at.steps:
            return first < self.width, first
        before = self.open(ids, at.block) & (self.column < first[:, None])
        return (first < self.width) & ~before.any(1), first

    def written(self, ids: Tensor, at: StepIndex) -> Tensor:
        """Generated positions that are decided after a step, [B, L]."""
        reached = self._reached(ids, at)
        return reached if self.causal or at.step + 1 == at.steps else reached & ~self.open(ids, at.block)

    def _reached(self, ids: Tensor, at: StepIndex) -> Tensor:
        """Generated positions up to the end of the block (of a left-to-right model: up to the step's), [B, L]."""
        window = self.window(at.block)
        return self._columns(ids, self.start, window.start + at.step + 1 if self.causal else window.stop)

    def _block(self, ids: Tensor, block: int) -> Tensor:
        window = self.window(block)
        return self._columns(ids, window.start, window.stop)

    def _columns(self, ids: Tensor, first: int, last: int) -> Tensor:
        return ((self.column >= first) & (self.column < last)).expand_as(ids)

    def _pads(self, ids: Tensor) -> Tensor:
        """Left padding of each row (an enumeration runs many states of one prompt)."""
        return self.pad if len(ids) == len(self.pad) else self.pad.expand(len(ids))

    def prediction(
        self, ids: Tensor, at: StepIndex, t: Tensor, pad: Tensor, kept: DecodingCache | None
    ) -> Prediction:
        """The prediction for ids whose block is at time t [B]; what is before is clean, what comes after pure noise.

        `pad` [B] left padding of these rows; `kept`: keys and values of before (None: everything is forwarded).
        """
        from repro.models.attention import Mask
        from repro.models.prediction import CachedPrediction, Prediction

        window, padded = self.window(at.block), bool(self.pad.any())
        if self.causal:
            window = slice(window.start + at.step, window.start + at.step + 1)
        mask = Mask(self.column >= pad[:, None] if padded else None)
        positions = (self.column - pad[:, None]).clamp_min(0) if padded or kept is not None else None
        times = (self.column >= window.start).to(t.dtype).expand(ids.shape).clone()
        times[:, window] = t[:, None]
        if kept is None and self.causal:
            kept = self.stores(len(ids))(0)
        if kept is None:
            return Prediction(self.denoiser, ids, times, mask, positions)
        return CachedPrediction(self.denoiser, ids, times, mask, positions, kept, window)

    def stores(self, rows: int) -> DecodingCaches:
        """What is kept from step to step for `rows` rows."""
        return DecodingCaches(self, rows)


class DecodingCaches:
    """Keys and values kept for each forward of a step: the first, and further ones, which see other ids."""

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.decoder, self.rows = decoder, rows
        self.stores: dict[int, DecodingCache] = {}

    def __call__(self, number: int) -> DecodingCache:
        from repro.models.prediction import DecodingCache

        if number not in self.stores:
            cache = self.decoder.plan.kept()
            reach, refresh = ("causal", None) if cache is None else (cache.reach, cache.refresh)
            width, device = self.decoder.width, self.decoder.device
            self.stores[number] = DecodingCache(self.rows, width, reach, refresh, device)
        return self.stores[number]

    def begin_block(self) -> None:
        for store in self.stores.values():
            store.begin_block()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these [n]."""
        self.rows = len(rows)
        for store in self.stores.values():
            store.keep(rows)


def steps(
    denoiser: Denoiser,
    process: Process,
    sampler: Sampler,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    names: Sequence[int],
    confidence: bool = False,
) -> Iterator[tuple[Decoder, Frame]]:
    """Decode step by step: yields (decoder, frame) after each step of an unfinished block.

    `confidence`: frames tell what the network gave to each written token, which costs a head there.
    """
    from repro.samplers.draws import Stream

    decoder = Decoder(denoiser, process, sampler, plan, prompts)
    rows = torch.tensor(list(names), dtype=torch.int64, device=decoder.device)
    cost = Cost.empty(len(rows), decoder.device)
    with torch.no_grad():
        ids = decoder.begin(Stream(seed, rows, -1), decoder.ids)
        here, memory = torch.arange(len(rows), device=decoder.device), sampler.start(ids)
        kept = decoder.stores(len(rows)) if decoder.causal or plan.kept() is not None else None
        for number, at in enumerate(decoder.schedule()):
            if len(here) == 0:
                return
            if kept is not None and at.step == 0:
                kept.begin_block()
            if sampler.capabilities.plan != "quota" and decoder.decided(ids[here], at.block).all():
                continue
            draw = Stream(seed, rows[here], number)
            after = decoder.advance(ids[here], memory, at, draw, decoder.pad[here], kept)
            memory, new = after.memory, after.ids
            cost.add(after.cost, here)
            changed = torch.zeros_like(ids, dtype=torch.bool)
            changed[here] = new != ids[here]
            sure = _confidence(after, changed, here) if confidence else None
            before = ids
            ids = ids.index_copy(0, here, new)
            if plan.ends():
                ended, column = decoder.ended(new, at)
                if ended.any():
                    rest = ended[:, None] & (decoder.column > column[:, None])
                    cost.filled[here] += (rest & ~decoder.written(new, at)).sum(1)
                    ids[here] = torch.where(
                        rest, new.gather(1, column.clamp_max(decoder.width - 1)[:, None]), new
                    )
                    stay = (~ended).nonzero()[:, 0]
                    here, memory = here[stay], None if memory is None else memory[stay]
                    if kept is not None:
                        kept.keep(stay)
            yield decoder, Frame(ids, changed, cost, at, sure, before, after)


def _confidence(after: Advanced, changed: Tensor, here: Tensor) -> Tensor:
    """What the prediction of a step gave to each token that it wrote, [B, L] float64, 0 elsewhere."""
    found = torch.zeros(changed.shape, dtype=torch.float64, device=changed.device)
    where = changed[here]
    given = after.prediction.probs(where).gather(1, after.ids[where][:, None])[:, 0]
    found[here] = torch.zeros(where.shape, dtype=torch.float64, device=where.device).masked_scatter(
        where, given
    )
    return found


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
    frame, decoder = None, None
    for decoder, frame in steps(denoiser, process, sampler, plan, prompts, seed=seed, names=names):  # noqa: B007
        pass
    assert frame is not None and decoder is not None
    out = frame.ids[:, decoder.start :]
    assert not decoder.denoiser.forbidden.to(out.device)[out].any(), "noise is left after the last step"
    assert (frame.ids[:, : decoder.start] == decoder.ids[:, : decoder.start]).all(), "a prompt was changed"
    stop = torch.zeros_like(out, dtype=torch.bool)
    for end in plan.ends() or ([] if denoiser.vocabulary.eos is None else [denoiser.vocabulary.eos]):
        stop |= out == end
    useful = torch.where(stop, torch.arange(out.shape[1], device=out.device), out.shape[1]).amin(1)
    return Decoded(out, frame.cost, useful)
