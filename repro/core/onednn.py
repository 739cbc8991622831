"""float32 matrix products by oneDNN on AMD processors with AVX-512, where those of torch take twice as long.

torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors alone; oneDNN, a library that torch
contains too, uses AVX-512 on AMD's as well. There a product by oneDNN takes 0.4 to 0.5 of MKL's time with 256 rows and
more, 0.6 with 16 rows (docs/method.md#cpu-products). Both sum in float32; their results differ by rounding. The bits of
a row of a product do not depend on the other rows if there are at least 2 rows (MKL: 4).

On other processors and devices, in other precisions and under autocast, torch's own products are used.
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
    """[..., V]: x [..., D] times the transpose of weight [V, D], plus bias [V], float32, by oneDNN, without gradient.
    Tensors that are neither contiguous nor a transposed contiguous matrix are copied first: oneDNN would multiply them
    slowly."""
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
