"""How fast this processor multiplies bfloat16 matrices; a training run on a CPU prints a line about it when it begins.

Some processors have instructions for such products (AMX, AVX512-BF16, SVE), others emulate them and are slower than in
float32. The precision is a setting of the recipe and is never changed automatically; apart from rounding, each
precision gives the same training (docs/method.md#scales).
"""

from __future__ import annotations

import time

import torch

from repro.models.products import linear

SHAPE = (2048, 256, 1024)
"""Tokens, inputs and outputs of the linear layer that is timed; float32 takes about 10 ms of one core."""
SECONDS = 0.05
"""CPU time for which a product is repeated: some systems count CPU time in steps of 10 ms."""
PAYS = 1.3
"""Ratio from which bfloat16 autocast is worth its casts."""


def ratio() -> float:
    """CPU time of a linear layer in float32 divided by that in bfloat16 on this CPU."""
    tokens, inputs, outputs = SHAPE

    def seconds(dtype: torch.dtype) -> float:
        x, weight = torch.ones(tokens, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
        linear(x, weight)  # chooses the kernel
        began, count, spent = time.process_time(), 0, 0.0
        while spent < SECONDS:
            linear(x, weight)
            count, spent = count + 1, time.process_time() - began
        return spent / count

    return seconds(torch.float32) / seconds(torch.bfloat16)


def note(precision: str, device: torch.device) -> str | None:
    """One line of text on how fast training in `precision` is on this CPU; None for precision "float32", and if
    `device` is not the CPU."""
    if device.type != "cpu" or precision == "float32":
        return None
    found = ratio()
    line = (
        f"precision {precision}: this CPU multiplies bfloat16 matrices {found:.1f} times as fast as float32"
    )
    if found >= PAYS:
        return line
    return f"{line}; --set precision=float32 is faster here and differs in rounding only (the run's name then says so)"
