"""Optimizer, precision and weight average of a recipe, and the master weights that an engine trains.

Precision (a setting of the recipe; an engine that does not support it raises ValueError):
    float32         everything in float32
    bf16_autocast   float32 weights, forward and backward under bfloat16 autocast
    bf16_master     bfloat16 weights in the network, float32 master weights in the optimizer
    bf16_pure       weights, gradients and Adam states in bfloat16 (as tom-pollak/dllm's train_dllm.py;
                    docs/method.md#masked-script)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro.core.lazy import torch
from repro.core.parts import Part, check_below_one, part

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["float32", "bf16_autocast", "bf16_master", "bf16_pure"]


@part
class AdamW(Part):
    """The optimizer AdamW (Loshchilov and Hutter 2019), with the same learning rate for all parameters: `lr` times the
    factor of the recipe's schedule.

    `clip`: gradients of a larger global norm are scaled to this norm; None: no clipping. Raises ValueError for `betas`
    outside [0, 1).
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float | None

    def __post_init__(self) -> None:
        check_below_one(self, "betas")

    def build(self, parameters: list[Tensor]) -> torch.optim.AdamW:
        """torch's fused AdamW over `parameters`."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )


@part
class Ema(Part):
    """Exponential moving average of the float32 master weights, with decay min(decay, (1 + n)/(10 + n)) at update n,
    counted from 1, so that the first decay is 2/11 (s-sahoo/duo@7c9b498 models/ema.py:41-44;
    docs/method.md#duo-hyperparameters).
    """

    version = 2

    decay: float

    def __post_init__(self) -> None:
        check_below_one(self, "decay")

    def rate(self, step: int) -> float:
        """Decay min(decay, (1 + n) / (10 + n)) of the moving average of the weights in its update number n = `step` +
        1, which follows optimizer step `step` (counted from 0)."""
        return min(self.decay, (2 + step) / (11 + step))


def cast_to_bfloat16(network: nn.Module) -> None:
    """Cast a network's parameters to bfloat16 in place, but not its buffers: rotary frequencies need float32."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _local(tensor: Tensor) -> Tensor:
    """This process's shard of a DTensor; any other tensor unchanged."""
    if not hasattr(tensor, "placements"):  # importing DTensor takes most of a second
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor.to_local()


class MasterWeights:
    """The master weights of `network`: `weights`, parameter name -> tensor that the optimizer updates, and `average`,
    name -> exponential moving average (empty without `ema`).

    Frozen parameters of the network are in neither. Under precision `bf16_master` the weights are float32 copies of the
    network's bfloat16 parameters; otherwise they are the network's parameters themselves.
    """

    def __init__(self, network: nn.Module, precision: Precision, ema: Ema | None) -> None:
        from repro.models.denoiser import trained_parameters

        self.network_weights = trained_parameters(network)
        self.precision = precision
        self.ema = ema
        if precision == "bf16_master":
            self.weights = {n: p.detach().clone().float() for n, p in self.network_weights.items()}
        else:
            self.weights = dict(self.network_weights)
        if precision in ("bf16_master", "bf16_pure"):
            cast_to_bfloat16(network)
        self.average = {n: p.detach().clone().float() for n, p in self.weights.items()} if ema else {}

    def parameters(self) -> list[Tensor]:
        """The master weights as a list, in the order of the network's parameters."""
        return list(self.weights.values())

    @property
    def separate(self) -> bool:
        """Whether the master weights are float32 copies of the network's parameters (precision `bf16_master`), with
        gradients of their own, summed in float32."""
        return self.precision == "bf16_master"

    def collect_gradients(self) -> None:
        """If master weights are separate: add the gradients of the network's parameters to those of the master weights,
        in float32, and delete the former."""
        if not self.separate:
            return
        for name, parameter in self.network_weights.items():
            if parameter.grad is not None:
                master, gradient = self.weights[name], parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Gradients of the master weights; weights without a gradient are left out."""
        return [p.grad for p in self.weights.values() if p.grad is not None]

    def update_network(self, step: int) -> None:
        """Copy the master weights into the network and update the moving average of the master weights; to be called
        after optimizer step `step`, which is counted from 0."""
        self.copy_to_network()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(
                    [_local(average) for average in self.average.values()],
                    [_local(p.detach()).float() for p in self.weights.values()],
                    1 - self.ema.rate(step),
                )

    def copy_to_network(self) -> None:
        """If master weights are separate: copy them into the network's parameters, cast to bfloat16."""
        if self.separate:
            with torch.no_grad():
                for name, parameter in self.network_weights.items():
                    parameter.copy_(self.weights[name])
