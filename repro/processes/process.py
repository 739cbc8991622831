"""The interface of a noise process: corruption, its exact reverse step, and a bound on -log p(x).

Symbols: x0 clean ids, xt noisy ids, t in [0, 1] with 1 = pure noise, s < t the next time, alpha(t) the probability that
a token is intact. Shapes: B rows, L positions, N True entries of `where` [B, L], V ids (`vocabulary.total`), K ids
without special ones (`vocabulary.size`). Probabilities are float64.

Arguments that occur everywhere: `candidates` [B, L] bool, positions that may be corrupted; `keys` [B] int64 random keys
(repro.core.rng); `predict`, which runs the network.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from repro.core.lazy import torch
from repro.core.parts import Part
from repro.data.corpus import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Meaning, Predict, Prediction, TokenLoss


class Process(Part):
    """Kind: a noise process over the ids of a vocabulary."""

    causal: ClassVar[bool] = False
    """Whether tokens are generated one at a time, left to right, after a BOS."""
    exact: ClassVar[bool] = False
    """Whether `bound` is -log p itself, without random draws."""
    masks: ClassVar[bool] = False
    """Whether the mask id marks the undecided positions; the noise level then follows from the ids."""
    redraws: ClassVar[bool] = False
    """Whether a reverse step redraws every position, not only the undecided ones."""

    def inputs(self, x0: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The ids [B, L] that a network reads to score clean ids x0 [B, L] without noise."""
        return x0

    @abstractmethod
    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        """Ids that are never clean tokens; their logits are -inf."""

    def open(self, ids: Tensor, active: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The active positions [B, L] that are still undecided; by default all of them, until the last step."""
        return active

    @abstractmethod
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

        `u` [B] in (0, 1) determines the diffusion time, `keys` the corruption. Prior and tail terms are included.
        """


class Scored(NamedTuple):
    """The summands of a bound: `loss(logits [N, V], *each [N])` -> [N] nats, at the N True entries of `where` [B,
    L]."""

    where: Tensor
    loss: TokenLoss
    each: tuple[Tensor, ...]


class Diffusion(Process):
    """Kind: a process with a noise level, which has corruption and a reverse step."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is intact at time t: [...] -> [...]."""

    def leave_one_out(self, prediction: Prediction, xt: Tensor, t: Tensor, where: Tensor) -> Tensor:
        """Law of the clean token given all noisy tokens but its own, at `where`: [N, V] or [N, K] float64."""
        return prediction.probs(where)

    @abstractmethod
    def prior(self, vocabulary: Vocabulary) -> Tensor:
        """Law of a token at t = 1, [V]."""

    @abstractmethod
    def marginal(self, x0: Tensor, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Law of xt given x0: ids [B, L], t [B] -> [B, L, V]."""

    @abstractmethod
    def corrupt(
        self, x0: Tensor, t: Tensor, keys: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        """A draw of xt [B, L]; positions outside `candidates` stay clean."""

    @abstractmethod
    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        """Law of the token at time s given xt and the prediction, at `where`: [N, V]."""

    def filler_time(self, t: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
        """The time at which to corrupt further tokens (such as padding) beside the candidates, [B].

        `t` and `keys` are those of a call of the network in `bound`.
        """
        return t

    @abstractmethod
    def p_flip(self, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """P(xt != x0) of a candidate at t, [B] float64."""

    @abstractmethod
    def scored(
        self,
        meaning: Meaning,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Scored:
        """Integrand of the continuous-time NELBO by token, for a network of that meaning."""

    def nll(
        self,
        prediction: Prediction,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Tensor:
        """Integrand of the continuous-time NELBO summed over the candidates of a row, nats, [B] float64."""
        where, loss, each = self.scored(prediction.meaning, x0, xt, t, candidates, vocabulary)
        return row_sums(loss(prediction.logits(where), *each).double(), where)


def diffusion(process: Process) -> Diffusion:
    """The same process, typed as one with a noise level; ValueError for autoregression, which has none."""
    if not isinstance(process, Diffusion):
        raise ValueError("this needs a noise level, and a left-to-right process has none")
    return process


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """-log p_x: logits [N, V], labels [N] -> [N] nats, in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -wide.log_softmax(-1).gather(1, x[:, None])[:, 0]


def row_sums(values: Tensor, where: Tensor) -> Tensor:
    """Sum by row of values [N] that belong to the True entries of `where` [B, L]: [B]."""
    rows = where.nonzero()[:, 0]
    return values.new_zeros(len(where)).index_add(0, rows, values)
