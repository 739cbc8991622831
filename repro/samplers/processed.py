"""A prediction whose logits another prediction makes: what shapes (`repro.samplers.logits_processors`) hand to a
rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repro.models.denoiser import Head
from repro.models.prediction import Prediction


class Reshaped(Prediction):
    """`change(logits [N, V]) -> [N, V]` of what `of` says; the forwards are counted where they are made, in `of`."""

    def __init__(self, of: Prediction, change: Callable[[Tensor], Tensor]) -> None:
        self._of, self._change = of, change
        self._denoiser = of._denoiser

    def logits(self, where: Tensor) -> Tensor:
        return self._change(self._of.logits(where))

    def condition(self, signal: Tensor) -> None:
        self._of.condition(signal)

    def features(self, where: Tensor) -> Tensor:
        raise AssertionError("changed logits have no features")

    def head(self) -> Head:
        raise AssertionError("changed logits have no head")


class Mixed(Reshaped):
    """Classifier-free guidance: un + (scale + 1)(of - un), two forwards (docs/method.md#llada-sampling)."""

    def __init__(self, of: Prediction, unconditional: Prediction, scale: float) -> None:
        super().__init__(of, lambda logits: logits)
        self._unconditional, self._scale = unconditional, scale

    def logits(self, where: Tensor) -> Tensor:
        return mixed(self._of.logits(where), self._unconditional.logits(where), self._scale)


def mixed(told: Tensor, untold: Tensor, scale: float) -> Tensor:
    """un + (scale + 1)(told - un) of logits [N, V]; what is impossible stays so."""
    return torch.where(told.isneginf(), -torch.inf, untold + (scale + 1) * (told - untold))
