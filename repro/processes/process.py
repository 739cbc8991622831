"""What a noise process must give: corruption, its exact reverse, and a bound on -log p(x).

Symbols: x0 clean ids, xt noisy ids, t in [0, 1] with 1 = pure noise, s < t the next time, alpha(t) the probability that
a token is intact. Shapes: B rows, L positions, N positions asked for, V ids. Probabilities are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from repro.data.corpus import Vocabulary
from repro.lazy import torch
from repro.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.backbone import Meaning
    from repro.backbones.prediction import Prediction
    from repro.ops.fused_head import TokenLoss

    Predict = Callable[[Tensor, Tensor], Prediction]
    """(noisy ids [B, L], t [B]) -> Prediction."""


class Process(Part):
    """Kind: a noise process over the ids of a vocabulary."""

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        """Ids that never stand for a clean token."""
        raise AssertionError("abstract")

    def open(self, ids: Tensor, active: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The active positions [B, L] that are still undecided; by default all of them, until the plan ends."""
        return active

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        """One unbiased draw a row of an upper bound on -log p(x0 at candidates), nats, [B] float64.

        `u` [B] in (0, 1) places the diffusion time, `keys` [B] feed the corruption; prior and tail terms included.
        """
        raise AssertionError("abstract")


class Scored(NamedTuple):
    """What a bound adds up: `loss(logits [n, V], *each [n])` -> [n] nats, at the N True entries of `where` [B, L]."""

    where: Tensor
    loss: TokenLoss
    each: tuple[Tensor, ...]


class Diffusion(Process):
    """Kind: a process with a noise level, hence with corruption and a reverse step."""

    def alpha(self, t: Tensor) -> Tensor:
        raise AssertionError("abstract")

    def prior(self, vocabulary: Vocabulary) -> Tensor:
        """Law of a token at t = 1, [V]."""
        raise AssertionError("abstract")

    def marginal(self, x0: Tensor, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Law of xt given x0: ids [B, L], t [B] -> [B, L, V]."""
        raise AssertionError("abstract")

    def corrupt(
        self, x0: Tensor, t: Tensor, keys: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        """A draw of xt [B, L]; positions that are no candidates stay clean. `keys` [B]."""
        raise AssertionError("abstract")

    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        """Law of the token at time s given xt and the prediction, at `where` [B, L]: [N, V]."""
        raise AssertionError("abstract")

    def filler_time(self, t: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
        """The time of what is noised beside the candidates where `bound` reads a network at t with these keys, [B]."""
        return t

    def p_flip(self, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """P(xt != x0) of a candidate at t, [B] float64."""
        raise AssertionError("abstract")

    def scored(
        self,
        meaning: Meaning,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Scored:
        """Integrand of the continuous-time NELBO, token by token, for a network of that meaning."""
        raise AssertionError("abstract")

    def nll(
        self,
        prediction: Prediction,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Tensor:
        """Integrand of the continuous-time NELBO a row, summed over candidates, nats, [B] float64."""
        where, loss, each = self.scored(prediction.meaning, x0, xt, t, candidates, vocabulary)
        return row_sums(loss(prediction.logits(where), *each).double(), where)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """-log p_x: logits [N, V], labels [N] -> [N] nats, float32 at least."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -wide.log_softmax(-1).gather(1, x[:, None])[:, 0]


def row_sums(values: Tensor, where: Tensor) -> Tensor:
    """Sum of values [N] standing at the True entries of `where` [B, L] by row -> [B]."""
    rows = where.nonzero()[:, 0]
    return values.new_zeros(len(where)).index_add(0, rows, values)
