"""What a network is built for (`Role`), and what a process needs of it: the meaning of its output, and its predictions
at given positions.

The network itself is in repro.models; `repro.models.prediction.Prediction` fulfils the protocol. Shapes: B rows, L
positions, N = number of True entries of a [B, L] mask, V ids, special ones included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.corpus import Data, Vocabulary

Meaning = Literal["x0_mean", "leave_one_out"]
"""What a softmax of the logits at position l estimates: the law of the clean token given all noisy tokens (`x0_mean`),
or given all noisy tokens but the one at l (`leave_one_out`); docs/method.md#uniform-samplers."""


@dataclass(frozen=True)
class Role:
    """What a network is built for: the `data` whose ids it reads, the `forbidden` ids, which are never a clean token,
    and the `meaning` of its output, "x0_mean" or "leave_one_out" (`Meaning`)."""

    data: Data
    forbidden: tuple[int, ...]
    meaning: Meaning

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of `data` (`Vocabulary`): how many there are, and which are mask, BOS, EOS and padding."""
        return self.data.vocabulary()


TokenLoss = Callable[..., "Tensor"]
"""Loss per token, called as loss(logits [n, V], *further tensors [n]): returns [n], or [S, n] with S terms per token,
the first of which is the loss."""


class HandDerived(NamedTuple):
    """A token loss with a hand-written derivative. `loss(logits, *further)` is the plain function (`TokenLoss`);
    `differentiate` takes the same arguments, returns the same values, and overwrites the logits [n, V] by the
    derivative of each token's loss with respect to them. Calling the object calls `loss`."""

    loss: TokenLoss
    differentiate: TokenLoss

    def __call__(self, *given: Tensor) -> Tensor:
        return self.loss(*given)


class Prediction(Protocol):
    """Interface of the predictions of one network for one batch of noisy tokens [B, L], which are computed only at the
    positions where they are requested."""

    @property
    def meaning(self) -> Meaning:
        """What a softmax of the network's logits estimates, "x0_mean" or "leave_one_out" (see `Meaning`)."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary with V ids: column v of the logits [N, V] belongs to id v."""
        ...

    def logits(self, where: Tensor) -> Tensor:
        """Logits [N, V] at the N True entries of `where` [B, L], in row-major order; -inf for ids that are never clean
        tokens (`Process.forbidden`)."""
        ...

    def probs(self, where: Tensor) -> Tensor:
        """Probabilities of the V ids, float64 [N, V], at the N True entries of `where` [B, L]."""
        ...


Predict = Callable[["Tensor", "Tensor"], Prediction]
"""Function that runs the network: (noisy ids [B, L], times t [B]) -> `Prediction`."""
