"""Engines: how one optimizer step runs on one process or many. The recipe says what is computed, the engine where.

    with engine(options) as made:      one process, DDP, FSDP2 or DeepSpeed ZeRO-2, as the launcher requests
        made.build(denoiser, recipe)   network, master weights, optimizer
        made.run(work, last)           work(denoiser) inside the module's forward
        made.backward(loss, last)      gradients of the sum over processes and microbatches
        made.update(step, lr)          clip and step in the recipe's precision; returns the gradient's norm

Start with `engine.py`. Precision, clipping and accumulation are the recipe's on every engine; a launch file says how
many processes there are and what they share. All engines write the same checkpoints, so a run can be resumed under any.
Imports what `repro.training` may, and nothing of the loop.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from repro.training.engines.engine import Engine
from repro.training.engines.launcher import join_group, requested_engine
from repro.training.engines.options import PLAIN, Options

__all__ = ["PLAIN", "Engine", "Options", "engine"]


@contextmanager
def engine(options: Options) -> Generator[Engine]:
    """The engine that the launcher requests; ValueError for settings that no engine implements."""
    kind = requested_engine()
    accelerator = join_group(kind.distributed)
    try:
        yield kind(accelerator, options)
    finally:
        accelerator.end_training()  # also after an error: gloo aborts a process that does not leave its group
