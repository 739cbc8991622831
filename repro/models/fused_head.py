"""Output layer and loss in one operation: no [N, V] tensor is ever held, and three matrix products do the work.

    value, terms = fused_loss(features, head, loss, weight, *each)

    value    sum over n of weight_n * loss_n, with gradients to features, head weight and head bias
    terms    the output of `loss` for each token, without gradient (for logs)
    loss     any differentiable function (logits [n, V], *[n] of `each`) -> [n], or [S, n] with the loss in row 0;
             or one with a hand-written derivative (`repro.processes.prediction.HandDerived`)

The result is that of the loss on all logits at once. Every objective knows the weight of a token before the forward, so
the gradient of the weighted sum is computed chunk by chunk *in the forward*, while the logits exist, and backward only
scales it. Recomputing logits in backward needs a fourth product and each loss twice: at V = 50,368, D = 256, N = 1024
on one thread 1.5 s instead of 1.0 s (cross-entropy), 1.9 s instead of 1.25 s (symmetric KL). It would save no memory:
with either method the gradient of the head's weight is the one large buffer, and backward begins with the head.

The matrix products take a chunk of tokens (`CHUNK`), the loss a block of the chunk (`BLOCK`). The gradient overwrites
the logits, and token weights scale [n, D] operands instead of [n, V] ones. At the sizes above the three products take
.57 s; the passes over [n, V] of the symmetric KL take .1 s by hand and .3 s by autograd, those of the reference
script's form .3 s and .57 s, those of the bound of uniform noise, which are in float64, .25 s and .5 s. Cross-entropy
makes few such passes (.14 s), so its derivative is autograd's.

Torch operations only. Products run in the autocast precision if autocast is on; the loss sees logits in float32 at
least, and the weight's gradient is summed over chunks in float32 at least.

Shapes: N tokens (n in a chunk or block), D features, V vocabulary size, S terms of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repro.core.onednn import onednn
from repro.models.chunks import BLOCK, BLOCK_ACCELERATOR, CHUNK, CHUNK_ACCELERATOR
from repro.models.denoiser import Head
from repro.models.products import suits_onednn
from repro.processes.prediction import HandDerived, TokenLoss


def fused_loss(
    features: Tensor, head: Head, loss: TokenLoss, weight: Tensor, *each: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of `loss` over N tokens, a scalar, and the terms of each token, [N] or [S, N].

    `features` [N, D]; `head`: the output layer; `weight` [N]: weight of each token; `each`: tensors [N] that the loss
    also takes (labels, noise levels). Forbidden ids are *not* masked out here; pass `head.clean()` for that. The scalar
    has the precision of `weight`, and can be differentiated once. Raises ValueError if the head's weight is sharded.
    """
    if hasattr(head.weight, "placements"):  # a DTensor, whose import would cost most of a second
        raise ValueError(
            "the head's weight is a sharded DTensor; compute the loss inside ForwardWrapper.forward, where it is whole"
        )
    x, w, b = head_inputs = features, head.weight, head.bias
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in head_inputs):
        return _FusedLoss.apply(x, w, b, weight, loss, each, head.fast)
    with torch.no_grad():
        chunks = _chunks(x, w, b, each, head.fast)
        found = [
            loss(_wide(part), *rest) for _, logits, given in chunks for part, rest in _blocks(logits, given)
        ]
    terms = torch.cat(found, -1)
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
        fast: bool,
    ) -> tuple[Tensor, Tensor]:
        x, w, b = _in_working_precision(features, matrix, bias)
        wide = torch.promote_types(w.dtype, torch.float32)
        grad_x = torch.empty_like(features)
        grad_w = None
        grad_b = torch.zeros_like(bias, dtype=wide) if bias is not None and bias.requires_grad else None
        found = []
        for some, logits, given in _chunks(x, w, b, (weight, *each), fast):
            for block, (share, *rest) in _blocks(logits, given):
                found.append(_differentiate(loss, block, share, rest, grad_b))
            scale = weight[some, None].to(w.dtype)
            grad_x[some] = (onednn(logits, w.T) if fast and suits_onednn(logits, w) else logits @ w).mul_(
                scale
            )
            scaled = x[some] * scale
            if not matrix.requires_grad:  # a frozen output layer
                continue
            if grad_w is None:
                grad_w = (logits.T @ scaled).to(wide)
            elif wide == w.dtype:
                grad_w.addmm_(logits.T, scaled)
            else:
                grad_w += logits.T @ scaled
        terms = torch.cat(found, -1)
        ctx.save_for_backward(grad_x, grad_w, grad_b)
        ctx.mark_non_differentiable(terms)
        return _weighted(terms, weight).sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (grad if grad is None else grad * upstream for grad in ctx.saved_tensors)
        return (*scaled, None, None, None, None)


