"""Predictions with processed logits: what logits processors (`repro.samplers.logits_processors`) hand to a rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repro.models.denoiser import Head
from repro.models.prediction import Prediction


class ProcessedPrediction(Prediction):
    """`transform(logits [N, V]) -> [N, V]` of another prediction, which counts the forwards."""

    def __init__(self, prediction: Prediction, transform: Callable[[Tensor], Tensor]) -> None:
        self._prediction, self._transform = prediction, transform
        self._denoiser = prediction._denoiser

    def logits(self, where: Tensor) -> Tensor:
        return self._transform(self._prediction.logits(where))

    def condition(self, signal: Tensor) -> None:
        self._prediction.condition(signal)

    def features(self, where: Tensor) -> Tensor:
        raise AssertionError("processed logits have no features")

    def head(self) -> Head:
        raise AssertionError("processed logits have no head")


class GuidedPrediction(ProcessedPrediction):
    """Classifier-free guidance of two predictions, which each count their forwards."""

    def __init__(self, conditional: Prediction, unconditional: Prediction, scale: float) -> None:
        super().__init__(conditional, lambda logits: logits)
        self._unconditional, self._scale = unconditional, scale

    def logits(self, where: Tensor) -> Tensor:
        return guided_logits(self._prediction.logits(where), self._unconditional.logits(where), self._scale)


def guided_logits(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, un + (scale + 1)(cond - un), of logits [N, V]; forbidden ids stay at -inf
    (docs/method.md#llada-sampling)."""
    guided = unconditional + (scale + 1) * (conditional - unconditional)
    return torch.where(conditional.isneginf(), -torch.inf, guided)
