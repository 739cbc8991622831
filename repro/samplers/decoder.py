"""One decoding step: a denoiser, a sampler and a decoding plan applied to a batch of prompts of unequal length.

Prompts are left-padded so that all rows generate in the same columns. Columns index the padded batch; positions count
from the start of a row's own prompt. Random draws are keyed by row and position, so that a row decodes alike in any
batch.

Shapes: B rows of the batch, n rows still decoding, L columns (left padding, prompt, generated tokens), M numbers per
row that the sampler remembers between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.processes.left_to_right import OPEN
from repro.processes.process import Process, diffusion
from repro.samplers.decoded import Cost, StepIndex, StepResult
from repro.samplers.plan import Plan, check
from repro.samplers.sampler import Sampler, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.models.prediction import CausalCache, DecodingCache, Prediction
    from repro.samplers.draws import Draw


class Decoder:
    """Layout of a batch of prompts, and the methods that take single decoding steps.

    A decoder stays constant during a decoding run: callers pass the current ids to each method. `ids` [B, L]: B prompts
    in L columns, with the mask id (0 for a vocabulary without one) at padding and at generated columns, where a
    left-to-right model has -1 (`OPEN`). `pad` [B]: number of columns of left padding. `start` and `stop`: first
    generated column, and the column after the last one; `width`: L.

    For a block-causal network (blocks depend on no later ones, `Denoiser.block_causal`) blocks count from the first
    token of the prompt, as in its training: the first decoded block begins with the last `overlap` tokens of the
    prompt, and columns of the last block from `stop` on stay masked. Raises ValueError if sampler, noise process,
    decoding plan and denoiser cannot be combined, and for prompts with different `overlap`, which
    `repro.samplers.decode.decode` decodes in separate batches.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        process: Process,
        sampler: Sampler,
        plan: Plan,
        prompts: Sequence[Sequence[int]],
    ) -> None:
        check(sampler, process, plan)
        if plan.cache_policy() is not None and not denoiser.supports_kv_cache:
            raise ValueError(
                f"the network {type(denoiser).__name__} does not support a KV cache; leave out the cache"
            )
        if denoiser.required_block_size not in (None, plan.block_length):
            raise ValueError(
                f"this network can only decode in blocks of {denoiser.required_block_size} tokens, not"
                f" {plan.block_length}; set block_length={denoiser.required_block_size}"
            )
        self.denoiser, self.process, self.sampler, self.plan = denoiser, process, sampler, plan
        self.causal = process.causal
        self.revises = process.noise in sampler.capabilities.revises
        vocabulary = denoiser.vocabulary
        if self.causal:
            always = vocabulary.bos_rule == "row"
            prompts = [[vocabulary.first, *p] if always or not p else list(p) for p in prompts]
        self.start = max(len(prompt) for prompt in prompts)
        self.overlap, *others = {overlap(denoiser, prompt) for prompt in prompts}
        if others:
            raise ValueError(
                f"the prompts end at different places in a block of {denoiser.required_block_size} tokens; decode them"
                " with `repro.samplers.decode.decode`, which puts them in separate batches"
            )
        self.stop = self.start + plan.gen_length
        self.blocks = -(-(self.overlap + plan.gen_length) // plan.block_length)
        self.width = self.window(self.blocks - 1).stop
        self.device = denoiser.home
        self.pad = torch.tensor([self.start - len(prompt) for prompt in prompts], device=self.device)
        # padding never reaches the output, whatever its id: attention hides it
        filler = vocabulary.mask if vocabulary.mask is not None else 0
        blank = OPEN if self.causal else filler
        written = [blank] * (self.width - self.start)
        rows = [[filler] * (self.start - len(p)) + list(p) + written for p in prompts]
        self.ids = torch.tensor(rows, dtype=torch.int64, device=self.device)
        self.column = torch.arange(self.width, device=self.device)

    def begin(self, draw: Draw, ids: Tensor) -> Tensor:
        """The ids [B, L] at time t = 1: those of `ids` [B, L], with generated columns drawn by `draw` from the noise
        process's prior.

        Nothing is drawn if the prior is a single id (the mask); for a left-to-right model `ids` is returned unchanged.
        """
        if self.causal:
            return ids
        where = self._columns(ids, self.start, self.width)
        law = diffusion(self.process).prior(self.denoiser.vocabulary).to(self.device)
        if law.max() == 1:
            return torch.where(where, law.argmax(), ids)
        rows, columns = where.nonzero(as_tuple=True)
        ids = ids.clone()
        ids[where] = draw(law.expand(len(rows), -1), rng.PRIOR, rows, columns - self._padding(ids)[rows], 0)
        return ids

    def schedule(self) -> Iterator[StepIndex]:
        """Indices of all steps of the decoding plan, block by block; within each block steps count from 0.

        An adaptive sampler takes as many steps as the text needs; its indices are those of the largest possible number
        of steps, one per position.
        """
        blocks = self.plan.gen_length // self.plan.block_length
        steps = self.plan.block_length if self.plan.steps is None else self.plan.steps // blocks
        return (StepIndex(block, i, steps) for block in range(self.blocks) for i in range(steps))

    def window(self, block: int) -> slice:
        """The columns of the block number `block` (from 0)."""
        first = self.start - self.overlap + block * self.plan.block_length
        return slice(first, first + self.plan.block_length)

    def advance(
        self,
        ids: Tensor,
        memory: Tensor | None,
        at: StepIndex,
        draw: Draw,
        pad: Tensor | None = None,
        caches: DecodingCaches | None = None,
    ) -> StepResult:
        """Result of the step `at` for n rows, from their ids [n, L] and the sampler's memory [n, M] or None.

        `draw`: source of random draws; `pad` [n]: columns of left padding of these rows (None: the rows are the whole
        batch, or n versions of the ids of its single prompt); `caches`: KV caches, updated in place (None: nothing is
        cached between steps). No other argument is modified.
        """
        pad = self._padding(ids) if pad is None else pad
        if caches is None and self.causal:
            caches = DecodingCaches(self, len(ids))
        predictions: list[Prediction] = []
        present = ids

        def later(ids: Tensor, step: Tensor, prediction: Prediction | None) -> State:
            rows = torch.arange(len(ids), device=ids.device) % len(pad)
            if prediction is None:
                predictions.clear()  # the prediction of the present state was not read: it is one of `ids`
            return self._state(
                ids, at, step, draw.ahead(rows, step - at.step), pad[rows], forward, prediction
            )

        def forward(ids: Tensor, t: Tensor) -> Prediction:
            if ids is present and not any(made.forwarded.any() for made in predictions):
                predictions.clear()  # their prediction at another time takes the place of one that was not read
            cache = None if caches is None else caches[len(predictions)]
            padding = pad.repeat(len(ids) // len(pad))
            predictions.append(self.prediction(ids, at, t, padding, cache))
            return predictions[-1]

        step = torch.full((len(ids),), at.step, dtype=torch.int64, device=self.device)
        state = self._state(ids, at, step, draw, pad, forward, None)
        state.memory, state._later = memory, later
        after = self.sampler.step(state)
        cost = Cost.of(predictions, (after != ids).sum(1))
        return StepResult(after, state.memory, cost, predictions, state.t)

    def _state(
        self,
        ids: Tensor,
        at: StepIndex,
        step: Tensor,
        draw: Draw,
        pad: Tensor,
        forward: Callable[[Tensor, Tensor], Prediction],
        prediction: Prediction | None,
    ) -> State:
        """The sampler's input for ids [n, L] in the block of step `at`. `step` [n]: number of steps of this block that
        each row has taken; `draw`: source of random draws; `pad` [n]: columns of left padding; `forward(ids, t)`: makes
        a prediction; `prediction`: the prediction for these ids (None: made by `forward`)."""
        block, i, steps = at
        length = self.plan.block_length
        undecided = self.undecided(ids, block)
        if self.causal:
            undecided = undecided & (undecided.cumsum(1) == 1)
        t, s = self._times(step, steps), self._times((step + 1).clamp_max(steps), steps)
        return State(
            ids=ids,
            active=self._block(ids, block),
            undecided=undecided,
            t=t,
            s=s,
            # the remainder goes to the first steps, as in LLaDA (docs/method.md#llada-sampling)
            quota=length // steps + (i < length % steps),
            step=i,
            steps=steps,
            process=self.process,
            prediction=forward(ids, t) if prediction is None else prediction,
            memory=None,
            _draw=draw,
            _pad=pad,
            _forward=forward,
            prompt=self._columns(ids, 0, self.start),
        )

    def _times(self, step: Tensor, steps: int) -> Tensor:
        """Diffusion times [n] float64 of the sampler after `step` [n] of the `steps` steps of a block."""
        numbers, which = step.unique(return_inverse=True)
        times = [self.sampler.time(number, steps) for number in numbers.tolist()]
        return torch.tensor(times, dtype=torch.float64, device=self.device)[which]

    def prediction(
        self, ids: Tensor, at: StepIndex, t: Tensor, pad: Tensor, cache: DecodingCache | CausalCache | None
    ) -> Prediction:
        """The network's prediction for ids [n, L], computed when first read.

        The block of step `at` is at time t [n], earlier columns at time 0, later ones at 1. `pad` [n]: columns of left
        padding of these rows; `cache`: KV cache of the other columns (None: all columns go through the network).
        """
        from repro.models.attention import Mask
        from repro.models.prediction import CachedPrediction, CausalCache, CausalPrediction, Prediction

        window, padded = self.window(at.block), bool(self.pad.any())
        mask = Mask(self.column >= pad[:, None] if padded else None)
        positions = (self.column - pad[:, None]).clamp_min(0) if padded or cache is not None else None
        times = (self.column >= window.start).to(t.dtype).expand(ids.shape).clone()
        times[:, window] = t[:, None]
        if cache is None:
            return Prediction(self.denoiser, ids, times, mask, positions)
        if isinstance(cache, CausalCache):
            return CausalPrediction(self.denoiser, ids, times, mask, positions, cache)
        return CachedPrediction(self.denoiser, ids, times, mask, positions, cache, window)

    def undecided(self, ids: Tensor, block: int) -> Tensor:
        """Generated positions of block number `block` without a final token in `ids` [n, L] (masked ones; under
        uniform noise all of the block), [n, L] bool."""
        return self.process.open(ids, self._block(ids, block), self.denoiser.vocabulary)

    def decided(self, ids: Tensor, block: int) -> Tensor:
        """Whether block number `block` of each row of `ids` [n, L] needs no further step, [n] bool: no position in
        it is undecided.

        Always false for a sampler that may change a committed token.
        """
        undecided = self.undecided(ids, block)
        return undecided.new_zeros(len(ids)) if self.revises else ~undecided.any(1)

    def finished(self, ids: Tensor, at: StepIndex) -> tuple[Tensor, Tensor]:
        """Whether each row of `ids` [n, L] is finished by a stop id after the step `at`, [n] bool, and the column of
        its first stop id, [n] (L if it has none).

        A row is finished if no position before its first stop id is undecided; under a sampler that changes committed
        tokens not before the last step of a block, since until then the stop id itself may change (under uniform noise
        it may be noise).
        """
        found = torch.zeros_like(ids, dtype=torch.bool)
        for stop in self.plan.stop_ids():
            found |= ids == stop
        found &= self._columns(ids, self.start, self.window(at.block).stop)
        first = torch.where(found, self.column, self.width).amin(1)
        if at.step + 1 == at.steps:
            return first < self.width, first
        if self.revises:
            return torch.zeros_like(first, dtype=torch.bool), first
        before = self.undecided(ids, at.block) & (self.column < first[:, None])
        return (first < self.width) & ~before.any(1), first

    def written(self, ids: Tensor, at: StepIndex) -> Tensor:
        """Generated positions of `ids` [n, L] that hold a final token after the step `at`, [n, L] bool."""
        reached = self._columns(ids, self.start, self.window(at.block).stop)
        return reached if at.step + 1 == at.steps else reached & ~self.undecided(ids, at.block)

    def _block(self, ids: Tensor, block: int) -> Tensor:
        window = self.window(block)
        return self._columns(ids, max(window.start, self.start), min(window.stop, self.stop))

    def _columns(self, ids: Tensor, first: int, last: int) -> Tensor:
        return ((self.column >= first) & (self.column < last)).expand_as(ids)

    def _padding(self, ids: Tensor) -> Tensor:
        """Number of columns of left padding of each row of `ids` [n, L], [n].

        The rows are the whole batch, or n versions of the ids of a single prompt (`repro.samplers.law`), whose padding
        is repeated.
        """
        return self.pad if len(ids) == len(self.pad) else self.pad.expand(len(ids))


def overlap(denoiser: Denoiser, prompt: Sequence[int]) -> int:
    """Number of tokens at the end of `prompt` that share a block with generated ones; 0 unless the network is
    block-causal (blocks depend on no later ones)."""
    block = denoiser.required_block_size
    return len(prompt) % block if denoiser.block_causal and block else 0


class DecodingCaches:
    """The KV caches of the run of a `decoder` on `rows` rows, one cache for each forward pass that a step takes: a
    further pass in a step, such as that of guidance, has other input ids than the first and so needs its own cache.

    The caches are exact for causal and block-causal networks (blocks depend on no later ones), otherwise approximate.
    """

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.decoder, self.rows = decoder, rows
        self.caches: dict[int, DecodingCache | CausalCache] = {}

    def __getitem__(self, forward: int) -> DecodingCache | CausalCache:
        """The KV cache of forward pass number `forward` (from 0) of every step, created when first needed."""
        from repro.models.blocks import BlockCache
        from repro.models.prediction import CausalCache, DecodingCache

        if forward not in self.caches:
            policy, width, device = self.decoder.plan.cache_policy(), self.decoder.width, self.decoder.device
            kind = BlockCache if self.decoder.denoiser.block_causal else DecodingCache
            self.caches[forward] = (
                CausalCache(self.rows, width, device)
                if policy is None
                else kind(self.rows, width, policy.reach, policy.refresh, device)
            )
        return self.caches[forward]

    def begin_block(self) -> None:
        """Begin a block: with approximate caches every row recomputes its whole cache at its next forward pass."""
        for cache in self.caches.values():
            cache.begin_block()

    def select_rows(self, rows: Tensor) -> None:
        """Keep in the caches only the rows with the indices `rows` [n], as the other rows have finished."""
        self.rows = len(rows)
        for cache in self.caches.values():
            cache.select_rows(rows)
