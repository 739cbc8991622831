"""Engines: how one step runs on the processes at hand. What is computed is the recipe's; where is the engine's.

    with engine(options) as made:      single process, DDP, FSDP2 or DeepSpeed ZeRO-2: what the launcher asked for
        made.build(denoiser, recipe)   network, masters, optimizer
        made.run(work, last)           work(denoiser) through the one door
        made.backward(loss, last)      gradients of the sum over processes and microbatches
        made.update(step, lr)          clip and step, in the recipe's precision; returns the gradient's norm

Precision, clipping and accumulation are the recipe's pins on every engine; a launch file says how many processes there
are, and what they share. All engines write the same checkpoints, so a run goes on under any of them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from repro.training.engines.engine import Engine
from repro.training.engines.launcher import asked, join
from repro.training.engines.options import PLAIN, Options

__all__ = ["PLAIN", "Engine", "Options", "engine"]


@contextmanager
def engine(options: Options) -> Generator[Engine]:
    """The engine that the launcher asked for; ValueError, in one line, for one that is not there."""
    kind = asked()
    accelerator = join(kind.distributed)
    try:
        yield kind(accelerator, options)
    finally:
        accelerator.end_training()  # always: gloo aborts a process that leaves its group standing
