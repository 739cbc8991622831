"""Engines: they run the optimizer step that a recipe defines, on one process or many.

    with engine(options) as made:      one process, DDP, FSDP2 or DeepSpeed ZeRO-2, as the launcher requests
        made.build(denoiser, recipe)   network, master weights, optimizer
        made.run(work, last)           calls work(denoiser); `last`: whether the microbatch is the step's last one
        made.backward(loss, last)      gradients of the sum over processes and microbatches
        made.update(step, lr)          clip and step in the recipe's precision; returns the gradient's norm

Start with `engine.py`. Precision, clipping and accumulation are settings of the recipe on every engine; a launch file
sets the number of processes and what is sharded over them. All engines write the same checkpoint format, so a run can
be resumed on any of them. This subpackage imports what `repro.training` may import, except the training loop.
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
    """Context manager that joins the process group, yields the engine that the launcher requests by environment
    variables, and leaves the group.

    `options`: how layers run. Raises ValueError for launcher settings that no engine supports.
    """
    kind = requested_engine()
    accelerator = join_group(kind.distributed)
    try:
        yield kind(accelerator, options)
    finally:
        accelerator.end_training()  # also after an error: gloo aborts a process that does not leave its group
