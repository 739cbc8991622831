"""How many rows go through the network together: what fits the accelerator's free memory, and half of it where even
that does not. No answer depends on it.

    halving(lambda rows: task.answer(model, ask, rows), fitted(model, task, ask))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from repro.evals.planning.effort import MOST, Network, rows_at_once
from repro.evals.task import Ask, Task
from repro.lazy import torch
from repro.models import Model

Found = TypeVar("Found")


def fitted(model: Model, task: Task, ask: Ask) -> int | None:
    """Rows by arithmetic for the free memory of the model's card; None on a CPU, and where nobody knows the cost."""
    network, effort = Network.of_model(model), task.effort(model, ask)
    if network is None or effort is None or not effort.forwards:
        return None
    weight = next(model.denoiser.parameters())
    if weight.device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(weight.device)
    return rows_at_once(effort, network, free, weight.element_size())


def halving(find: Callable[[int | None], Found], rows: int | None) -> Found:
    """`find(rows)`; where the accelerator's memory does not do, again with half as many rows (None: of MOST), down to
    one. ValueError where one row does not fit."""
    while True:
        try:
            return find(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise ValueError(
                    "one row does not fit in the accelerator's memory; take a larger card"
                ) from None
        rows = (MOST if rows is None else rows) // 2
        torch.cuda.empty_cache()
