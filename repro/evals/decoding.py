"""Generate the texts of a task: rows of tokens are decoded in chunks, which several processes share, and the chunks are
joined on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from repro.core.lazy import torch
from repro.core.reading import convert
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
    size: int | None = None,
) -> Decoded:
    """Decode one row per prompt (token ids); returns, for each row and on the CPU, the generated ids, the number of
    useful tokens (those before the first stop id) and the costs (such as forward passes). `plan`: length, blocks, steps
    and cache of the decoding.

    At most `batch` rows are decoded together (None: all rows of a chunk). `size`: rows per chunk of the work queue
    `work` (None: about 2^15 tokens). `names`: one number per row, which together with `seed` determines its random
    stream. Raises Busy while other processes compute chunks that are still missing.
    """
    size = size or rows_per_chunk(max(map(len, prompts)) + plan.gen_length)

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
        return _data(Decoded.joined(found))

    total = model.data.vocabulary().total

    def read(found: Any, rows: range) -> Decoded:
        return _read(found, len(rows), plan.gen_length, total)

    return Decoded.joined(work.map_chunks(len(prompts), size, chunk, read))


def cut(rows: range, batch: int | None) -> Iterator[range]:
    """Split the range `rows` into consecutive ranges of at most `batch` rows each (None: one range of all rows)."""
    size = len(rows) if batch is None else batch
    return (range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _costs() -> list[str]:
    return [each.name for each in fields(Cost)]


def _data(found: Decoded) -> dict[str, Any]:
    """Decoded rows (generated ids, numbers of useful tokens, costs) as plain JSON, as a chunk of the work queue stores
    them."""
    cost = {name: getattr(found.cost, name).tolist() for name in _costs()}
    return {"ids": found.ids.tolist(), "useful": found.useful.tolist(), "cost": cost}


class _Stored(Struct):
    """Decoded rows as a chunk of the work queue stores them: generated `ids` [rows, length], number of `useful` tokens
    of each row, and name of a cost -> one count per row."""

    ids: list[list[int]]
    useful: list[int]
    cost: dict[str, list[int]]


def _read(data: Any, rows: int, length: int, total: int) -> Decoded:
    """The decoded rows that a chunk stores as `data`; ValueError unless there are `rows` rows of `length` ids each, all
    ids are below `total` (the vocabulary size), and all counts are from 0 to 2^62 - 1."""
    found = convert(data, _Stored, "the decoded rows", "remove the chunk's file and run again")
    if set(found.cost) != set(_costs()) or any(
        len(each) != rows for each in (found.ids, found.useful, *found.cost.values())
    ):
        raise ValueError(
            f"the stored chunk does not have `ids`, `useful` and each cost ({', '.join(_costs())}) of {rows} decoded"
            " rows"
        )
    if any(len(row) != length or not 0 <= min(row) <= max(row) < total for row in found.ids):
        raise ValueError(
            f"a decoded row in the stored chunk does not have {length} ids from 0 to {total - 1}"
        )
    if any(not 0 <= value < 1 << 62 for each in (found.useful, *found.cost.values()) for value in each):
        raise ValueError(
            f"the stored chunk holds a number of useful tokens or a cost ({', '.join(_costs())}) of a decoded row that"
            " is not from 0 to 2^62 - 1"
        )
    cost = Cost(**{name: torch.tensor(values) for name, values in found.cost.items()})
    return Decoded(torch.tensor(found.ids), cost, torch.tensor(found.useful))
