"""FSDP2 engine: weights, their moving average, gradients and optimizer state are sharded over processes (torch's
`fully_shard`).

Each of `Denoiser.layers()` is gathered for its own forward and backward. Embedding and output layer form the root
group, so that inside the forward pass the output layer is whole and a fused loss need not gather it. accelerate starts
the processes, and its launch file says whether layers are resharded after the forward; torch itself shards, on GPUs and
CPUs.

Precision: `bf16_master` shards the float32 master weights themselves, gathers them in bfloat16 and sums gradients in
float32; `bf16_pure` shards bfloat16 weights. Gradients are exchanged in every microbatch, so that they stay sharded.
With the option `whole_gradients` every process sums whole gradients of its own microbatches, in float32 unless
everything is bfloat16, and exchanges them in the last microbatch of a step (torch's
`FSDPModule.set_requires_gradient_sync`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from repro.models.denoiser import ForwardWrapper
from repro.training.engines import shards
from repro.training.engines.engine import Engine, Files
from repro.training.optimizer import MasterWeights, cast_to_bfloat16


class Fsdp2(Engine):
    """Engine of torch's FSDP2: weights, their moving average, gradients and optimizer state are sharded over the
    processes."""

    distributed = (DistributedType.FSDP, DistributedType.MULTI_CPU)

    def place(self, wrapped: ForwardWrapper) -> None:
        precision = self.recipe.precision
        if precision == "bf16_pure":
            cast_to_bfloat16(wrapped)
        mesh = init_device_mesh(self.device.type, (self.world,))
        reshard = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
        narrow = torch.bfloat16 if precision == "bf16_master" else None
        # inputs are not cast: times and soft tokens keep the precision that they have in one process
        policy = MixedPrecisionPolicy(
            param_dtype=narrow, reduce_dtype=narrow and torch.float32, cast_forward_inputs=False
        )
        for layer in wrapped.denoiser.layers():
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
        fully_shard(wrapped, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
        self.network = wrapped
        # the shards are the master weights: float32 unless everything is bfloat16
        kind = "float32" if precision == "bf16_master" else precision
        self.master_weights = MasterWeights(wrapped.denoiser, kind, self.recipe.ema)
        assert all(isinstance(p, DTensor) for p in self.master_weights.parameters())

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        assert isinstance(self.network, FSDPModule)
        self.network.set_requires_gradient_sync(last or not self.options.whole_gradients)
        return nullcontext()

    def global_norm(self, norm: Tensor) -> Tensor:
        assert isinstance(norm, DTensor)
        return norm.full_tensor()

    def weights(self) -> dict[str, Tensor]:
        whole = {}
        for name, shard in self.master_weights.weights.items():
            assert isinstance(shard, DTensor)
            whole[name] = shard.full_tensor().detach()
        return whole

    def files(self, scratch: Path) -> Files:
        return {
            file: shards.write(scratch / file, tensors, self.first) for file, tensors in self.state().items()
        }
