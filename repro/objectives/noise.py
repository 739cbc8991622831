"""Distributions of the noise level of a training row."""

from __future__ import annotations

from repro.core.parts import Part, part


@part
class Window(Part):
    """Noise level (a time or a mask rate) uniform on [low, high]."""

    low: float
    high: float


@part
class GammaWindow(Part):
    """Noise level gamma = -log SNR that is linear in t, from `low` at t = 0 (least noise) to `high` at t = 1
    (docs/method.md#duo-curriculum)."""

    low: float
    high: float
