"""DeepSpeed ZeRO-2 engine: whole weights in every process, but sharded gradients, float32 master weights and optimizer
state.

Needs the extra `deepspeed`. DeepSpeed takes the step; its configuration is computed here from the recipe and never read
from a file. Checkpoints hold whole tensors by name, like those of the other engines, so a run can be resumed on any
engine and any number of processes: `deepspeed.utils` gathers a master weight or an Adam moment from its partitions, and
partitions it again.

DeepSpeed's stage 2 exchanges gradients once a microbatch. With the option `whole_gradients` its stage 1 runs: every
process sums its own whole gradients, and they are exchanged in the last microbatch of a step.

Precision `bf16_master` is DeepSpeed's bfloat16 with gradients accumulated and exchanged in float32. `bf16_pure` raises
ValueError: it has no master weights, and ZeRO always keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from repro.models.denoiser import Denoiser, ForwardWrapper, trained_parameters
from repro.training.checkpoint import Checkpoint
from repro.training.engines.engine import Engine, Files
from repro.training.engines.options import Options
from repro.training.recipe import Recipe

BUCKET = 200_000_000
"""Number of elements that are reduced or gathered at once, as in the reference script of Duo
(docs/method.md#uniform-script; DeepSpeed's default 5e8 would take 2 GB)."""


class Zero2(Engine):
    """Engine of DeepSpeed's ZeRO-2: gradients, master weights and optimizer state are sharded over the processes."""

    distributed = (DistributedType.DEEPSPEED, DistributedType.MULTI_CPU)
    network: Any  # deepspeed.DeepSpeedEngine

    def build(self, denoiser: Denoiser, recipe: Recipe) -> None:
        if recipe.precision == "bf16_pure":
            raise ValueError(
                "precision bf16_pure has no master weights, ZeRO-2 needs them; launch with recipes/launch/ddp_8.yaml or"
                " recipes/launch/fsdp2_8.yaml"
            )
        if self.options.whole_gradients and recipe.precision == "bf16_master":
            raise ValueError(
                "--whole-gradients: DeepSpeed keeps whole gradients of float32 weights alone, not of precision"
                " bf16_master; leave the option out, or launch with recipes/launch/fsdp2_8.yaml"
            )
        try:
            import deepspeed
        except ImportError:
            raise ValueError("DeepSpeed is not installed; pip install 'dlm-repro[deepspeed]'") from None
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        self.recipe = recipe
        self.options.apply(denoiser)
        denoiser = denoiser.to(self.device)
        self.named: Mapping[str, nn.Parameter] = trained_parameters(denoiser)
        master_weights = {name: p.detach().clone() for name, p in self.named.items()}
        buffers = {name: b.clone() for name, b in denoiser.named_buffers()}
        base = recipe.optimizer.build(list(self.named.values()))
        made: Any = deepspeed.initialize(
            model=ForwardWrapper(denoiser),
            optimizer=base,
            config=configuration(
                recipe, self.world, sum(map(Tensor.numel, master_weights.values())), self.options
            ),
            dist_init_required=False,
        )
        self.network, self.optimizer, self.ema = made[0], base, recipe.ema
        # DeepSpeed casts buffers to bfloat16 too, but rotary frequencies need float32
        for name, buffer in denoiser.named_buffers():
            buffer.data = buffers[name]
        (self.flat,) = self.network.optimizer.single_partition_of_fp32_groups
        self._scatter(master_weights)
        self.average = self.flat.detach().clone() if self.ema else None

    def backward(self, loss: Tensor, last: bool) -> None:
        self.network.set_gradient_accumulation_boundary(last)
        self.network.backward(loss * self.world, scale_wrt_gas=False)  # DeepSpeed averages over processes

    @torch.no_grad()
    def update(self, step: int, lr: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.step()
        if self.ema and self.average is not None:
            self.average.lerp_(self.flat, 1 - self.ema.rate(step))
        return torch.as_tensor(self.network.get_global_grad_norm())

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(parameter) for name, parameter in self.named.items()}

    # --- checkpoints ---

    @torch.no_grad()
    def files(self, scratch: Path) -> Files:
        """Files of a checkpoint (file name -> tensor name -> tensor), gathered tensor by tensor and complete in the
        first process only (a collective operation). `scratch` is not used."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        optimizer: dict[str, Tensor] = {}
        for field, value in self.optimizer.state[self.flat].items():
            if value.shape == self.flat.shape:
                found = self._gather(lambda p, field=field: safe_get_full_optimizer_state(p, field))
            else:  # a scalar that all weights share, such as Adam's count of steps
                found = {name: value.clone() for name in self.named}
            optimizer |= {f"{name}|{field}": tensor for name, tensor in found.items()}
        files = {
            "model.safetensors": self._gather(safe_get_full_fp32_param),
            "optimizer.safetensors": optimizer,
        }
        if self.average is not None:
            master_weights = self.flat.clone()
            self.flat.copy_(self.average)  # partitioned as the master weights are: gathered in their place
            files["ema.safetensors"] = self._gather(safe_get_full_fp32_param)
            self.flat.copy_(master_weights)
        return files

    @torch.no_grad()
    def restore(self, saved: Checkpoint) -> None:
        from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

        state = saved.optimizer("optimizer.safetensors", self.named)
        numbers = {f: v for f, v in next(iter(state.values())).items() if not v.shape}
        moments = [f for f in next(iter(state.values())) if f not in numbers]
        zeros = {field: torch.zeros_like(self.flat) for field in moments}
        self.optimizer.state[self.flat] = {f: v.to(self.device) for f, v in numbers.items()} | zeros
        lazy_init_hp_params_optimizer_state(list(self.named.values()), self.flat, self.optimizer.state)
        for name, parameter in self.named.items():
            for field in moments:
                safe_set_full_optimizer_state(parameter, state[name][field].to(self.device), field)
        master_weights = {name: torch.empty_like(p, dtype=torch.float32) for name, p in self.named.items()}
        if self.average is not None:
            saved.copy("ema.safetensors", master_weights)
            self._scatter(master_weights)
            self.average.copy_(self.flat)
        saved.copy("model.safetensors", master_weights)
        self._scatter(master_weights)

    def _gather(self, whole: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        """Parameter name -> `whole(parameter)` on the CPU, where the function `whole` gathers a parameter's tensor from
        all processes; empty except in the first process (a collective operation)."""
        gathered = ((name, whole(parameter)) for name, parameter in self.named.items())
        return {name: tensor.cpu() for name, tensor in gathered if self.first}

    def _scatter(self, master_weights: Mapping[str, Tensor]) -> None:
        """Set this process's partitions of the master weights from whole float32 tensors (name -> tensor), and update
        the network."""
        from deepspeed.utils import safe_set_full_fp32_param

        for name, parameter in self.named.items():
            safe_set_full_fp32_param(parameter, master_weights[name])
        self.network.optimizer.update_lp_params()


def configuration(recipe: Recipe, world: int, weights: int, options: Options) -> dict[str, Any]:
    """DeepSpeed's configuration for a recipe on `world` processes; `weights`: number of parameters of the network.
    With `options.whole_gradients` the stage is 1, which shards no gradients.

    Values that are not settings of the recipe, such as bucket sizes, change no result.
    """
    share = recipe.batch // world
    micro = min(recipe.micro_batch, share)
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": recipe.optimizer.clip or 0.0,
        "bf16": {"enabled": recipe.precision == "bf16_master"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": {
            "stage": 1 if options.whole_gradients else 2,
            "reduce_bucket_size": min(BUCKET, weights),
            "allgather_bucket_size": min(BUCKET, weights),
        },
    }
