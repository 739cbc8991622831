"""Engines: how one step runs on the processes at hand. What is computed is the recipe's; where is the engine's.

Single process and DDP on CUDA or on CPU processes, through accelerate. The launcher says how many processes there are;
what accelerate made of it is checked, since a wrong combination trains alone in silence (two runs instead of one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from repro.backbones.denoiser import Denoiser, Wrapped
from repro.optim import Precision

T = TypeVar("T")


class Engine:
    """A prepared network behind the one door, and what collective work a step needs."""

    def __init__(self) -> None:
        for name, variable in {
            "FSDP": "ACCELERATE_USE_FSDP",
            "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
        }.items():
            if os.environ.get(variable, "false").lower() == "true":
                raise ValueError(
                    f"engine {name} is not supported; launch with recipes/launch/ddp_8.yaml (DDP)"
                )
        # the recipe pins precision; what an accelerate configuration or its environment says of it must not enter
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
        asked = int(os.environ.get("WORLD_SIZE", "1"))
        got = self.accelerator.num_processes
        if asked != got:
            self.close()
            raise ValueError(
                f"the launcher started {asked} processes, accelerate sees {got}: launch as in recipes/"
            )
        self.rank, self.world, self.device = self.accelerator.process_index, got, self.accelerator.device
        self.first = self.rank == 0

    def wrap(self, denoiser: Denoiser, precision: Precision) -> torch.nn.Module:
        """The network behind its door, on this process's device, ready for every engine."""
        self.precision = precision
        self.averages = (
            precision != "bf16_master"
        )  # DDP would average bfloat16 gradients; masters sum in float32
        wrapped = Wrapped(denoiser).to(self.device)
        return self.accelerator.prepare_model(wrapped) if self.world > 1 else wrapped

    def _silent(self, network: torch.nn.Module, last: bool) -> AbstractContextManager[None]:
        """No exchange of gradients by DDP but in the last microbatch of a step."""
        loud = (last and self.averages) or not isinstance(network, DistributedDataParallel)
        return nullcontext() if loud else network.no_sync()

    def run(self, network: torch.nn.Module, work: Callable[[Denoiser], T], last: bool) -> T:
        """Run `work` through the door; gradients are exchanged only in the `last` microbatch of a step."""
        cast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16_autocast")
        with self._silent(network, last), cast:
            return network(work)

    def backward(self, network: torch.nn.Module, loss: Tensor, last: bool) -> None:
        """Accumulate gradients of the *sum* over processes: DDP averages, so the world size is undone here."""
        with self._silent(network, last):
            (loss * self.world if self.averages else loss).backward()

    def exchange(self, gradients: list[Tensor]) -> None:
        """Sum over processes the gradients that DDP did not exchange."""
        if self.world > 1 and not self.averages:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)

    def door(self, network: torch.nn.Module) -> Wrapped:
        """The door itself, for work that every process does alike and without gradients."""
        inner = network.module if isinstance(network, DistributedDataParallel) else network
        assert isinstance(inner, Wrapped)
        return inner

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over processes."""
        return self.accelerator.reduce(values, "sum") if self.world > 1 else values

    def any(self, here: bool) -> bool:
        """Whether it holds in any process (all must ask at the same step)."""
        return here if self.world == 1 else bool(self.sum(torch.tensor(float(here), device=self.device)) > 0)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Always, also on the error path: gloo aborts a process that leaves its group standing."""
        self.accelerator.end_training()


@contextmanager
def engine() -> Generator[Engine]:
    made = Engine()
    try:
        yield made
    finally:
        made.close()
