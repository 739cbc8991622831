"""Optimizer, precision and weight average as pins; what changes during training is kept beside and checkpointed.

Precision (a recipe's pin; an engine realises it or refuses):
    float32         everything in float32
    bf16_autocast   float32 weights, forward and backward under bfloat16 autocast
    bf16_master     bfloat16 weights in the network, float32 masters in the optimizer
    bf16_pure       weights, gradients and Adam states in bfloat16 (the seed's masked script;
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
    """AdamW (Loshchilov, Hutter 2019), one learning rate for all parameters; clip by the global norm, or none."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float | None

    def build(self, parameters: list[Tensor]) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )


@part
class Ema(Part):
    """Exponential average of the float32 masters with decay min(decay, (1 + n)/(10 + n)) at update n
    (docs/method.md#duo-hyperparameters).

    Here n counts from 0, so the first rate is 1/10; s-sahoo/duo models/ema.py counts first and begins with 2/11.
    """

    decay: float

    def rate(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


def lower(network: nn.Module) -> None:
    """Weights to bfloat16, in place; no buffers: bfloat16 would bend the rotary frequencies."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _here(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its shard of a DTensor (whose import would cost most of a second)."""
    if not hasattr(tensor, "placements"):
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor.to_local()


class MasterWeights:
    """The weights that the optimizer moves, by parameter name, and their average.

    Under `bf16_master` they are float32 copies of the network's bfloat16 weights; else they are the weights themselves.
    """

    def __init__(self, network: nn.Module, precision: Precision, ema: Ema | None) -> None:
        self.named = dict(network.named_parameters())
        self.precision = precision
        self.ema = ema
        if precision == "bf16_master":
            self.master = {n: p.detach().clone().float() for n, p in self.named.items()}
        else:
            self.master = dict(self.named)
        if precision in ("bf16_master", "bf16_pure"):
            lower(network)
        self.average = {n: p.detach().clone().float() for n, p in self.master.items()} if ema else {}

    def parameters(self) -> list[Tensor]:
        return list(self.master.values())

    @property
    def apart(self) -> bool:
        """Whether masters are copies, which collect gradients in float32 and exchange them themselves."""
        return self.precision == "bf16_master"

    def collect(self) -> None:
        """After a microbatch's backward: add the network's gradients to those of masters that stand apart."""
        if not self.apart:
            return
        for name, parameter in self.named.items():
            if parameter.grad is not None:
                master, gradient = self.master[name], parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.master.values() if p.grad is not None]

    def give_weights(self, step: int) -> None:
        """After an optimizer step: masters back into the network, and the average moved on."""
        self.refresh()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(
                    [_here(average) for average in self.average.values()],
                    [_here(p.detach()).float() for p in self.master.values()],
                    1 - self.ema.rate(step),
                )

    def refresh(self) -> None:
        """MasterWeights that stand apart back into the network."""
        if self.apart:
            with torch.no_grad():
                for name, parameter in self.named.items():
                    parameter.copy_(self.master[name])
