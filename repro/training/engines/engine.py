"""Base class of all engines, and the two engines that hold whole weights in every process: `Single` and `Ddp`."""

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
"""Contents of a checkpoint: file name -> tensors by name, or the path of a finished safetensors file to be moved in."""


class Engine:
    """Base class of engines: a network with its master weights and optimizer, and the operations of a training step.

    `rank`, `world`: index of this process, and number of processes; `first`: whether the index is 0. Subclasses say how
    the weights are stored or sharded (`place`), and override the operations for which this matters. Methods whose
    docstring says *collective operation* must be called by all processes.
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
        """Prepare the float32 network `denoiser` for training by `recipe`: move it to the device, wrap or shard it, and
        build the optimizer.

        Raises ValueError for a precision that the engine does not support.
        """
        self.recipe = recipe
        self.options.apply(denoiser)
        self.place(ForwardWrapper(denoiser.to(self.device)))
        self.optimizer = recipe.optimizer.build(self.master_weights.parameters())

    @abstractmethod
    def place(self, wrapped: ForwardWrapper) -> None:
        """Set the attributes `network` and `master_weights`. If the engine shards the weights, it does so here.
        `wrapped`: the denoiser within a module that runs any function on it inside its own forward."""

    @property
    def backward_averages(self) -> bool:
        """Whether gradients are averaged over processes during backward, as DDP does; otherwise `update` sums them over
        processes."""
        return True

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        """Context manager for the forward or backward of a microbatch. `last`: whether the microbatch is the step's
        last one; where that saves work, gradients are exchanged between processes in the last one only."""
        return nullcontext()

    def run(self, work: Callable[[Denoiser], T], last: bool) -> T:
        """Result of `work(denoiser)`, called within the forward of the wrapped network, where DDP and FSDP have
        prepared the weights, and under bfloat16 autocast if the recipe's precision is `bf16_autocast`.

        `last`: whether the microbatch is the step's last one.
        """
        kind, narrow = self.device.type, self.recipe.precision == "bf16_autocast"

        def cast(denoiser: Denoiser) -> T:
            with torch.autocast(kind, torch.bfloat16, enabled=narrow):
                return work(denoiser)

        with self.no_sync(last):
            return self.network(cast)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of `loss`, a scalar of this process's microbatch, to those of the step, so that the result
        is the gradient of the *sum* over processes and microbatches (DDP and FSDP alone would average over processes).
        `last`: whether the microbatch is the step's last one."""
        with self.no_sync(last):
            (loss * self.world if self.backward_averages else loss).backward()
        self.master_weights.collect_gradients()

    def update(self, step: int, lr: float) -> Tensor:
        """Clip gradients and take optimizer step `step` with learning rate `lr`; returns the gradient's global norm
        before clipping, a scalar."""
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
        """Norm of the whole gradient over all processes, a scalar; `norm`: norm of this process's gradients, which may
        be a DTensor."""
        return norm

    def forward_wrapper(self) -> ForwardWrapper:
        """The denoiser within its `ForwardWrapper`, a module that runs a given function on the denoiser inside its
        own forward; without DDP around it, for computations without gradients in all processes."""
        inner = self.network.module if hasattr(self.network, "module") else self.network
        assert isinstance(inner, ForwardWrapper)
        return inner

    def weights(self) -> dict[str, Tensor]:
        """Name -> whole (not sharded) master weight; the caller must not change the tensors (a collective
        operation)."""
        return {name: tensor.detach() for name, tensor in self.master_weights.weights.items()}

    # --- checkpoints ---

    def files(self, scratch: Path) -> Files:
        """Files of a checkpoint, which the first process then saves (a collective operation): file name -> tensors by
        name, or the path of a finished safetensors file.

        `scratch`: a folder for temporary files, on a file system that all processes share.
        """
        return self.state()

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Contents of a checkpoint's files, file name -> tensors by name: master weights, optimizer state (names
        `WEIGHT|FIELD`) and moving average of the weights, each sharded as the master weights are."""
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
        """Load weights, moving average and optimizer state from the checkpoint `saved`, which any engine may have
        written.

        Raises ValueError if names or shapes of its tensors differ from those of the recipe's network.
        """
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
        """Elementwise sum of `values` over processes (a collective operation)."""
        return self.accelerator.reduce(values, "sum") if self.world > 1 else values

    def any(self, here: bool) -> bool:
        """Whether `here` is true in at least one process (a collective operation)."""
        return here if self.world == 1 else bool(self.sum(torch.tensor(float(here), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.accelerator.wait_for_everyone()


class Single(Engine):
    """Engine of one process, with whole weights and no communication."""

    distributed = (DistributedType.NO, DistributedType.MULTI_GPU)  # torchrun with one process says MULTI_GPU

    def place(self, wrapped: ForwardWrapper) -> None:
        self.master_weights = MasterWeights(wrapped.denoiser, self.recipe.precision, self.recipe.ema)
        self.network = wrapped


class Ddp(Engine):
    """Engine of torch's DDP: whole weights in every process; gradients are averaged over processes during backward, or
    (if float32 master weights are separate copies) summed in float32 after backward."""

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
