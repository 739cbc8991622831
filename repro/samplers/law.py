"""The exact distribution (law) of a sampler's output on a tiny space, by enumeration of every random draw.

    law(denoiser, process, sampler, plan) -> {ids: probability}

The enumeration runs the steps of the decoding loop. A step runs with a script that holds an outcome for each of its
draws. Where the script lacks a draw, one copy of the script is made for every outcome of the draw, and the step runs
again with all scripts as one batch. After each step, equal states are merged.

Shapes: n states with their probabilities, L columns (prompt and generated tokens), M numbers per state that the sampler
remembers between steps.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from repro.core.lazy import torch
from repro.processes.process import Process
from repro.samplers.decoded import StepIndex
from repro.samplers.decoder import Decoder
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.samplers.draws import Draw, Name, Unknown


def law(
    denoiser: Denoiser, process: Process, sampler: Sampler, plan: Plan, prompt: Sequence[int] = ()
) -> dict:
    """Exact distribution of the ids generated after `prompt` (token ids), {tuple of ids: probability}.

    `denoiser`: the network; `process`: its noise; `plan`: numbers of tokens and steps. For tiny spaces only (3 tokens,
    gen_length 2 or 3), since every outcome is enumerated. Raises ValueError for a sampler that draws uniform numbers,
    and if sampler, noise process and decoding plan cannot be combined.
    """
    found: dict = {}
    for found in laws(denoiser, process, sampler, plan, prompt):  # noqa: B007
        pass
    return found


def laws(
    denoiser: Denoiser, process: Process, sampler: Sampler, plan: Plan, prompt: Sequence[int] = ()
) -> Iterator[dict]:
    """Exact distributions of the ids generated after `prompt`, {tuple of ids: probability}: at time t = 1, then after
    each step.

    Before the last step the tuples contain mask ids or noise tokens. For a sampler with lookahead only the last
    distribution is yielded, because its steps share random draws. Arguments and errors are those of `law`.
    """
    decoder = Decoder(denoiser, process, sampler, plan, [prompt])
    assert not decoder.causal or denoiser.vocabulary.first >= 0
    states = States(decoder.ids, None, torch.ones(1, dtype=torch.float64))
    with torch.no_grad():
        if sampler.capabilities.looks_ahead:
            yield _written(decoder, _joint(decoder, states))
            return
        states = _enumerate(lambda ids, memory, draw: (decoder.begin(draw, ids), memory), states)
        states = states._replace(memory=sampler.start(states.ids))
        yield _written(decoder, states)
        for at in decoder.schedule():
            if not decoder.decided(states.ids, at.block).all():
                states = _enumerate(functools.partial(_advance, decoder, at), states)
                yield _written(decoder, states)


class States(NamedTuple):
    """The n possible states of a decoding run: ids [n, L], the sampler's memory [n, M] (None: it has none), and the
    probability of each state, `weights` [n] float64."""

    ids: Tensor
    memory: Tensor | None
    weights: Tensor


def _written(decoder: Decoder, states: States) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for row, weight in zip(
        states.ids[:, decoder.start : decoder.stop].tolist(), states.weights.tolist(), strict=True
    ):
        found[tuple(row)] += weight
    return dict(found)


Step = Callable[["Tensor", "Tensor | None", "Draw"], "tuple[Tensor, Tensor | None]"]


def _advance(decoder: Decoder, at: StepIndex, ids: Tensor, memory: Tensor | None, draw: Draw) -> tuple:
    after = decoder.advance(ids, memory, at, draw)
    return after.ids, after.memory


def _enumerate(step: Step, states: States) -> States:
    """The possible states after one step from the possible `states` before it, with their probabilities. `step(ids,
    memory, draw)` takes the step and returns the next ids and memory.

    The step is rerun with longer scripts (given outcomes of its random draws) until they cover every draw of the step;
    then equal states are merged.
    """
    from repro.samplers.draws import Script, Unknown

    ids, memory, weights = states
    scripts: list[dict[Name, Any]] = [{} for _ in range(len(ids))]
    while True:
        try:
            after, new_memory = step(ids, memory, Script(scripts))
            break
        except Unknown as unknown:
            source, scripts, chances = _extended(unknown, scripts)
            ids, weights = ids[source], weights[source] * chances
            memory = None if memory is None else memory[source]
    # memory is compared bit by bit: viewed as integers, it can be concatenated with the ids
    keys = after if new_memory is None else torch.cat([after, new_memory.view(torch.int64)], dim=1)
    merged, inverse = torch.unique(keys, dim=0, return_inverse=True)
    width = after.shape[1]
    return States(
        merged[:, :width],
        None if new_memory is None else merged[:, width:].contiguous().view(torch.float64),
        torch.zeros(len(merged), dtype=torch.float64).index_add(0, inverse, weights),
    )


def _joint(decoder: Decoder, states: States) -> States:
    """The possible final states, with their probabilities, of a sampler with lookahead, from the initial `states`. Such
    a sampler uses one uniform number in several steps, so all steps are rerun together, with ever narrower intervals of
    the uniform numbers, until every draw of every step has one outcome."""
    from repro.samplers.draws import Intervals, Unknown

    start, _, weights = states
    scripts: list[dict[Name, Any]] = [{} for _ in range(len(start))]
    while True:
        ids, memory = start.expand(len(scripts), -1), None
        draw = Intervals(scripts, torch.arange(len(scripts)), torch.zeros(len(scripts), dtype=torch.int64))
        try:
            for number, at in enumerate(decoder.schedule()):
                if not decoder.decided(ids, at.block).all():
                    now = draw.ahead(draw.rows, torch.full_like(draw.steps, number))
                    ids, memory, *_ = decoder.advance(ids, memory, at, now)
            return States(ids, None, weights)
        except Unknown as unknown:
            source, scripts, chances = _extended(unknown, scripts)
            weights = weights[source] * chances


def _extended(
    unknown: Unknown, scripts: list[dict[Name, Any]]
) -> tuple[Tensor, list[dict[Name, Any]], Tensor]:
    """All `scripts` (each maps draws to their outcomes, or to intervals of the uniform number), extended by the draws
    in `unknown` that they lack: one new script for each combination of possible outcomes.

    Returns three sequences with one entry per new script: index in `scripts` of the script that it extends, [n]; the
    new script; and the probability of the added outcomes, [n].
    """
    missing: dict[int, list[tuple[Name, Sequence[tuple[Any, float]]]]] = {}
    for name, row, choices in zip(unknown.names, unknown.rows, unknown.choices, strict=True):
        missing.setdefault(row, []).append((name, choices))
    source, extended, chances = [], [], []
    for row, script in enumerate(scripts):
        names = [name for name, _ in missing.get(row, [])]
        for outcomes in itertools.product(*[choices for _, choices in missing.get(row, [])]):
            chance = math.prod(p for _, p in outcomes)
            if chance > 0:
                source.append(row)
                extended.append(script | dict(zip(names, (outcome for outcome, _ in outcomes), strict=True)))
                chances.append(chance)
    return torch.tensor(source), extended, torch.tensor(chances, dtype=torch.float64)
