"""Texts of a task, decoded in pieces that processes share; one `Decoded` of all rows comes back, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from repro.core.lazy import torch
from repro.evals.work_queue import Work, rows_of
from repro.samplers.decode import decode
from repro.samplers.decoded import Cost, Decoded
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from repro.model import Model


def decoded(
    work: Work,
    model: Model,
    sampler: Sampler,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    names: Sequence[int],
    batch: int | None,
) -> Decoded:
    """Decode a row a prompt, at most `batch` together (None: a piece); `names` number the rows in the stream of draws.

    Raises Elsewhere while other processes are at what is left.
    """
    size = rows_of(max(map(len, prompts)) + plan.gen_length)

    def piece(rows: range) -> dict[str, Any]:
        found = [
            decode(
                model.denoiser,
                model.recipe.process,
                sampler,
                plan,
                prompts[some.start : some.stop],
                seed=seed,
                names=names[some.start : some.stop],
            )
            for some in cut(rows, batch)
        ]
        return _data(joined(found))

    return joined([_read(kept) for kept in work.pieces(len(prompts), size, piece)])


def cut(rows: range, batch: int | None) -> Iterator[range]:
    """Runs of at most `batch` of the rows; all of them together where nobody says how many."""
    size = len(rows) if batch is None else batch
    return (range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def joined(found: Sequence[Decoded]) -> Decoded:
    """Decoded rows of one length, one batch after the other."""
    costs = {name: torch.cat([getattr(each.cost, name) for each in found]) for name in _costs()}
    ids, useful = (torch.cat([getattr(each, name) for each in found]) for name in ("ids", "useful"))
    return Decoded(ids, Cost(**costs), useful)


def _costs() -> list[str]:
    return [each.name for each in fields(Cost)]


def _data(found: Decoded) -> dict[str, Any]:
    """Decoded rows as plain JSON."""
    cost = {name: getattr(found.cost, name).tolist() for name in _costs()}
    return {"ids": found.ids.tolist(), "useful": found.useful.tolist(), "ledger": cost}


def _read(kept: dict[str, Any]) -> Decoded:
    cost = Cost(**{name: torch.tensor(cost) for name, cost in kept["ledger"].items()})
    return Decoded(torch.tensor(kept["ids"]), cost, torch.tensor(kept["useful"]))
