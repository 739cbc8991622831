"""Output layer and loss in one operation: no [N, V] tensor is ever alive, and three matrix products do the work.

    value, terms = fused_loss(features, head, loss, weight, *each)

    value    sum over n of weight_n * loss_n, with gradients to features, head weight and head bias
    terms    what `loss` gave for each token, without gradient (for logs)
    loss     any differentiable function (logits [n, V], *[n] of `each`) -> [n], or [S, n] with the loss in row 0

The dense loss is the definition; here it runs on some tokens at a time. Every objective knows the weight of a token
before the forward, so the gradient of the weighted sum is taken chunk by chunk *in the forward*, while the logits are
at hand, and backward only scales it. Recomputing logits in backward needs a fourth product and each loss twice: at
V = 50,368, D = 256, N = 1024 on one thread 1.5 s instead of 1.0 s (cross-entropy), 1.9 s instead of 1.25 s (symmetric
KL). It would hold no less: the weight's gradient is the one large buffer of both, and the head comes first in backward.
Hand-written derivatives gained 2 % (cross-entropy), `torch.compile` of a loss 0 to 6 %, but 30 % for the script's.

Torch operations only. Products run in the autocast precision where that is on; logits reach the loss in float32 at
least, and the weight's gradient is summed over chunks in float32 at least.

Shapes: N tokens (n in a chunk), D features, V ids, S terms of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repro.backbones.denoiser import Head
from repro.ops import CHUNK, CHUNK_ACCELERATOR

TokenLoss = Callable[..., Tensor]
"""(logits [n, V], *[n]) -> [n], or [S, n] with the loss in row 0."""


def fused_loss(
    features: Tensor, head: Head, loss: TokenLoss, weight: Tensor, *each: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of `loss` over tokens, and each token's terms: features [N, D], weight [N] -> scalar, [N] or [S, N].

    `each` [N]: what the loss needs beside the logits (labels, noise levels). What `head.forbidden` names is *not*
    forbidden here; `head.clean()` does that. The scalar has the precision of `weight`; it can be differentiated once.
    Raises ValueError when the head's weight is sharded.
    """
    if hasattr(head.weight, "placements"):  # a DTensor, whose import would cost most of a second
        raise ValueError(
            "the head's weight is a DTensor; call the loss inside the door (Wrapped.forward), where it is whole"
        )
    x, w, b = head_inputs = features, head.weight, head.bias
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in head_inputs):
        return _FusedLoss.apply(x, w, b, weight, loss, each)
    with torch.no_grad():
        terms = torch.cat([loss(logits, *given) for _, logits, given in _chunks(x, w, b, each)], -1)
    return _weighted(terms, weight).sum(), terms


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        weight: Tensor,
        loss: TokenLoss,
        each: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        x, w, b = _in_working_precision(features, matrix, bias)
        wide = torch.promote_types(w.dtype, torch.float32)
        grad_x = torch.empty_like(features)
        grad_w = torch.zeros_like(matrix, dtype=wide)
        grad_b = torch.zeros_like(bias, dtype=wide) if bias is not None and bias.requires_grad else None
        found = []
        for some, logits, given in _chunks(x, w, b, each):
            terms, grad_logits = _differentiated(loss, logits, weight[some], given)
            found.append(terms)
            if grad_b is not None:
                grad_b += grad_logits.sum(0)
            narrow = grad_logits.to(w.dtype)
            grad_x[some] = narrow @ w
            if wide == w.dtype:
                grad_w.addmm_(narrow.T, x[some])
            else:
                grad_w += narrow.T @ x[some]
            del logits, grad_logits, narrow  # before the next chunk's are made
        terms = torch.cat(found, -1)
        ctx.save_for_backward(grad_x, grad_w, grad_b)
        ctx.mark_non_differentiable(terms)
        return _weighted(terms, weight).sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (grad if grad is None else grad * upstream for grad in ctx.saved_tensors)
        return (*scaled, None, None, None)


def _differentiated(
    loss: TokenLoss, logits: Tensor, weight: Tensor, given: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Terms of a chunk, and the gradient of its weighted loss by its logits [n, V]."""
    with torch.enable_grad():
        terms = loss(logits.requires_grad_(), *given)
        (gradient,) = torch.autograd.grad(_weighted(terms, weight).sum(), logits)
    return terms.detach(), gradient


def _weighted(terms: Tensor, weight: Tensor) -> Tensor:
    """Weight [n] times the loss among the terms [n] or [S, n] -> [n], in the weight's precision."""
    return weight * (terms if terms.ndim == 1 else terms[0]).to(weight.dtype)


def _in_working_precision(
    features: Tensor, matrix: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands of the products: cast once for all chunks where autocast is on, which leaves float64 alone."""
    device = features.device.type
    if not torch.is_autocast_enabled(device) or features.dtype == torch.float64:
        return features, matrix, bias
    narrow = torch.get_autocast_dtype(device)
    return features.to(narrow), matrix.to(narrow), None if bias is None else bias.to(narrow)


def _chunks(
    x: Tensor, w: Tensor, b: Tensor | None, each: tuple[Tensor, ...]
) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """A chunk of tokens, their logits [n, V] in float32 at least, their part of `each`; for N = 0 one of none."""
    rows = max(1, (CHUNK if x.device.type == "cpu" else CHUNK_ACCELERATOR) // len(w))
    for start in range(0, max(1, len(x)), rows):
        some = slice(start, start + rows)
        logits = torch.nn.functional.linear(x[some], w, b)
        yield some, logits.to(torch.promote_types(logits.dtype, torch.float32)), [v[some] for v in each]
