"""Generate the texts of a task: rows are decoded in chunks that several processes share, and joined on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from repro.core.lazy import torch
from repro.evals.work_queue import WorkQueue, rows_per_chunk
from repro.samplers.decode import decode
from repro.samplers.decoded import Cost, Decoded
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from repro.model import Model


def decoded(
    work: WorkQueue,
    model: Model,
    sampler: Sampler,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    names: Sequence[int],
    batch: int | None,
) -> Decoded:
    """Generated ids and costs of one row per prompt, on the CPU.

    At most `batch` rows are decoded together (None: a whole chunk). `names` [rows] identify the rows in the random
    keys of their draws. Raises Busy while other processes compute chunks that are still missing.
    """
    size = rows_per_chunk(max(map(len, prompts)) + plan.gen_length)

    def chunk(rows: range) -> dict[str, Any]:
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

    return joined([_read(each) for each in work.map_chunks(len(prompts), size, chunk)])


def cut(rows: range, batch: int | None) -> Iterator[range]:
    """Consecutive ranges of at most `batch` rows each (None: one range of all rows)."""
    size = len(rows) if batch is None else batch
    return (range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def joined(found: Sequence[Decoded]) -> Decoded:
    """One `Decoded` of the rows of several batches, all of one length."""
    costs = {name: torch.cat([getattr(each.cost, name) for each in found]) for name in _costs()}
    ids, useful = (torch.cat([getattr(each, name) for each in found]) for name in ("ids", "useful"))
    return Decoded(ids, Cost(**costs), useful)


def _costs() -> list[str]:
    return [each.name for each in fields(Cost)]


def _data(found: Decoded) -> dict[str, Any]:
    """Decoded rows as plain JSON, for storage in a chunk of the work queue."""
    cost = {name: getattr(found.cost, name).tolist() for name in _costs()}
    return {"ids": found.ids.tolist(), "useful": found.useful.tolist(), "cost": cost}


def _read(data: dict[str, Any]) -> Decoded:
    cost = Cost(**{name: torch.tensor(values) for name, values in data["cost"].items()})
    return Decoded(torch.tensor(data["ids"]), cost, torch.tensor(data["useful"]))
