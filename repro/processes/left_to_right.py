"""Autoregression as a process: tokens are generated one at a time, left to right (docs/method.md#ar-baseline).

The network predicts each token from BOS and the tokens before it. `bound` returns -log p itself, without random draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.processes.process import Process, cross_entropy, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Predict


OPEN = -1
"""The id of a position that is not written yet. No network reads it, because such positions come after all that a
forward reads."""


@part
class LeftToRight(Process):
    """Autoregressive factorisation of the whole row: each token given BOS and the tokens before it."""

    noise = "left_to_right"
    causal = True

    @property
    def exact(self) -> bool:
        return True

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return tuple(range(vocabulary.size, vocabulary.total))

    def open(self, ids: Tensor, active: Tensor, vocabulary: Vocabulary) -> Tensor:
        return active & (ids == OPEN)

    def inputs(self, x0: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Ids [B, L] that the network reads: BOS (EOS if the vocabulary has no BOS) and all but the last token of the
        clean ids x0 [B, L]. ValueError for a vocabulary with neither."""
        return torch.nn.functional.pad(x0[:, :-1], (1, 0), value=vocabulary.first)

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
