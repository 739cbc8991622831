"""Objectives that change the length of a step's rows: cut at random, or padded to the longest row of a group (LLaDA;
docs/method.md#llada-objective, docs/method.md#llada-sft).

    RandomLength(loss=IndependentElbo(...), probability=0.01, rows=4)      pre-training
    ToLongest(loss=IndependentElbo(...), rows=2)                           fine-tuning, padding of answers scored too

Both treat `rows` consecutive rows of the step as a group, as LLaDA's code cuts and pads a whole local batch. Positions
beyond a row's length are masked in attention and not scored, which for a bidirectional network is a shorter row.

Symbols: R rows of an optimizer step, B of them in a batch, L positions.
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
    """Group number of each of the R rows of an optimizer step, [R]; a group is `rows` consecutive rows."""
    return torch.arange(len(batch.step_candidates), device=batch.ids.device) // rows


def shortened(batch: Batch, where: Tensor, length: Tensor) -> Batch:
    """A copy of `batch` in which each row ends after `length` [R] tokens: later positions are masked in attention and
    not scored. The candidates (positions that may be noised and are scored) are the True entries of `where` [R, L]
    before this end.

    `length` and `where` describe all R rows of the optimizer step, of which the batch holds B.
    """
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
    """Length of each row up to and including its last candidate, [R]; 0 for a row without candidates. `where` [R, L]
    bool: True at candidates."""
    return (where * torch.arange(1, where.shape[1] + 1, device=where.device)).amax(1)


def _loss(
    loss: Elbo | IndependentElbo,
    denoiser: Denoiser,
    process: Process,
    batch: Batch,
    where: Tensor,
    length: Tensor,
) -> Loss:
    """Loss of a batch by the objective `loss`, after its rows are cut to `length` [R] and its candidates are set to
    `where` [R, L] (see `shortened`). The logs also hold the sum of the lengths of the batch's rows."""
    found = loss(denoiser, process, shortened(batch, where, length))
    return found._replace(logs={**found.logs, "length": length[batch.index].sum().double()})


def _check(rows: int) -> None:
    if rows < 1:
        raise ValueError(
            f"objectives random_length and to_longest: rows={rows} is not a number of rows per group; give 1 or more"
        )


@part
class RandomLength(Objective):
    """The objective `loss` on rows cut, with `probability`, to a random length.

    The length is uniform on 1..L for rows of L positions, and the same for each group of `rows` consecutive rows.
    """

    loss: Elbo | IndependentElbo
    probability: float
    rows: int

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        _check(self.rows)
        if not 0 < self.probability <= 1:
            raise ValueError(
                f"objective random_length: probability={self.probability} is not in (0, 1]; give the share of row"
                " groups to cut"
            )

    def lengths(self, batch: Batch) -> Tensor:
        """Length of each of the R rows of the optimizer step in tokens, [R]; L for rows that are not cut."""
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
    """The objective `loss` on rows that are padded to the longest row of their group of `rows` consecutive rows; the
    padding is scored too.

    A row ends at its last candidate, the last position that may be noised and scored. The padding after it, up to the
    end of the longest row of its group, becomes candidates too.
    """

    loss: Elbo | IndependentElbo
    rows: int

    meaning = "leave_one_out"
    processes = frozenset({"absorbing", "uniform"})
    score = "truncated bound"

    def __post_init__(self) -> None:
        _check(self.rows)

    def lengths(self, batch: Batch) -> Tensor:
        """Length in tokens of each of the R rows of the optimizer step, [R]: that of the longest row of its group, up
        to and including the last candidate."""
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
