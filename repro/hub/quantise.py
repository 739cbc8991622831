"""Eight-bit weights: the matrices of a network's layers by torchao (the extra `quantise`), the rest in bfloat16.

    quantise(denoiser)                 in place; embeddings, norms and the head stay as they are

It saves memory and changes every number, so records keep such results apart (`weights_precision` of the protocol).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


def check() -> None:
    """ValueError where torchao is not installed; called before anything is loaded."""
    if find_spec("torchao") is None:
        raise ValueError(
            "precision int8 needs torchao, which is not installed: pip install 'dlm-repro[quantise]'"
        )


def quantise(denoiser: Denoiser) -> None:
    """Convert the matrices of the layers, [out, in], to int8 with one scale a row, in place."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for layer in denoiser.layers():
        quantize_(layer, Int8WeightOnlyConfig())
    denoiser.quantised = "int8"
