"""What a process needs of a network: the meaning of its output, and its predictions at given positions.

The network itself is in repro.models; `repro.models.prediction.Prediction` fulfils the protocol. Shapes: B rows, L
positions, N = number of True entries of a [B, L] mask, V ids, special ones included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.corpus import Vocabulary

Meaning = Literal["x0_mean", "leave_one_out"]
"""What a softmax of the logits at position l estimates: the law of the clean token given all noisy tokens (`x0_mean`),
or given all noisy tokens but the one at l (`leave_one_out`); docs/method.md#uniform-samplers."""

TokenLoss = Callable[..., "Tensor"]
"""A loss by token: (logits [n, V], further inputs *[n]) -> [n], or [S, n] with the loss in row 0."""


class Prediction(Protocol):
    """Predictions of one network for one batch of noisy tokens [B, L]; computed only where they are needed."""

    @property
    def meaning(self) -> Meaning:
        """What the network estimates."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids that its logits are of."""
        ...

    def logits(self, where: Tensor) -> Tensor:
        """Logits [N, V] at the True entries of `where` [B, L], in row-major order; forbidden ids are -inf."""
        ...

    def probs(self, where: Tensor) -> Tensor:
        """Probabilities [N, V] at `where`, float64."""
        ...


Predict = Callable[["Tensor", "Tensor"], Prediction]
"""(noisy ids [B, L], t [B]) -> Prediction."""
