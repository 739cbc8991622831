"""Eight-bit weights for evaluation: matrices of the layers in int8 by torchao (the extra `quantise`), the rest in
bfloat16.

    quantise(denoiser)                 in place; embeddings, norms and the output layer are not changed

This saves memory but changes every result. The stored protocol of such results names the precision
(`weights_precision`), so that tables do not mix them with others.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


def check() -> None:
    """Raise ValueError if torchao is not installed; to be called before any weights are loaded."""
    if find_spec("torchao") is None:
        raise ValueError(
            "precision int8 needs torchao, which is not installed: pip install 'dlm-repro[quantise]'"
        )


def quantise(denoiser: Denoiser) -> None:
    """Convert the weight matrices [out, in] of the denoiser's layers to int8, with one scale per output, in place."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for layer in denoiser.layers():
        quantize_(layer, Int8WeightOnlyConfig())
    denoiser.quantised = "int8"
