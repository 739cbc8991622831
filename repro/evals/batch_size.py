"""Batch size of an evaluation: as many rows as fit the accelerator's free memory, halved after an out-of-memory error.
Results do not depend on it.

    halving(lambda batch: evaluate(task, batch), fitted(model, task, ask))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from repro.core.lazy import torch
from repro.evals.task import Ask, Task
from repro.evals.workload import Workload
from repro.model import Model
from repro.models.backbone import Size

Found = TypeVar("Found")


def fitted(model: Model, task: Task, ask: Ask) -> int | None:
    """Estimate of the largest batch size at which the evaluation of `task` with the settings `ask` fits in the free
    memory of the model's GPU: a power of two, at most 256 (`MOST`).

    None without a CUDA GPU, and where the size of the network or the number of the task's forward passes is unknown.
    """
    network, workload = model.size(), task.workload(model, ask)
    if network is None or workload is None or not workload.forwards:
        return None
    weight = next(model.denoiser.parameters())
    if weight.device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(weight.device)
    return rows_at_once(workload, network, free, weight.element_size())


def halving(find: Callable[[int | None], Found], rows: int | None) -> Found:
    """The result of `find(rows)`, called again with half as many rows after each out-of-memory error.

    `find` evaluates in batches of at most `rows` rows. If `rows` is None, `find` chooses the size, and after an error
    is called with 128 rows (half of `MOST`). Raises ValueError if a batch of one row does not fit.
    """
    while True:
        try:
            return find(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise ValueError(
                    "a batch of one row does not fit in the accelerator's memory; use an accelerator with more memory"
                ) from None
        rows = (MOST if rows is None else rows) // 2
        torch.cuda.empty_cache()


MOST = 256
"""Largest number of rows in one forward."""
SPARE = 0.8
"""Fraction of the free memory that a batch may take; the rest is slack for the allocator."""


# --- batches ------------------------------------------------------------------------------------------------
def row_bytes(network: Size, length: int, positions: int, value: int, cached: bool) -> int:
    """Estimated bytes of one row of `length` tokens in a forward without gradients of a network of the size `network`,
    with `value` bytes per activation.

    Counts residual and normed states, queries, keys, values and the feed-forward of one layer, an attention mask,
    logits in float32 and probabilities in float64 at `positions`, and the KV cache if `cached`.
    """
    states = length * value * (6 * network.width + 2 * network.kv_width + 3 * network.ffn)
    logits = positions * network.vocab_size * (4 + 8)
    kv_cache = 2 * network.layers * network.kv_width * length * value if cached else 0
    return states + length * length * value + logits + kv_cache


def fitting_batch(
    network: Size, length: int, free: float, *, positions: int, value: int, cached: bool = False
) -> int:
    """Largest batch size at which rows of `length` tokens fit in `free` bytes: a power of two from 1 to 256 (`MOST`).

    `network`: size of the network; `positions`: number of positions per row whose logits are computed; `value`:
    bytes per activation; `cached`: whether a KV cache takes memory too.
    """
    rows = SPARE * free / row_bytes(network, length, positions, value, cached)
    batch = 1
    while 2 * batch <= min(rows, MOST):
        batch *= 2
    return batch


def rows_at_once(workload: Workload, network: Size, free: float, value: int) -> int:
    """Largest batch size (a power of two, at most 256) at which the forwards of an evaluation fit in `free` bytes, if
    each row has the evaluation's mean length.

    `workload`: the evaluation's forwards and tokens, which give the mean; `network`: size of the network; `value`:
    bytes per activation. A KV cache is counted if forwards attend to more tokens than they compute.
    """
    length = round(workload.keys / workload.tokens)
    positions = round(workload.heads / workload.forwards)
    cached = workload.tokens < workload.forwards * length
    return fitting_batch(network, length, free, positions=positions, value=value, cached=cached)
