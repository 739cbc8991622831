"""A training step of scale `micro` under bfloat16 autocast, against the same step in float32."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.row import Row, interleaved

if TYPE_CHECKING:
    from torch import Tensor

RECIPES = ("ar", "mdlm", "duo_nelbo")
COMPARED = 10
"""Step whose loss is compared."""


def precision(repeats: int) -> list[Row]:
    """Seconds of a training step of each recipe at its batch and sizes, with the optimizer step and without preparing
    data.

    What bfloat16 gains depends on the processor (AMX, AVX512-BF16, none) and on the share of matrix products in a step.
    """
    from repro.core.parts import derive
    from repro.data.corpus import prepared
    from repro.recipes.scale import by_name
    from repro.training.engines import PLAIN, engine
    from repro.training.loop import Training

    rows = [_products(repeats)]
    for name in RECIPES:
        recipe = by_name(f"{name}@micro")
        corpus = prepared(recipe.data)
        with ExitStack() as stack:
            narrow, wide = (
                Training(
                    derive(recipe, {"precision": kind}),
                    corpus,
                    {},
                    0,
                    stack.enter_context(engine(PLAIN)),
                    None,
                )
                for kind in ("bf16_autocast", "float32")
            )
            for _ in range(COMPARED - 1):  # the first step's loss is ln V whatever the precision
                narrow.advance(), wide.advance()
            losses = [float(each.advance()["loss"]) for each in (narrow, wide)]
            millions = sum(tensor.numel() for tensor in narrow.engine.weights().values()) / 1e6
            tokens = recipe.batch * recipe.data.row_length()
            rows.append(
                interleaved(
                    f"training step in bfloat16, {recipe.name}, {millions:.1f} M parameters, {tokens:,} tokens",
                    narrow.advance,
                    wide.advance,
                    3.0,
                    repeats,
                    f"loss of step {COMPARED} differs by {abs(losses[0] - losses[1]) / losses[1]:.0e} of it",
                )
            )
    return rows


def _products(repeats: int) -> Row:
    """Seconds of a linear layer of the networks' sizes, forward alone."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator) for shape in ((2048, 256), (1024, 256)))
    narrow, wide = ((x.to(kind), weight.to(kind)) for kind in (torch.bfloat16, torch.float32))

    def work(operands: tuple[Tensor, Tensor]) -> Tensor:
        return torch.nn.functional.linear(*operands)

    apart = (work(narrow).float() - work(wide)).norm() / work(wide).norm()
    return interleaved(
        "linear layer in bfloat16, 2,048 x 256 x 1,024",
        partial(work, narrow),
        partial(work, wide),
        3.0,
        10 * repeats,
        f"differs by {apart:.0e} of its norm",
    )
