"""Dropout whose masks are drawn by random keys, and so are equal on every device and after a run is resumed."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.core import rng


def drop(x: Tensor, keys: Tensor | None, rate: float) -> Tensor:
    """x [B, L, D] after dropout at `rate`, drawn from one random key per row, `keys` [B]; x itself if `keys` is None.

    bfloat16 cannot represent the scale 1 / (1 - rate), so the product is computed in float32 at least.
    """
    if keys is None:
        return x
    scale = (rng.uniform(keys, *x.shape[1:]) >= rate) / (1 - rate)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * scale.to(wide.dtype)).to(x.dtype)
