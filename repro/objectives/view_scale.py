"""Factors on the loss of a training row that depend on the row's noise level (*view scales*), for losses on
Gaussian-relaxed tokens (docs/method.md#script-departures row 1).

Symbols: t = 1 - A, A Gaussian signal level; alpha = T(A), the probability that a token is intact; V vocabulary size; B
rows.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from repro.core.parts import Part, part

if TYPE_CHECKING:
    from torch import Tensor


class ViewScale(Part):
    """Base class of factors on the loss of a noisy row (a *view* of the clean one) that depend on its noise level;
    subclasses give the formula, `scale`."""

    @abstractmethod
    def scale(self, t: Tensor, alpha: Tensor, vocab_size: int) -> Tensor:
        """Factors [B] on the losses of rows at times t [B], whose tokens are intact with probability alpha [B]; V =
        `vocab_size`."""


@part
class Kappa(ViewScale):
    """Factor t / (V (1 - t) + t) on the loss of a row at time t, V = `vocab_size`: kappa of Duo's NELBO (see
    `KappaOfAlpha`) with the Gaussian signal level A = 1 - t in place of alpha, as in the reference script,
    tom-pollak/dllm@43ea9ff."""

    def scale(self, t: Tensor, alpha: Tensor, vocab_size: int) -> Tensor:
        return t / (vocab_size * (1 - t) + t)


@part
class KappaOfAlpha(ViewScale):
    """Factor (1 - alpha) / (V alpha + 1 - alpha) on the loss of a row, V = `vocab_size`: kappa of Duo's NELBO at the
    probability alpha that a token of the row is intact (docs/method.md#duo-nelbo)."""

    def scale(self, t: Tensor, alpha: Tensor, vocab_size: int) -> Tensor:
        return (1 - alpha) / (vocab_size * alpha + 1 - alpha)


@part
class NoViewScale(ViewScale):
    """Factor 1 on the loss of every row, whatever its noise level."""

    def scale(self, t: Tensor, alpha: Tensor, vocab_size: int) -> Tensor:
        return t.new_ones(t.shape)
