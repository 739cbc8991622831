"""What every engine does, and the two that keep whole weights in every process: one process, and DDP."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repro.models.denoiser import Denoiser, ForwardWrapper
from repro.training.checkpoint import Checkpoint
from repro.training.engines.options import Options
from repro.training.optimizer import MasterWeights
from repro.training.recipe import Recipe

T = TypeVar("T")
Files = Mapping[str, Mapping[str, Tensor] | Path]
"""What a checkpoint holds, by file name: tensors by name, or a finished safetensors file that is moved in."""


class Engine:
    """A network behind the one door, its masters and optimizer, and what collective work a step needs.

    Subclasses say where weights lie (`place`), and override what that changes of a step.
    """

    distributed: ClassVar[tuple[DistributedType, ...]]  # what accelerate may say that it is
    network: nn.Module
    masters: MasterWeights
    optimizer: torch.optim.Optimizer

    def __init__(self, accelerator: Accelerator, options: Options) -> None:
        self.accelerator, self.options = accelerator, options
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device
        self.first = self.rank == 0

    # --- a step ---

    def build(self, denoiser: Denoiser, recipe: Recipe) -> None:
        """Take a network in float32 and make it ready to train in the recipe's precision, which may be refused."""
        self.recipe = recipe
        self.options.apply(denoiser)
        self.place(ForwardWrapper(denoiser.to(self.device)))
        self.optimizer = recipe.optimizer.build(self.masters.parameters())

    @abstractmethod
    def place(self, wrapped: ForwardWrapper) -> None:
        """Set `network` and `masters`."""

    @property
    def averages(self) -> bool:
        """Whether backward itself averages gradients over processes, instead of `exchange` summing them."""
        return True

    def silent(self, last: bool) -> AbstractContextManager[None]:
        """Around a microbatch: no exchange of gradients until the `last` one, where that saves any."""
        return nullcontext()

    def run(self, work: Callable[[Denoiser], T], last: bool) -> T:
        """Run `work` through the door; gradients need be exchanged only in the `last` microbatch of a step."""
        kind, narrow = self.device.type, self.recipe.precision == "bf16_autocast"

        def cast(denoiser: Denoiser) -> T:
            with torch.autocast(kind, torch.bfloat16, enabled=narrow):
                return work(denoiser)

        with self.silent(last):
            return self.network(cast)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients of the *sum* over processes and microbatches: what averages is undone here."""
        with self.silent(last):
            (loss * self.world if self.averages else loss).backward()
        self.masters.collect()

    def update(self, step: int, lr: float) -> Tensor:
        """Clip, and take the optimizer step; returns the norm of the whole gradient before clipping, a scalar."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        gradients = self.masters.gradients()
        if not self.averages:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.recipe.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.masters.parameters(), self.recipe.optimizer.clip, norm)
        self.optimizer.step()
        for parameter in self.masters.named.values():
            parameter.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        self.masters.give_weights(step)
        return self.whole(norm)

    def whole(self, norm: Tensor) -> Tensor:
        """A norm over the pieces of all processes."""
        return norm

    def door(self) -> ForwardWrapper:
        """The door itself, for work that every process does alike and without gradients."""
        inner = self.network.module if hasattr(self.network, "module") else self.network
        assert isinstance(inner, ForwardWrapper)
        return inner

    def weights(self) -> dict[str, Tensor]:
        """The masters, whole, by name (all processes must ask); to be read only."""
        return {name: tensor.detach() for name, tensor in self.masters.master.items()}

    # --- checkpoints ---

    def files(self, scratch: Path) -> Files:
        """What the first process writes into a checkpoint (all must ask); `scratch`: a folder that all share."""
        return self.state()

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """MasterWeights, optimizer state (`NAME|FIELD`) and average, by file; sharded where the masters are."""
        names = list(self.masters.master)
        state = self.optimizer.state_dict()["state"]
        optimizer = {f"{names[i]}|{k}": v for i, s in state.items() for k, v in s.items()}
        files: dict[str, Mapping[str, Tensor]] = {
            "model.safetensors": self.masters.master,
            "optimizer.safetensors": optimizer,
        }
        if self.masters.average:
            files["ema.safetensors"] = self.masters.average
        return files

    def restore(self, saved: Checkpoint) -> None:
        """Take over weights, average and optimizer state of any engine's checkpoint; ValueError if it does not fit."""
        saved.copy("model.safetensors", self.masters.master)
        if self.masters.average:
            saved.copy("ema.safetensors", self.masters.average)
        self.masters.refresh()
        numbers = {name: i for i, name in enumerate(self.masters.master)}
        state = {
            numbers[name]: fields
            for name, fields in saved.optimizer("optimizer.safetensors", self.masters.master).items()
        }
        current = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})

    # --- all processes ---

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over processes."""
        return self.accelerator.reduce(values, "sum") if self.world > 1 else values

    def any(self, here: bool) -> bool:
        """Whether it holds in any process (all must ask at the same step)."""
        return here if self.world == 1 else bool(self.sum(torch.tensor(float(here), device=self.device)) > 0)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


class Single(Engine):
    """One process."""

    distributed = (DistributedType.NO, DistributedType.MULTI_GPU)  # torchrun with one process says MULTI_GPU

    def place(self, wrapped: ForwardWrapper) -> None:
        self.masters = MasterWeights(wrapped.denoiser, self.recipe.precision, self.recipe.ema)
        self.network = wrapped


class Ddp(Engine):
    """Whole weights in every process; gradients averaged in backward, or float32 masters' gradients summed after it."""

    distributed = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)

    def place(self, wrapped: ForwardWrapper) -> None:
        self.masters = MasterWeights(wrapped.denoiser, self.recipe.precision, self.recipe.ema)
        self.network = self.accelerator.prepare_model(wrapped)

    @property
    def averages(self) -> bool:
        return not self.masters.apart  # DDP would average bfloat16 gradients; masters sum in float32

    def silent(self, last: bool) -> AbstractContextManager[None]:
        assert isinstance(self.network, DistributedDataParallel)
        return nullcontext() if last and self.averages else self.network.no_sync()
