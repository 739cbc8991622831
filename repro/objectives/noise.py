"""Distributions of the noise level of a training row."""

from __future__ import annotations

from repro.core.parts import Part, part


@part
class Window(Part):
    """Uniform on [low, high]."""

    low: float
    high: float


@part
class GammaWindow(Part):
    """Linear in gamma = -log SNR from `low` (t = 0, least noise) to `high` (t = 1) (docs/method.md#duo-curriculum)."""

    low: float
    high: float
