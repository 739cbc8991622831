"""float32 matrix products on CPUs where torch's own leave half of the speed unused.

torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors alone; oneDNN, which torch holds
too, uses it on AMD's as well. There a product by oneDNN takes .4 to .5 of the time (256 rows and more) or .6 (16 rows;
docs/method.md#cpu-products). Both sum in float32 and differ by rounding, as two processors do. With oneDNN a row of a
product has the same bits whatever the other rows are, from 2 rows on (MKL: from 4).

Elsewhere, in other precisions, under autocast and on other devices, products are torch's own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from repro.core.devices import processor_maker
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 8
"""Products have a multiple of this number of rows, or fewer: oneDNN compiles code for each number of rows, which takes
half a millisecond and more."""


@cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL on this CPU: an AMD processor with AVX-512."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in processor_maker()
    )


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., D] times the transpose of weight [V, D], plus bias [V], by oneDNN and without gradient. A transposed
    matrix is taken as it is; tensors with other strides are copied (oneDNN would use a slow product of its own)."""
    x, weight = (
        t if t.is_contiguous() or (t.ndim == 2 and t.T.is_contiguous()) else t.contiguous()
        for t in (x, weight)
    )
    rows = x.numel() // x.shape[-1]
    short = -rows % ROWS if rows > ROWS and x.is_contiguous() else 0
    if not short:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    padded = torch.nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, short))
    found = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "none", [], "")
    return found[:rows].view(*x.shape[:-1], len(weight))
