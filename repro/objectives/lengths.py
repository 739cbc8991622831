"""Length of the rows of a step: cut at random, or padded to the longest of their group (LLaDA;
docs/method.md#llada-objective, docs/method.md#llada-sft).

    RandomLength(loss=IndependentElbo(...), probability=0.01, rows=4)      pre-training
    ToLongest(loss=IndependentElbo(...), rows=2)                           fine-tuning, padding of answers scored too

Both treat `rows` consecutive rows of the step as a group, as LLaDA's code cuts and pads a whole local batch. Positions
beyond a row's length are masked in attention and not scored, which for a bidirectional network is a shorter row.

Symbols: R rows of a step, B of a batch, L positions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.objectives.elbo import Elbo, IndependentElbo
from repro.objectives.objective import Batch, Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


def group_of(batch: Batch, rows: int) -> Tensor:
    """Number of the group of `rows` consecutive rows that each row of the step belongs to, [R]."""
    return torch.arange(len(batch.step_candidates), device=batch.ids.device) // rows


def shortened(batch: Batch, where: Tensor, length: Tensor) -> Batch:
    """The batch with rows of `length` [R] and the candidates `where` [R, L] within them."""
    from repro.models.attention import Mask

    column = torch.arange(where.shape[1], device=where.device)
    inside = column < length[:, None]
    where = where & inside
    here, valid = inside[batch.index], batch.attention.valid
    if not bool(here.all()):  # otherwise attention needs no mask
        valid = here if valid is None else valid & here
    return dataclasses.replace(
        batch,
        candidates=where[batch.index],
        attention=Mask(valid, batch.attention.block),
        step_candidates=where.sum(1),
        step_where=where,
    )


def last_candidate(where: Tensor) -> Tensor:
    """One more than the column of the last candidate of each row, [R, L] -> [R]; 0 without candidates."""
    return (where * torch.arange(1, where.shape[1] + 1, device=where.device)).amax(1)


def _loss(
    loss: Elbo | IndependentElbo,
    denoiser: Denoiser,
    process: Process,
    batch: Batch,
    where: Tensor,
    length: Tensor,
) -> Loss:
    """`loss` of `shortened` rows, with their length among the logs."""
    found = loss(denoiser, process, shortened(batch, where, length))
    return found._replace(logs={**found.logs, "length": length[batch.index].sum().double()})


def _check(rows: int) -> None:
    if rows < 1:
        raise ValueError(f"rows={rows} is no group of rows; give 1 or more")


@part
class RandomLength(Objective):
    """`loss` on rows that are cut, with `probability`, to a length uniform on 1..L, the same for `rows` rows."""

    loss: Elbo | IndependentElbo
    probability: float
    rows: int

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        _check(self.rows)
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability={self.probability} is not in (0, 1]; give a number in (0, 1]")

    def lengths(self, batch: Batch) -> Tensor:
        """Length of each row of the step, [R]."""
        full = batch.ids.shape[1]
        keys = rng.keys(batch.seed, rng.LENGTH, batch.step, group_of(batch, self.rows))
        u = rng.uniform(keys, 2)
        return torch.where(u[:, 0] < self.probability, 1 + (full * u[:, 1]).long(), full)

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        assert batch.step_where is not None
        length = self.lengths(batch)
        return _loss(self.loss, denoiser, process, batch, batch.step_where, length)


@part
class ToLongest(Objective):
    """`loss` on rows whose candidates go on after the last one, up to the longest of a group of `rows` rows."""

    loss: Elbo | IndependentElbo
    rows: int

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        _check(self.rows)

    def lengths(self, batch: Batch) -> Tensor:
        """Length of each row of the step, [R]: the largest `last_candidate` of its group."""
        assert batch.step_where is not None
        own, group = last_candidate(batch.step_where), group_of(batch, self.rows)
        longest = torch.zeros_like(own[: int(group[-1]) + 1])
        return longest.scatter_reduce(0, group, own, "amax")[group]

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        assert batch.step_where is not None
        last = last_candidate(batch.step_where)[:, None]
        column = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        padded = batch.step_where | ((column >= last) & (last > 0))
        return _loss(self.loss, denoiser, process, batch, padded, self.lengths(batch))
