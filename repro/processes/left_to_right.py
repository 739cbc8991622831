"""Autoregression as a process of its own: positions not yet written, one written at a time, left to right
(docs/method.md#ar-baseline).

The network reads BOS and the tokens before a position; -log p is exact, so its "bound" has no draws and no gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.processes.process import Process, cross_entropy, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.process import Predict


@part
class LeftToRight(Process):
    """Next-token factorisation of the whole row, BOS in front."""

    causal = True
    exact = True

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return tuple(range(vocabulary.size, vocabulary.total))

    def inputs(self, x0: Tensor, vocabulary: Vocabulary) -> Tensor:
        """What the network reads to predict x0 [B, L]: BOS and all but the last token, [B, L]."""
        if vocabulary.bos is None:
            raise ValueError("autoregression needs a BOS id and this data source has none")
        return torch.nn.functional.pad(x0[:, :-1], (1, 0), value=vocabulary.bos)

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        prediction = predict(self.inputs(x0, vocabulary), torch.zeros_like(u))
        return row_sums(cross_entropy(prediction.logits(candidates), x0[candidates]).double(), candidates)
