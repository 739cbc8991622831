"""The interface of a noise process: corruption, its exact reverse step, and a bound on -log p(x).

Symbols: x0 clean ids, xt noisy ids, t in [0, 1] with 1 = pure noise, s < t the next time, alpha(t) the probability that
a token is intact. Shapes: B rows, L positions, N True entries of `where` [B, L], V ids (`vocabulary.total`), K ids
without special ones (`vocabulary.size`). Probabilities are float64.

Arguments that occur everywhere: `candidates` [B, L] bool, positions that may be corrupted and are scored; `keys` [B]
int64, one random key per row (repro.core.rng); `predict(noisy ids [B, L], times)`, which runs the network.
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
    """Base class of noise processes: how the token ids of a row are corrupted (if at all), and how a bound on -log p of
    the row is estimated with a network."""

    noise: ClassVar[str]
    """Family of noise, which objectives, samplers and estimators name in `processes`: "absorbing", "uniform" or
    "left_to_right". A subclass of such a process inherits it, and with it all that fits the family."""
    causal: ClassVar[bool] = False
    """Whether tokens are generated one at a time, left to right, after a BOS."""
    masks: ClassVar[bool] = False
    """Whether the mask id marks the undecided positions; the noise level then follows from the ids."""
    redraws: ClassVar[bool] = False
    """Whether a reverse step redraws every position, not only the undecided ones."""

    @property
    def exact(self) -> bool:
        """Whether `bound` returns -log p itself, without random draws."""
        return False

    def block_length(self) -> int | None:
        """Length in tokens of the blocks of a row that are noised one after another, each given the clean blocks before
        it; None: the whole row is noised at once."""
        return None

    def inputs(self, x0: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The ids [B, L] that a network reads to score clean ids x0 [B, L] without noise: x0 itself, or for a
        left-to-right network BOS and all but the last id."""
        return x0

    @abstractmethod
    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        """Ids that are never clean tokens; the network's logits of them are set to -inf."""

    def open(self, ids: Tensor, active: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Which positions of the ids [B, L] of a decoding run are still undecided, [B, L] bool, among those to be
        generated, `active` [B, L] bool. By default all of them, since any may still change until the last step."""
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
        """Unbiased estimate, one per row, of an upper bound on -log p(x0 at `candidates`), in nats, [B] float64.

        x0 [B, L]: clean ids; `predict` runs the network; `u` [B] in (0, 1) determines the diffusion time and `keys` [B]
        the corruption. The prior term (KL divergence at t = 1) and the tail (-log p(x0 | noisy ids at the smallest t))
        are included where the bound has them.
        """


class Scored(NamedTuple):
    """How the terms of a likelihood bound are computed, one for each of the N True entries of `where` [B, L]:
    `loss(logits [N, V], *each)` gives them in nats, [N]; `each`: the further tensors [N] that the loss takes."""

    where: Tensor
    loss: TokenLoss
    each: tuple[Tensor, ...]


class Diffusion(Process):
    """Base class of processes with a noise level, which have a corruption and a reverse step."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is intact at time t; same shape as t."""

    def leave_one_out(self, prediction: Prediction, xt: Tensor, t: Tensor, where: Tensor) -> Tensor:
        """Probabilities of the clean token given all noisy tokens but the one at its own position, float64, from the
        network's `prediction` for noisy ids xt [B, L] at times t [B], at the N True entries of `where` [B, L]: [N, V],
        or under uniform noise [N, K], without the special ids."""
        return prediction.probs(where)

    @abstractmethod
    def prior(self, vocabulary: Vocabulary) -> Tensor:
        """Distribution of a token at t = 1 (pure noise) over the V ids, [V]."""

    @abstractmethod
    def marginal(self, x0: Tensor, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Distribution over the V ids of each noisy token xt given clean ids x0 [B, L] and times t [B]: [B, L, V]."""

    @abstractmethod
    def corrupt(
        self, x0: Tensor, t: Tensor, keys: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        """Noisy ids xt [B, L], drawn by the random keys `keys` [B] at times t [B] given clean ids x0 [B, L]; positions
        outside `candidates` stay clean."""

    @abstractmethod
    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        """Distribution over the V ids of the token at time s < t, given noisy ids xt [B, L] at time t and the network's
        `prediction` for them, at the N True entries of `where` [B, L]: [N, V]; t and s are [B]."""

    def filler_time(self, t: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
        """Time [B] at which to corrupt each row's filler (padding that is read like text but not scored); by default
        `t`.

        t [B]: times at which `bound` calls the network; `candidates` [B, L] bool: positions that it corrupts and
        scores; `keys` [B]: random keys by which it corrupts them.
        """
        return t

    @abstractmethod
    def p_flip(self, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Probability P(xt != x0) that corruption at times t [B] changes the token at a candidate, [B] float64."""

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
        """How to compute, token by token, the integrand of the continuous-time NELBO (negative evidence lower bound) at
        times t [B], for clean ids x0 [B, L], noisy ids xt [B, L] at those times, and a network whose output has the
        given `meaning` (repro.processes.prediction)."""

    def nll(
        self,
        prediction: Prediction,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Tensor:
        """Integrand of the continuous-time NELBO (negative evidence lower bound) at times t [B], from the network's
        `prediction` for noisy ids xt of clean ids x0 [B, L], summed over the candidates of each row, in nats, [B]
        float64."""
        where, loss, each = self.scored(prediction.meaning, x0, xt, t, candidates, vocabulary)
        return row_sums(loss(prediction.logits(where), *each).double(), where)


def diffusion(process: Process) -> Diffusion:
    """Returns `process` itself, which type checkers then take for a `Diffusion`; ValueError for autoregression, which
    has no noise level."""
    if not isinstance(process, Diffusion):
        raise ValueError(
            "this computation needs a noise level, and the model is autoregressive (process left_to_right), which has"
            " none; use a model with absorbing or uniform noise"
        )
    return process


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """-log p_x in nats, [N], in float32 or wider, of labels x [N] under logits [N, V]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -wide.log_softmax(-1).gather(1, x[:, None])[:, 0]


def row_sums(values: Tensor, where: Tensor) -> Tensor:
    """Sums per row, [B], of values [N] that belong to the N True entries of `where` [B, L], in row-major order."""
    rows = where.nonzero()[:, 0]
    return values.new_zeros(len(where)).index_add(0, rows, values)
