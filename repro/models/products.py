"""Linear layers that multiply float32 matrices on a CPU with the library oneDNN where that is faster
(`repro.core.onednn`), and otherwise as torch does."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from repro.core.onednn import onednn, onednn_is_faster

M = TypeVar("M", bound=nn.Module)

LEAST = 128 * 128
"""Number of weights from which a layer is multiplied by oneDNN. A call costs 5 microseconds more than MKL's, which
smaller matrices do not win back. The number of rows does not decide, so that no row's result depends on it."""

PLAIN = (Tensor, nn.Parameter)
"""Types of weights that oneDNN takes."""


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies x [..., D] or [..., V] by the transpose of `weight` [V, D] or by `weight` itself: in
    float32 on a CPU where it is faster, if the weight is large. Weights that are subclasses of Tensor (quantised,
    sharded) and compiled code keep torch's own product."""
    return (
        not torch.compiler.is_compiling()
        and onednn_is_faster()
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and weight.numel() >= LEAST
        and x.numel() > 0
        and x.is_cpu
        and type(weight) in PLAIN
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., D] times the transpose of weight [V, D], plus bias [V]: [..., V], as `torch.nn.functional.linear`. Where
    `suits_onednn(x, weight)` is true, the result can be differentiated once only."""
    if not suits_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _Linear.apply(x, weight, bias)
    return onednn(x, weight, bias)


class _Linear(torch.autograd.Function):
    """The product of `linear` and its gradients, all computed by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = upstream.reshape(-1, upstream.shape[-1])
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            onednn(upstream, weight.T) if of_x else None,
            onednn(rows.T, x.reshape(-1, x.shape[-1]).T) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` whose matrix product is computed by `repro.models.products.linear`: by oneDNN on a CPU where
    that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class _Conv1D(nn.Module):
    """transformers' Conv1D, a linear layer with a weight [D, V], whose product is computed by `linear` above."""

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.T, self.bias)


def multiply_by_onednn(network: M) -> M:
    """The same `network`, changed in place: if oneDNN is faster on this machine, its linear layers (and transformers'
    Conv1D) multiply by `linear` from now on. Parameters stay as they are."""
    for module in network.modules() if onednn_is_faster() else ():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif (type(module).__module__, type(module).__name__) == ("transformers.pytorch_utils", "Conv1D"):
            module.__class__ = _Conv1D
    return network
