"""What the network alone takes of a decoding's time: no decoding loop on the same network can be faster than its
forwards, so this bounds every ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from benchmarks.row import Side
    from repro.models.denoiser import Denoiser


def forwards_alone(denoiser: Denoiser, work: Side) -> Side:
    """A function that makes the calls of the layers and of the output layer that `work` makes of `denoiser`, with the
    same arguments and in the same order, and does nothing else. `work` runs once, so that they are known."""
    calls: list[Callable[[], object]] = []
    encode, logits = denoiser.encode, denoiser.logits

    def noted_encode(tokens: Tensor, **given: Any) -> Tensor:
        cache = given.get("kv_cache")
        place = None if cache is None else (cache.span, cache.rows)

        def again() -> None:
            if cache is not None and place is not None:
                cache.span, cache.rows = place
            encode(tokens, **given)

        calls.append(again)
        return encode(tokens, **given)

    def noted_logits(features: Tensor) -> Tensor:
        calls.append(lambda: denoiser.head().logits(features))
        return logits(features)

    denoiser.encode, denoiser.logits = noted_encode, noted_logits  # ty: ignore[invalid-assignment]
    try:
        work()
    finally:
        del denoiser.encode, denoiser.logits
    return lambda: _all(calls)


def _all(calls: list[Callable[[], object]]) -> None:
    from repro.core.lazy import torch

    with torch.no_grad():
        for call in calls:
            call()
