"""Texts of a task, decoded in pieces that processes share; one `Decoded` of all rows comes back, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from repro.evals.pieces import Work, rows_of
from repro.lazy import torch
from repro.samplers.decode import Decoded, Ledger, decode
from repro.samplers.plan import Plan
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from repro.models import Model


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
        return _data(found)

    found = work.pieces(len(prompts), size, piece)
    ledger = Ledger(**{name: _joined(each["ledger"][name] for each in found) for name in _costs()})
    return Decoded(_joined(each["ids"] for each in found), ledger, _joined(each["useful"] for each in found))


def cut(rows: range, batch: int | None) -> Iterator[range]:
    """Runs of at most `batch` of the rows; all of them together where nobody says how many."""
    size = len(rows) if batch is None else batch
    return (range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _costs() -> list[str]:
    return [each.name for each in fields(Ledger)]


def _data(found: Sequence[Decoded]) -> dict[str, Any]:
    """Decoded batches as plain JSON."""
    return {
        "ids": [row for each in found for row in each.ids.tolist()],
        "useful": [count for each in found for count in each.useful.tolist()],
        "ledger": {
            name: [cost for each in found for cost in getattr(each.ledger, name).tolist()]
            for name in _costs()
        },
    }


def _joined(pieces: Iterator[list[Any]]) -> torch.Tensor:
    return torch.tensor([value for piece in pieces for value in piece], dtype=torch.int64)
