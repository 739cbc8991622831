"""Hidden Markov models in float64: exact conditionals under absorbing and uniform noise
(docs/method.md#uniform-samplers).

Shapes: n rows, L positions, S hidden states, V tokens. Symbols: x clean token, z noisy token, s state, alpha
probability that a token is intact; the index l is a position. Likelihoods are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-300
"""Lower bound of divisors, so that an observation of probability 0 gives zeros."""


@dataclass(frozen=True, eq=False)
class Hmm:
    """A hidden Markov model whose rows have L = `length` positions: float64 probabilities `initial` [S] of the first
    state, `transition` [S, S] (from, to) and `emission` [S, V] of tokens.

    *Evidence* [n, L, S] is p(z_l | state s), the likelihood of each observed token under each state. Methods take rows
    of any number of positions; for fewer than `length` they give the exact marginal law of the prefix. A sequence that
    the model cannot produce has log-likelihood -inf, and its conditionals are 0.
    """

    initial: Tensor  # [S]
    transition: Tensor  # [S, S]
    emission: Tensor  # [S, V]
    length: int

    def __post_init__(self) -> None:
        states, tokens = self.emission.shape
        assert self.initial.shape == (states,) and self.transition.shape == (states, states) and tokens > 0
        for law in (self.initial, self.transition, self.emission):
            assert law.dtype == torch.float64 and (law.sum(-1) - 1).abs().max() < 1e-12 and (law >= 0).all()

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return self.emission.shape[1]

    def log_likelihood(self, ids: Tensor) -> Tensor:
        """log p(x) of each row under this hidden Markov model, [n], from clean ids x [n, L]."""
        return self.log_evidence(self.clean_evidence(ids))

    def log_evidence(self, evidence: Tensor) -> Tensor:
        """log p(z) of each row of observed tokens z, [n], from the likelihood p(z_l | state s) of each observed token
        under each state, `evidence` [n, L, S]."""
        return self._filter(evidence)[1].log().sum(-1)

    def next_token(self, ids: Tensor) -> Tensor:
        """p(x_l | x_<l), [n, L, V], the exact next-token distributions of clean ids [n, L]."""
        return self._filter(self.clean_evidence(ids))[0] @ self.emission

    def leave_one_out(self, evidence: Tensor) -> Tensor:
        """p(x_l | z without z_l), [n, L, V], of clean tokens x given noisy ids z, from their evidence p(z_l | s) [n, L,
        S] for each hidden state s: the optimum of Duo's NELBO (docs/method.md#uniform-samplers)."""
        states, _ = self._filter(evidence)
        later = torch.ones_like(states[:, 0])
        for place in reversed(range(evidence.shape[1])):
            states[:, place] *= later
            later = (later * evidence[:, place]) @ self.transition.T
            later = later / later.sum(-1, keepdim=True).clamp_min(TINY)
        return _normalised(states) @ self.emission

    def clean_evidence(self, ids: Tensor) -> Tensor:
        """Evidence of clean ids [n, L]: p(x_l | s), [n, L, S]."""
        return _look_up(self.emission.T, ids)

    def absorbing_evidence(self, ids: Tensor, mask: int) -> Tensor:
        """Evidence p(z_l | s), [n, L, S], of ids z [n, L] under absorbing noise: p(x_l | s) where the id is a token, 1
        where it is `mask` (its factor 1 - alpha cancels)."""
        blank = self.emission.new_ones(1, len(self.initial))
        return _look_up(torch.cat([self.emission.T, blank]), torch.where(ids == mask, self.vocab_size, ids))

    def uniform_evidence(self, ids: Tensor, alpha: Tensor) -> Tensor:
        """Evidence p(z_l | s), [n, L, S], of noisy ids z [n, L] under uniform noise that keeps a token with probability
        alpha, [n] or [n, L]: alpha p(x = z_l | s) + (1 - alpha) / V (docs/method.md#uniform-process)."""
        alpha = alpha.double().reshape(len(ids), -1, 1)
        return alpha * self.clean_evidence(ids) + (1 - alpha) / self.vocab_size

    def posterior_absorbing(self, ids: Tensor, mask: int) -> Tensor:
        """p(x_l | z), [n, L, V], of the clean tokens given ids z [n, L] with masks; one-hot where a token is not
        masked."""
        exact = self.leave_one_out(self.absorbing_evidence(ids, mask))
        known = ids != mask
        exact[known] = torch.nn.functional.one_hot(ids[known], self.vocab_size).double()
        return exact

    def leave_one_out_uniform(self, ids: Tensor, alpha: Tensor) -> Tensor:
        """p(x_l | z without z_l), [n, L, V], given noisy ids z [n, L] under uniform noise that keeps a token with
        probability alpha, [n] or [n, L]."""
        return self.leave_one_out(self.uniform_evidence(ids, alpha))

    def posterior_uniform(self, ids: Tensor, alpha: Tensor) -> Tensor:
        """p(x_l | z), [n, L, V], given noisy ids z [n, L] under uniform noise that keeps a token with probability
        alpha, [n] or [n, L]: proportional to p(x_l | z without z_l), of `leave_one_out_uniform`, times p(z_l | x_l),
        which is (1 - alpha) / V, plus alpha where x_l = z_l."""
        exact = self.leave_one_out_uniform(ids, alpha)
        alpha = alpha.double().reshape(len(ids), -1, 1)
        own = alpha * exact.gather(-1, ids[..., None])
        return _normalised((exact * ((1 - alpha) / self.vocab_size)).scatter_add(-1, ids[..., None], own))

    def sample(self, keys: Tensor) -> Tensor:
        """Clean ids [n, L] drawn from the model, one row per random key [n]."""
        u = rng.uniform(keys, 2, self.length)
        ids = torch.empty(len(keys), self.length, dtype=torch.int64)
        law = self.initial.expand(len(keys), -1)
        for place in range(self.length):
            state = rng.choose(law, u[:, 0, place])
            ids[:, place] = rng.choose(self.emission[state], u[:, 1, place])
            law = self.transition[state]
        return ids

    def unigram(self) -> Tensor:
        """Probabilities of the V tokens at a uniformly random position, [V]."""
        return self._states().mean(0) @ self.emission

    def bigram(self) -> Tensor:
        """Joint probabilities of two adjacent tokens at a uniformly random position, [V, V]."""
        pairs = self._states()[:-1].mean(0)[:, None] * self.transition
        return self.emission.T @ pairs @ self.emission

    def _states(self) -> Tensor:
        """Probabilities p(s_l) of the S states at each position, [L, S]."""
        laws = [self.initial]
        while len(laws) < self.length:
            laws.append(laws[-1] @ self.transition)
        return torch.stack(laws)

    def _filter(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """p(s_l | z_<l) [n, L, S] and p(z_l | z_<l) [n, L] by the scaled forward pass; s_l: hidden state, z_l:
        observed token at position l. `evidence`: p(z_l | s_l) [n, L, S]."""
        rows, length, states = evidence.shape
        before = evidence.new_empty(length, rows, states)
        scale = evidence.new_empty(length, rows)
        state = self.initial.expand(rows, -1)
        for place in range(length):
            before[place] = state
            joint = state * evidence[:, place]
            scale[place] = joint.sum(-1)
            state = (joint / scale[place, :, None].clamp_min(TINY)) @ self.transition
        return before.transpose(0, 1), scale.T


def _look_up(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of `table` [K, S] whose numbers are `ids` [n, L]: [n, L, S]. In memory L is the outermost axis, because
    the forward and backward passes read one position at a time."""
    return table[ids.T].transpose(0, 1)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True).clamp_min(TINY)
