"""Network predictions with processed logits, as logits processors (`repro.samplers.logits_processors`) pass them to a
sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from repro.models.chunks import BLOCK, BLOCK_ACCELERATOR
from repro.models.denoiser import Head
from repro.models.prediction import Prediction


class ProcessedPrediction(Prediction):
    """A prediction whose logits are `transform(logits)` of another prediction, for logits [N, V] at N positions over a
    vocabulary of V ids; forward passes are counted by that other prediction."""

    def __init__(self, prediction: Prediction, transform: Callable[[Tensor], Tensor]) -> None:
        self._prediction, self._transform = prediction, transform
        self._denoiser = prediction._denoiser

    def logits(self, where: Tensor) -> Tensor:
        return self._transform(self._prediction.logits(where))

    def condition(self, signal: Tensor) -> None:
        self._prediction.condition(signal)

    def features(self, where: Tensor) -> Tensor:
        raise AssertionError("a prediction with processed logits has no features; call `logits` or `probs`")

    def head(self) -> Head:
        raise AssertionError(
            "a prediction with processed logits has no output layer; call `logits` or `probs`"
        )


class GuidedPrediction(ProcessedPrediction):
    """A prediction whose logits combine a conditional and an unconditional prediction by classifier-free guidance (see
    `guided_logits`); each of the two counts its own forward passes."""

    def __init__(self, conditional: Prediction, unconditional: Prediction, scale: float) -> None:
        super().__init__(conditional, lambda logits: logits)
        self._unconditional, self._scale = unconditional, scale

    def logits(self, where: Tensor) -> Tensor:
        return guided_logits(self._prediction.logits(where), self._unconditional.logits(where), self._scale)


class PartOfPrediction(ProcessedPrediction):
    """A prediction at N given positions whose `logits` [N, V] are computed already: the method `logits` returns them,
    whatever positions it is asked for. `prediction`: the prediction that these logits are a part of."""

    def __init__(self, prediction: Prediction, logits: Tensor) -> None:
        super().__init__(prediction, lambda logits: logits)
        self._logits = logits

    def logits(self, where: Tensor) -> Tensor:
        return self._logits


def parts(prediction: Prediction, where: Tensor) -> Iterator[tuple[Tensor, Prediction]]:
    """Split the N True entries of `where` [B, L] bool into runs of consecutive entries, and yield for each run its mask
    [B, L] bool and the prediction at its positions.

    The logits of all runs are computed at once, in one matrix product; a run is so short that float64 results computed
    from its logits stay in a CPU's cache. For N = 0 it yields one pair whose mask has no True entry.
    """
    logits = prediction.logits(where)
    entries = where.flatten().nonzero()[:, 0]
    size = max(1, (BLOCK if logits.device.type == "cpu" else BLOCK_ACCELERATOR) // logits.shape[-1])
    for some, of_part in zip(entries.split(size), logits.split(size), strict=True):
        part = torch.zeros_like(where)
        part.view(-1)[some] = True
        yield part, PartOfPrediction(prediction, of_part)


def guided_logits(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Logits after classifier-free guidance, un + (scale + 1)(cond - un), [N, V], from conditional logits cond and
    unconditional logits un at N positions over V ids (docs/method.md#llada-sampling).

    Ids whose conditional logit is -inf (they may not be generated) stay at -inf.
    """
    guided = unconditional + (scale + 1) * (conditional - unconditional)
    return torch.where(conditional.isneginf(), -torch.inf, guided)
