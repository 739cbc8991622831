"""The decoding loop, shared by all samplers (`repro.samplers.sampler`), which differ only in how a step makes new ids.

    decoded = decode(denoiser, process, sampler, plan, prompts, seed=0, names=[0, 1])
    decoded.ids [B, gen_length], decoded.cost.forwards [B]                               B prompts (rows of the batch)

The loop keeps prompts fixed, decodes blocks from left to right, runs time from 1 to 0 within each block, leaves a block
as soon as nothing in it is undecided, drops finished rows from the batch, counts actual forward passes, and asserts
that no noise is left. One step is `repro.samplers.decoder.Decoder.advance`; `repro.samplers.law` runs the same steps
with every random draw enumerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.processes.process import Process
from repro.samplers.decoded import Cost, Decoded, Frame, StepResult
from repro.samplers.decoder import Decoder, DecodingCaches, overlap
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser


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
    """Continuations of a batch of `prompts` (lists of token ids), with their cost: `denoiser`, trained with the noise
    `process`, generates by the rule `sampler` as many tokens and in as many steps as `plan` says.

    `names`: one number per prompt that, with `seed`, selects its random stream; different numbers give independent
    draws.

    For a block-causal network (blocks depend on no later ones), prompts that end at different places within a block are
    decoded in separate batches. Raises ValueError if sampler, noise process, decoding plan and denoiser cannot be
    combined, and if the network's output is NaN or infinite where an id is to be chosen.
    """
    places = [overlap(denoiser, prompt) for prompt in prompts]
    if len(set(places)) > 1:
        groups = [[row for row, at in enumerate(places) if at == place] for place in sorted(set(places))]

        def apart(rows: list[int]) -> Decoded:
            some, named = [prompts[row] for row in rows], [names[row] for row in rows]
            return decode(denoiser, process, sampler, plan, some, seed=seed, names=named)

        parts = [apart(rows) for rows in groups]
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        return Decoded.joined(parts).rows(order.to(parts[0].ids.device))
    frame, decoder = None, None
    for decoder, frame in steps(denoiser, process, sampler, plan, prompts, seed=seed, names=names):  # noqa: B007
        pass
    assert frame is not None and decoder is not None
    out = frame.ids[:, decoder.start : decoder.stop]
    if decoder.denoiser.forbidden.to(out.device)[out].any():
        raise AssertionError(
            "the sampler's last step left masks or noise; its `step` must write every undecided position by then"
        )
    if not (frame.ids[:, : decoder.start] == decoder.ids[:, : decoder.start]).all():
        raise AssertionError(
            "the sampler changed a token of a prompt; its `step` may write at `state.active` only"
        )
    stop = torch.zeros_like(out, dtype=torch.bool)
    for end in plan.stop_ids() or ([] if denoiser.vocabulary.eos is None else [denoiser.vocabulary.eos]):
        stop |= out == end
    useful = torch.where(stop, torch.arange(out.shape[1], device=out.device), out.shape[1]).amin(1)
    return Decoded(out, frame.cost, useful)


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
    """Decode step by step: yields the decoder and the batch (`Frame`) after each step of an unfinished block.

    `confidence`: whether frames hold the probability of each written token. To compute it, the output layer runs at
    these positions once more; ValueError for a sampler with lookahead. All other arguments and errors are those of
    `decode`.
    """
    from repro.samplers.draws import Stream

    decoder = Decoder(denoiser, process, sampler, plan, prompts)
    if confidence and sampler.capabilities.looks_ahead:
        raise ValueError(
            "a trace shows one step at a time, and a sampler with lookahead takes several; leave out +lookahead"
        )
    rows = torch.tensor(list(names), dtype=torch.int64, device=decoder.device)
    cost = Cost.empty(len(rows), decoder.device)
    with torch.no_grad():
        ids = decoder.begin(Stream(seed, rows, -1), decoder.ids)
        running, memory = torch.arange(len(rows), device=decoder.device), sampler.start(ids)
        cached = decoder.causal or plan.cache_policy() is not None
        caches = DecodingCaches(decoder, len(rows)) if cached else None
        for number, at in enumerate(decoder.schedule()):
            if len(running) == 0:
                return
            if caches is not None and at.step == 0:
                caches.begin_block()
            idles = sampler.capabilities.plan != "quota" or decoder.overlap > 0
            if idles and decoder.decided(ids[running], at.block).all():
                continue
            draw = Stream(seed, rows[running], number)
            result = decoder.advance(ids[running], memory, at, draw, decoder.pad[running], caches)
            memory, new = result.memory, result.ids
            cost.add(result.cost, running)
            changed = torch.zeros_like(ids, dtype=torch.bool)
            changed[running] = new != ids[running]
            written = _confidence(result, changed, running) if confidence else None
            before, ids, filled = ids, ids.index_copy(0, running, new), torch.zeros_like(changed)
            if plan.stop_ids():
                finished, column = decoder.finished(new, at)
                if finished.any():
                    tail = (
                        finished[:, None]
                        & (decoder.column > column[:, None])
                        & (decoder.column < decoder.stop)
                    )
                    cost.filled[running] += (tail & ~decoder.written(new, at)).sum(1)
                    stop_id = new.gather(1, column.clamp_max(decoder.width - 1)[:, None])
                    ids[running], filled[running] = torch.where(tail, stop_id, new), tail
                    stay = (~finished).nonzero()[:, 0]
                    running, memory = running[stay], None if memory is None else memory[stay]
                    if caches is not None:
                        caches.select_rows(stay)
            yield decoder, Frame(ids, changed, filled, cost, at, written, before, result)


def _confidence(result: StepResult, changed: Tensor, running: Tensor) -> Tensor:
    """The probability of each token that a step wrote, [B, L] float64, in the first of the step's predictions for which
    its row passed the network; 0 where the step wrote none, and for a row that passed in none (it only masked tokens
    again). No row passes the network here, which would change what a KV cache does next.

    `result`: the step's result for the rows still decoding, which have the indices `running` [n] in the batch;
    `changed` [B, L] bool: positions written, for B rows and L columns.
    """
    found = torch.zeros(changed.shape, dtype=torch.float64, device=changed.device)
    left = changed[running]
    for made in result.predictions:
        where = left & made.forwarded[:, None]
        rows, columns = where.nonzero(as_tuple=True)
        found[running[rows], columns] = made.probs(where).gather(1, result.ids[where][:, None])[:, 0]
        left = left & ~where
    return found
