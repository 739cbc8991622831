"""Optimizer, precision and weight average: the recipe's pins, and the master weights that an engine trains.

Precision (a recipe's pin; an engine implements it or refuses):
    float32         everything in float32
    bf16_autocast   float32 weights, forward and backward under bfloat16 autocast
    bf16_master     bfloat16 weights in the network, float32 master weights in the optimizer
    bf16_pure       weights, gradients and Adam states in bfloat16 (masked reference script;
                    docs/method.md#masked-script)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro.core.lazy import torch
from repro.core.parts import Part, part

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["float32", "bf16_autocast", "bf16_master", "bf16_pure"]


@part
class AdamW(Part):
    """AdamW (Loshchilov and Hutter 2019) with one learning rate for all parameters.

    `clip`: largest global norm of the gradient; None: no clipping.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float | None

    def build(self, parameters: list[Tensor]) -> torch.optim.AdamW:
        """torch's optimizer over `parameters`."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )


@part
class Ema(Part):
    """Exponential average of the float32 master weights with decay min(decay, (1 + n)/(10 + n)) at update n
    (docs/method.md#duo-hyperparameters).

    Here n counts from 0, so the first decay is 1/10; s-sahoo/duo models/ema.py counts before and begins with 2/11.
    """

    decay: float

    def rate(self, step: int) -> float:
        """The decay at update `step`, from 0."""
        return min(self.decay, (1 + step) / (10 + step))


def cast_to_bfloat16(network: nn.Module) -> None:
    """Cast the weights to bfloat16 in place, but not the buffers: rotary frequencies need float32."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor: the shard of a DTensor, else the tensor itself."""
    if not hasattr(tensor, "placements"):  # importing DTensor takes most of a second
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor.to_local()


class MasterWeights:
    """The `weights` that the optimizer updates, by parameter name, and their `average` (empty without `ema`).

    Under `bf16_master` they are float32 copies of the network's bfloat16 weights; otherwise the network's weights.
    """

    def __init__(self, network: nn.Module, precision: Precision, ema: Ema | None) -> None:
        self.network_weights = dict(network.named_parameters())
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
        """The master weights, for the optimizer."""
        return list(self.weights.values())

    @property
    def separate(self) -> bool:
        """Whether master weights are copies, whose gradients are summed in float32."""
        return self.precision == "bf16_master"

    def collect_gradients(self) -> None:
        """Move the network's gradients of a microbatch to separate master weights, adding them up in float32."""
        if not self.separate:
            return
        for name, parameter in self.network_weights.items():
            if parameter.grad is not None:
                master, gradient = self.weights[name], parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Gradients of the master weights that have one."""
        return [p.grad for p in self.weights.values() if p.grad is not None]

    def update_network(self, step: int) -> None:
        """After optimizer step `step`: copy master weights into the network and update the average."""
        self.copy_to_network()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(
                    [_local(average) for average in self.average.values()],
                    [_local(p.detach()).float() for p in self.weights.values()],
                    1 - self.ema.rate(step),
                )

    def copy_to_network(self) -> None:
        """Copy separate master weights into the network."""
        if self.separate:
            with torch.no_grad():
                for name, parameter in self.network_weights.items():
                    parameter.copy_(self.weights[name])
