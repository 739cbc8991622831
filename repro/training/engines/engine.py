"""The base of all engines, and the two that hold whole weights in every process: one process, and DDP."""

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
"""Contents of a checkpoint by file name: tensors by name, or a finished safetensors file to be moved in."""


class Engine:
    """A wrapped network with its master weights and optimizer, and the collective operations of a step.

    Subclasses decide where weights are stored (`place`) and override the operations that this changes.
    """

    distributed: ClassVar[tuple[DistributedType, ...]]  # accelerate's names for this engine
    network: nn.Module
    master_weights: MasterWeights
    optimizer: torch.optim.Optimizer

    def __init__(self, accelerator: Accelerator, options: Options) -> None:
        self.accelerator, self.options = accelerator, options
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device
        self.first = self.rank == 0

    # --- a step ---

    def build(self, denoiser: Denoiser, recipe: Recipe) -> None:
        """Prepare a float32 network for training; ValueError for a precision that the engine does not support."""
        self.recipe = recipe
        self.options.apply(denoiser)
        self.place(ForwardWrapper(denoiser.to(self.device)))
        self.optimizer = recipe.optimizer.build(self.master_weights.parameters())

    @abstractmethod
    def place(self, wrapped: ForwardWrapper) -> None:
        """Set `network` and `master_weights`."""

    @property
    def backward_averages(self) -> bool:
        """Whether backward itself averages gradients over processes; otherwise `update` sums them."""
        return True

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        """Context of a microbatch that defers the exchange of gradients to the `last` one, if that saves work."""
        return nullcontext()

    def run(self, work: Callable[[Denoiser], T], last: bool) -> T:
        """`work(denoiser)` inside the module's forward; gradients are exchanged only in a step's `last` microbatch."""
        kind, narrow = self.device.type, self.recipe.precision == "bf16_autocast"

        def cast(denoiser: Denoiser) -> T:
            with torch.autocast(kind, torch.bfloat16, enabled=narrow):
                return work(denoiser)

        with self.no_sync(last):
            return self.network(cast)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients of the *sum* over processes and microbatches: averaging by DDP or FSDP is undone."""
        with self.no_sync(last):
            (loss * self.world if self.backward_averages else loss).backward()
        self.master_weights.collect_gradients()

    def update(self, step: int, lr: float) -> Tensor:
        """Clip and take the optimizer step; returns the norm of the whole gradient before clipping, a scalar."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        gradients = self.master_weights.gradients()
        if not self.backward_averages:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.recipe.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.master_weights.parameters(), self.recipe.optimizer.clip, norm
            )
        self.optimizer.step()
        for parameter in self.master_weights.network_weights.values():
            parameter.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        self.master_weights.update_network(step)
        return self.global_norm(norm)

    def global_norm(self, norm: Tensor) -> Tensor:
        """The norm over all processes, given the norm of this process's gradients."""
        return norm

    def forward_wrapper(self) -> ForwardWrapper:
        """The network as a wrapper for work without gradients that every process repeats."""
        inner = self.network.module if hasattr(self.network, "module") else self.network
        assert isinstance(inner, ForwardWrapper)
        return inner

    def weights(self) -> dict[str, Tensor]:
        """Whole master weights by name, to be read only (a collective operation)."""
        return {name: tensor.detach() for name, tensor in self.master_weights.weights.items()}

    # --- checkpoints ---

    def files(self, scratch: Path) -> Files:
        """The files that the first process puts into a checkpoint (a collective operation).

        `scratch`: a folder on a file system that all processes share.
        """
        return self.state()

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Master weights, optimizer state (`NAME|FIELD`) and average by file, sharded as the master weights are."""
        names = list(self.master_weights.weights)
        state = self.optimizer.state_dict()["state"]
        optimizer = {f"{names[i]}|{k}": v for i, s in state.items() for k, v in s.items()}
        files: dict[str, Mapping[str, Tensor]] = {
            "model.safetensors": self.master_weights.weights,
            "optimizer.safetensors": optimizer,
        }
        if self.master_weights.average:
            files["ema.safetensors"] = self.master_weights.average
        return files

    def restore(self, saved: Checkpoint) -> None:
        """Load weights, average and optimizer state of any engine's checkpoint; ValueError if it does not fit."""
        saved.copy("model.safetensors", self.master_weights.weights)
        if self.master_weights.average:
            saved.copy("ema.safetensors", self.master_weights.average)
        self.master_weights.copy_to_network()
        numbers = {name: i for i, name in enumerate(self.master_weights.weights)}
        state = {
            numbers[name]: fields
            for name, fields in saved.optimizer("optimizer.safetensors", self.master_weights.weights).items()
        }
        current = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})

    # --- all processes ---

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over processes."""
        return self.accelerator.reduce(values, "sum") if self.world > 1 else values

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any process (a collective operation)."""
        return here if self.world == 1 else bool(self.sum(torch.tensor(float(here), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()


class Single(Engine):
    """One process."""

    distributed = (DistributedType.NO, DistributedType.MULTI_GPU)  # torchrun with one process says MULTI_GPU

    def place(self, wrapped: ForwardWrapper) -> None:
        self.master_weights = MasterWeights(wrapped.denoiser, self.recipe.precision, self.recipe.ema)
        self.network = wrapped


class Ddp(Engine):
    """Whole weights in every process; gradients averaged in backward, or afterwards summed in float32."""

    distributed = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)

    def place(self, wrapped: ForwardWrapper) -> None:
        self.master_weights = MasterWeights(wrapped.denoiser, self.recipe.precision, self.recipe.ema)
        self.network = self.accelerator.prepare_model(wrapped)

    @property
    def backward_averages(self) -> bool:
        # with separate master weights DDP would average bfloat16 gradients: they are summed in float32 instead
        return not self.master_weights.separate

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        assert isinstance(self.network, DistributedDataParallel)
        return nullcontext() if last and self.backward_averages else self.network.no_sync()