def _differentiate(
    loss: TokenLoss, block: Tensor, weight: Tensor, given: list[Tensor], grad_b: Tensor | None
) -> Tensor:
    """Loss terms of a block's n tokens, [n] or [S, n]. Overwrites the logits `block` [n, V] by d loss_n / d logits_n,
    and adds the sum of these, weighted by `weight` [n], to `grad_b` [V], the gradient of the output layer's bias (None:
    not needed). `given`: tensors [n] that the loss also takes."""
    logits = _wide(block)
    if isinstance(loss, HandDerived):
        terms, gradient = loss.differentiate(logits, *given), logits
    else:
        with torch.enable_grad():
            terms = loss(leaf := logits.detach().requires_grad_(), *given)
            (gradient,) = torch.autograd.grad((terms if terms.ndim == 1 else terms[0]).sum(), leaf)
    if grad_b is not None:
        grad_b.addmv_(gradient.T, weight.to(grad_b.dtype))
    if gradient is not block:
        block.copy_(gradient)
    return terms.detach()


def _weighted(terms: Tensor, weight: Tensor) -> Tensor:
    """Weight times loss of each token, [n], in the precision of `weight` [n]. The loss is `terms` if this tensor is
    [n], and its row 0 if it is [S, n]."""
    return weight * (terms if terms.ndim == 1 else terms[0]).to(weight.dtype)


def _in_working_precision(
    features: Tensor, matrix: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands of the matrix products: features [N, D], weight `matrix` [V, D] and bias [V] (or None), cast to the
    precision of autocast if that is on and the features are not float64; once, for all chunks."""
    device = features.device.type
    if not torch.is_autocast_enabled(device) or features.dtype == torch.float64:
        return features, matrix, bias
    narrow = torch.get_autocast_dtype(device)
    return features.to(narrow), matrix.to(narrow), None if bias is None else bias.to(narrow)


def _chunks(
    x: Tensor, w: Tensor, b: Tensor | None, each: tuple[Tensor, ...], fast: bool
) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """Iterator over chunks of n tokens, each as (slice of the N tokens, logits [n, V], the slices [n] of the tensors
    `each` [N]); one empty chunk if N is 0. `x` [N, D]: features; `w` [V, D] and `b` [V] or None: weight and bias of the
    output layer; `fast`: whether oneDNN multiplies where it is faster.

    All chunks share one buffer of logits, because glibc returns buffers beyond 32 MiB to the system when they are
    freed, and each new one would cost page faults. Where oneDNN multiplies, it makes its own buffers.
    """
    most = max(1, (CHUNK if x.device.type == "cpu" else CHUNK_ACCELERATOR) // len(w))
    rows = max(1, -(-len(x) // max(1, -(-len(x) // most))))  # as few chunks as possible, of equal size
    fast = fast and suits_onednn(x, w)
    buffer = None if fast else x.new_empty(min(rows, len(x)), len(w))
    for start in range(0, max(1, len(x)), rows):
        some = slice(start, start + rows)
        if buffer is None:
            yield some, onednn(x[some], w, b), [v[some] for v in each]
            continue
        logits = buffer[: len(x[some])]
        if b is None:
            torch.mm(x[some], w.T, out=logits)
        else:
            torch.addmm(b, x[some], w.T, out=logits)
        yield some, logits, [v[some] for v in each]


def _blocks(logits: Tensor, each: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Iterator over blocks of n tokens of a chunk, each as (logits [n, V], a view of the chunk's `logits`; the slices
    [n] of the tensors `each`, which have one entry per token of the chunk)."""
    rows = max(1, (BLOCK if logits.device.type == "cpu" else BLOCK_ACCELERATOR) // logits.shape[1])
    for start in range(0, max(1, len(logits)), rows):
        some = slice(start, start + rows)
        yield logits[some], [v[some] for v in each]


def _wide(logits: Tensor) -> Tensor:
    """Logits in float32 at least: the same tensor, or a copy of a narrower one."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
